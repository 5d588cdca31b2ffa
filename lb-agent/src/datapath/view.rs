//! What the rows show: traffic, flows, counters, and where a packet would go.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use lb_common::Address;
use lb_common::address::Be16;
use lb_common::atomic::Word;
use lb_common::backend::{Backend, Load};
use lb_common::counters::{IcmpBudget, Outcomes, Traffic as TrafficRow};
use lb_common::directory;
use lb_common::flow::{Bucket, Bucket4, Bucket6, Data, Entry, Key, State};
use lb_common::fragment::{FragmentKey, Ports};
use lb_common::latency::{ConnectTimes, Latency, MAGNITUDES, UNIT};
use lb_common::limit::SourceLine;
use lb_common::next_hop::NextHop;
use lb_common::port::{Owner, PoolAddress, Port};
use lb_common::prefix::PrefixKey;
use lb_common::reason::{Event, Reason};
use lb_common::service::{OnNoBackend, Service, ServiceState, Table};
use lb_common::settings::Settings;
use lb_common::slot::SlotLine;
use lb_common::syn::SynRow;
use lb_ebpf::explain::{self, explain};
use lb_ebpf::family::{Ipv4, Ipv6};
use lb_ebpf::nat;
use lb_ebpf::tables::{Route, RouteQuery, Tables};

use super::arrays::Arrays;
use super::identity::{Endpoint, number};
use super::observed::{backend_key, service_key};
use super::{
    Candidate, ConnectTime, ConnectTimeBucket, EventCount, Explanation, FlowCursor, FlowInfo, FlowPage,
    ReasonCount, Traffic,
};
use crate::model::Protocol;

/// The rows at one moment of the kernel's clock.
pub(super) struct View<'a> {
    pub(super) arrays: &'a Arrays,
    pub(super) jiffies: u64,
}

/// What a backend has carried, over all CPUs.
pub(super) fn traffic(arrays: &Arrays, backend: u16) -> Traffic {
    let mut sum = Traffic::default();
    let mut closed = 0;
    for cpu in 0..=arrays.sizes.cpus {
        let row = arrays.traffic(cpu, backend);
        sum.connections_total += row.opened.load();
        sum.rx_packets_total += row.rx_packets.load();
        sum.tx_packets_total += row.tx_packets.load();
        sum.rx_bytes_total += row.rx_bytes.load();
        sum.tx_bytes_total += row.tx_bytes.load();
        closed = u64::wrapping_add(closed, row.closed.load());
    }
    // The rows are read one after another: a flow that closes meanwhile may be seen closed but not opened.
    sum.active_connections = sum.connections_total.saturating_sub(closed);
    sum
}

/// How long connecting to a backend took, over all CPUs; nothing where that was not measured.
pub(super) fn connect_time(arrays: &Arrays, backend: u16) -> Option<ConnectTime> {
    let rows = || (0..arrays.sizes.cpus).map(|cpu| arrays.connect_times(cpu, backend));
    let bucket = |magnitude: usize| ConnectTimeBucket {
        below_microseconds: ConnectTimes::bound(magnitude).map(|bound| bound / 1000),
        count_total: rows().map(|times| times.counts[magnitude].load()).sum(),
    };
    let histogram: Vec<_> = (0..MAGNITUDES).map(bucket).collect();
    let count_total = histogram.iter().map(|bucket| bucket.count_total).sum();
    let latency = Latency(arrays.loads[usize::from(backend)].latency.load());
    (count_total > 0).then(|| ConnectTime {
        smoothed_microseconds: latency.nanoseconds() / 1000,
        sum_microseconds_total: rows().map(|times| times.sum.load()).sum::<u64>() * UNIT / 1000,
        count_total,
        histogram,
    })
}

/// Every packet outcome, in the order of their counters.
pub(super) fn reasons(arrays: &Arrays) -> Vec<ReasonCount> {
    let packets = |reason| arrays.outcomes.iter().map(|row| row.reason(reason).load()).sum();
    Reason::ALL
        .iter()
        .map(|&reason| ReasonCount { reason: reason.name().to_owned(), packets: packets(reason) })
        .collect()
}

/// Everything that is counted besides, in the order of its counters.
pub(super) fn events(arrays: &Arrays) -> Vec<EventCount> {
    let count = |event| arrays.outcomes.iter().map(|row| row.event(event).load()).sum();
    Event::ALL
        .iter()
        .map(|&event| EventCount { event: event.name().to_owned(), count: count(event) })
        .collect()
}

impl View<'_> {
    /// Live flows, of one service or of all, of so many buckets from one on.
    pub(super) fn flows(
        &self,
        service: Option<u16>,
        FlowCursor(from): FlowCursor,
        buckets: usize,
    ) -> FlowPage<FlowInfo> {
        let now = self.arrays.settings().tick(self.jiffies);
        let v4 = self.arrays.flows4.count();
        let total = v4 + self.arrays.flows6.count();
        let (from, end) = (from.min(total), total.min(from.saturating_add(buckets)));
        let part4 = self.arrays.flows4.part(from.min(v4)..end.min(v4));
        let part6 = self.arrays.flows6.part(from.max(v4) - v4..end.max(v4) - v4);
        let flows4 = part4.iter().flat_map(|bucket| self.live(bucket, service, now));
        let flows6 = part6.iter().flat_map(|bucket| self.live(bucket, service, now));
        FlowPage { flows: flows4.chain(flows6).collect(), next: (end < total).then_some(FlowCursor(end)) }
    }

    fn live<K: Key>(
        &self,
        bucket: &Bucket<K>,
        service: Option<u16>,
        now: u64,
    ) -> impl Iterator<Item = FlowInfo> {
        bucket.ways.iter().filter_map(move |entry| self.flow(entry, service, now))
    }

    fn flow<K: Key>(&self, entry: &Entry<K>, wanted: Option<u16>, now: u64) -> Option<FlowInfo> {
        let data = Data(entry.data.load());
        if !data.state().is_live() || data.state() == State::AFFINITY {
            return None;
        }
        let (address, port, service) = K::read(&entry.key);
        // The key is this flow's only if the entry was not recycled while it was read.
        if Data(entry.data.load()).generation() != data.generation()
            || wanted.is_some_and(|wanted| wanted != service)
        {
            return None;
        }
        let vip = service_key(self.arrays.services.get(usize::from(service))?);
        let tick_seconds = f64::from(1u32 << (self.arrays.settings().tick_shift & 31))
            / f64::from(self.arrays.settings().jiffies_per_second.max(1));
        // A packet may have stamped its flow after the clock was read: then its age has wrapped.
        let age = data.age(now + 1).saturating_sub(1);
        Some(FlowInfo {
            vip: vip.socket(),
            protocol: vip.transport(),
            client: SocketAddr::new(address.into(), port.get()),
            backend: self.endpoint(data.backend())?,
            source: self.source(&Owner { client: address, port, service }),
            state: data.state().name().to_owned(),
            idle_seconds: (age as f64 * tick_seconds) as u64,
        })
    }

    /// What the backend sees instead of a flow's client, with full NAT.
    fn source(&self, owner: &Owner) -> Option<SocketAddr> {
        if !nat::is_for(self.service(owner.service)?) {
            return None;
        }
        let place = match owner.client.is_v4() {
            true => nat::place::<Ipv4, _>(self, owner),
            false => nat::place::<Ipv6, _>(self, owner),
        }?;
        Some(SocketAddr::new(self.pool_address(place.address)?.address.into(), place.port.get()))
    }

    fn endpoint(&self, backend: u16) -> Option<SocketAddr> {
        Some(backend_key(self.arrays.backends.get(usize::from(backend))?).socket())
    }

    /// Who stands in a table, with the share of its slots, in the order of their endpoints.
    fn candidates(&self, table: Table) -> Vec<Candidate> {
        let mut slots: BTreeMap<u16, u64> = BTreeMap::new();
        for id in self.arrays.table(table.line(), table.slots()) {
            *slots.entry(id).or_default() += 1;
        }
        let share = |slots: u64| (slots * 10_000 / u64::from(table.slots().max(1))) as u32;
        let mut candidates: Vec<_> = slots
            .into_iter()
            .filter_map(|(id, slots)| {
                Some(Candidate { backend: self.endpoint(id)?, share_basis_points: share(slots) })
            })
            .collect();
        candidates.sort_by_key(|candidate| candidate.backend);
        candidates
    }

    /// Where a packet would go, by the code that packets run.
    pub(super) fn explain(&self, protocol: Protocol, client: SocketAddr, vip: SocketAddr) -> Explanation {
        let answer = |backend, reason: &str, slot| Explanation {
            backend,
            source: None,
            reason: reason.to_owned(),
            slot,
            candidates: Vec::new(),
        };
        if client.is_ipv4() != vip.is_ipv4() {
            return answer(None, "no-service", None);
        }
        let socket = |address: SocketAddr| {
            let endpoint = Endpoint::new(address, protocol);
            (endpoint.address, endpoint.port)
        };
        let (client, vip): ((Address, Be16), (Address, Be16)) = (socket(client), socket(vip));
        match explain(self, number(protocol), client, vip) {
            explain::Explanation::NoService => answer(None, "no-service", None),
            explain::Explanation::NoBackend(OnNoBackend::Reset | OnNoBackend::Drop) => {
                answer(None, "no-backend", None)
            }
            explain::Explanation::Contradiction => answer(None, "contradiction", None),
            explain::Explanation::Flow { backend, state } => {
                let half_open = state == State::HALF_OPEN || state == State::ANSWERED;
                let reason = if half_open { "half-open" } else { "flow" };
                let owner = |row: &Backend| Owner { client: client.0, port: client.1, service: row.service };
                let source = self.backend(backend).and_then(|row| self.source(&owner(row)));
                Explanation { source, ..answer(self.endpoint(backend), reason, None) }
            }
            explain::Explanation::Affinity { backend } => answer(self.endpoint(backend), "affinity", None),
            explain::Explanation::Slot { backend, slot } => {
                answer(self.endpoint(backend), "slot", Some(slot))
            }
            explain::Explanation::Candidates(table) => {
                Explanation { candidates: self.candidates(table), ..answer(None, "candidates", None) }
            }
        }
    }
}

/// The tables as a packet meets them, but nothing is counted, remembered or looked up in the kernel.
impl Tables for View<'_> {
    fn settings(&self) -> &Settings {
        self.arrays.settings()
    }

    fn directory(&self, bucket: u32) -> Option<&directory::Bucket> {
        self.arrays.directory.get(bucket as usize)
    }

    fn service(&self, id: u16) -> Option<&Service> {
        self.arrays.services.get(usize::from(id))
    }

    fn backend(&self, id: u16) -> Option<&Backend> {
        self.arrays.backends.get(usize::from(id))
    }

    fn service_state(&self, id: u16) -> Option<&ServiceState> {
        self.arrays.service_states.get(usize::from(id))
    }

    fn load(&self, backend: u16) -> Option<&Load> {
        self.arrays.loads.get(usize::from(backend))
    }

    fn slots(&self, line: u32) -> Option<&SlotLine> {
        self.arrays.slots.get(line as usize)
    }

    fn flows4(&self, bucket: u32) -> Option<&Bucket4> {
        self.arrays.flows4.get(bucket as usize)
    }

    fn flows6(&self, bucket: u32) -> Option<&Bucket6> {
        self.arrays.flows6.get(bucket as usize)
    }

    fn client_hop(&self, _: u32) -> Option<&Word> {
        None
    }

    fn next_hop(&self, id: u16) -> Option<&NextHop> {
        self.arrays.next_hops.get(usize::from(id))
    }

    fn pool_address(&self, id: u8) -> Option<&PoolAddress> {
        self.arrays.pool_addresses.get(usize::from(id))
    }

    fn port(&self, row: u32) -> Option<&Port> {
        self.arrays.ports.get(row as usize)
    }

    fn outcomes(&self) -> &Outcomes {
        // Explaining counts nothing; the first CPU's row stands for "this CPU's".
        &self.arrays.outcomes[0]
    }

    fn traffic(&self, _: u16) -> Option<&TrafficRow> {
        None
    }

    fn connect_times(&self, _: u16) -> Option<&ConnectTimes> {
        None
    }

    fn icmp_budget(&self) -> Option<&IcmpBudget> {
        None
    }

    fn syn(&self, _: u32) -> Option<&SynRow> {
        None
    }

    fn source_line(&self, _: u32) -> Option<&SourceLine> {
        None
    }

    fn listed(&self, _: &PrefixKey) -> Option<u32> {
        None
    }

    fn fragment(&self, _: &FragmentKey) -> Option<Ports> {
        None
    }

    fn remember_fragment(&self, _: &FragmentKey, _: Ports) {}

    fn jiffies(&self) -> u64 {
        self.jiffies
    }

    fn nanoseconds(&self) -> u64 {
        0
    }

    fn route(&self, _: &RouteQuery) -> Route {
        Route::Unfollowable
    }
}

#[cfg(test)]
mod tests;
