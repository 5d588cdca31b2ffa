//! Fills in the rows: the same code writes a vector and the kernel's memory.

use lb_common::ABI_VERSION;
use lb_common::address::{Address, Be16, Protocol};
use lb_common::atomic::Word;
use lb_common::backend::{Backend as BackendRow, Load, Standing};
use lb_common::counters::{IcmpBudget, Outcomes, Traffic};
use lb_common::directory::{self, Kind, Listing};
use lb_common::flow::{Bucket, Bucket4, Bucket6, Key};
use lb_common::latency::ConnectTimes;
use lb_common::limit::SourceLine;
use lb_common::next_hop::NextHop;
use lb_common::port::{NO_ADDRESS, Pool, PoolAddress, Port};
use lb_common::service::{Options, Service as ServiceRow, ServiceState, Table};
use lb_common::settings::Settings;
use lb_common::slot::{Owners, SLOTS_PER_LINE, SlotLine, lines, members, members_line};
use lb_common::syn::SynRow;

use super::{Backend, FIRST_POOL_PORT, Lab, Service, Way};

/// Jiffies that these tables take for a second: so many that no clock advances by one during a test. Rows that are
/// confirmed stay so, and a budget for a second is not renewed.
pub(super) const JIFFIES_PER_SECOND: u32 = 1 << 30;
/// Likewise for the ticks that flows are stamped with.
const TICK_SHIFT: u32 = 31;
/// Key of the flow tables: any, but the same on both sides.
const FLOW_KEY: u64 = 0x0123_4567_89ab_cdef;
/// The first next hop that backends refer to: one for each, at its identifier from here on.
const FIRST_NEXT_HOP: u16 = 2048;
/// A next hop confirmed then is confirmed for ever: later than any clock.
const NEVER_STALE: u64 = 1 << 60;
/// A next hop confirmed then is stale: every kernel's clock starts later than a second of these tables after it.
const LONG_STALE: u64 = 0;

/// The arrays of one balancer, with nobody else looking.
#[expect(missing_docs, reason = "named as the maps are")]
pub struct Rows<'a> {
    pub settings: &'a mut Settings,
    pub directory: &'a mut [directory::Bucket],
    pub services: &'a mut [ServiceRow],
    pub backends: &'a mut [BackendRow],
    pub service_states: &'a mut [ServiceState],
    pub loads: &'a mut [Load],
    pub slots: &'a mut [SlotLine],
    pub flows4: &'a mut [Bucket4],
    pub flows6: &'a mut [Bucket6],
    pub client_hops: &'a mut [Word],
    pub next_hops: &'a mut [NextHop],
    pub pool_addresses: &'a mut [PoolAddress],
    pub ports: &'a mut [Port],
    pub outcomes: &'a mut [Outcomes],
    pub traffic: &'a mut [Traffic],
    pub connect_times: &'a mut [ConnectTimes],
    pub icmp_budget: &'a mut [IcmpBudget],
    pub syns: &'a mut [SynRow],
    pub sources: &'a mut [SourceLine],
}

impl Rows<'_> {
    /// Forgets flows, next hops and counts.
    pub fn clear(&mut self) {
        self.flows4.iter().for_each(clear);
        self.flows6.iter().for_each(clear);
        self.service_states.fill(ServiceState::default());
        self.loads.fill(Load::default());
        self.client_hops.fill(Word::default());
        self.next_hops.fill(NextHop::default());
        self.ports.fill(Port::default());
        self.outcomes.iter_mut().for_each(|row| *row = Outcomes::default());
        self.traffic.fill(Traffic::default());
        self.connect_times.fill(ConnectTimes::default());
        self.icmp_budget.fill(IcmpBudget::default());
        self.syns.fill(SynRow::default());
        self.sources.fill(SourceLine::default());
    }

    /// Writes settings, services, backends, slots and directory. Flows and counts stay.
    ///
    /// # Panics
    /// When the lab is larger than the arrays.
    pub fn configure(&mut self, lab: &Lab, backends_per_cpu: u32) {
        *self.settings = settings(lab, self.directory.len() as u32 / directory::HALVES, backends_per_cpu);
        self.services.fill(ServiceRow::default());
        self.backends.fill(BackendRow::default());
        self.pool_addresses.fill(PoolAddress::default());
        let pool = lab.pool_addresses();
        for (row, &address) in self.pool_addresses.iter_mut().zip(&pool) {
            *row = PoolAddress { address, live: 1.into(), reserved: 0 };
        }
        let (mut backend, mut line) = (1, 0);
        for (service, id) in lab.services.iter().zip(1..) {
            line += self.service(service, id, backend, line);
            self.services[usize::from(id)].pool = entries(service, &pool);
            backend += service.backends.len() as u16;
        }
        self.chain_siblings();
        self.mark_shared(lab);
        self.mark_behind_full_nat(lab);
        self.list(lab);
    }

    /// One service: its row, its backends' and its slots. Returns the lines that it takes.
    fn service(&mut self, service: &Service, id: u16, first_backend: u16, line: u32) -> u32 {
        for (backend, backend_id) in service.backends.iter().zip(first_backend..) {
            self.backend(service, id, backend, backend_id);
        }
        let ids = || service.backends.iter().zip(first_backend..);
        let serving = || ids().filter(|(backend, _)| backend.serving && !backend.draining).map(|(_, id)| id);
        let mut slots = service.slots.clone().unwrap_or_else(|| serving().collect());
        let by_exception = service.options.has(Options::EXCEPTIONS);
        if by_exception {
            let id = |number: u16| if number == 0 { 0 } else { number + first_backend - 1 };
            for pair in slots.chunks_exact_mut(2) {
                let owners = Owners::from_elements([pair[0], pair[1]]);
                let owners = Owners { base: id(owners.base), current: id(owners.current), ..owners };
                pair.copy_from_slice(&owners.to_elements());
            }
        }
        for (slot, &backend) in slots.iter().enumerate() {
            let at = line as usize + slot / SLOTS_PER_LINE as usize;
            self.slots[at].backends[slot % SLOTS_PER_LINE as usize] = backend;
        }
        let count = slots.len() as u32 / if by_exception { 2 } else { 1 };
        let table = Table::new(line, count, service.index, service.on_no_backend);
        self.slots[(line + members_line(slots.len() as u32)) as usize] = members(&slots);
        let state = &self.service_states[usize::from(id)];
        state.service_limit.store(service.limits[0].0);
        state.source_limit.store(service.limits[1].0);
        self.services[usize::from(id)] = ServiceRow {
            vip: service.vip,
            table: table.0.into(),
            seed: 0x5eed_0000 + u64::from(id),
            port: Be16::new(service.port),
            protocol: service.protocol,
            live: 1,
            options: service.options.0.into(),
            ..ServiceRow::default()
        };
        lines(slots.len() as u32)
    }

    fn backend(&mut self, service: &Service, service_id: u16, backend: &Backend, id: u16) {
        let vip = (service.vip, Be16::new(service.port));
        let endpoint = (backend.address, Be16::new(backend.port));
        let row = BackendRow::new(service_id, vip, endpoint, service.protocol);
        let by_exception = service.options.has(Options::EXCEPTIONS);
        let weight = u16::from(!backend.draining);
        let standing = Standing { serving: backend.serving, weight, by_exception, ..Standing::default() };
        row.state.store(standing.to_word());
        let next_hop = FIRST_NEXT_HOP + id;
        let (hop, confirmed) = match backend.way {
            Way::Fresh(hop) => (hop, NEVER_STALE),
            Way::Stale(hop) => (hop, LONG_STALE),
            Way::Unknown => {
                self.backends[usize::from(id)] = row;
                return;
            }
        };
        row.next_hop.store(u64::from(next_hop));
        let way = &self.next_hops[usize::from(next_hop)];
        way.write(&hop.to_words());
        way.state.store(NextHop::live(confirmed));
        self.backends[usize::from(id)] = row;
    }

    /// The endpoints of full-NAT services.
    fn mark_behind_full_nat(&mut self, lab: &Lab) {
        for id in 1..self.backends.len() {
            let row = &self.backends[id];
            let mut others = self.backends.iter().filter(|other| endpoint(other) == endpoint(row));
            let behind_full_nat = others.any(|other| is_full_nat(lab, other));
            let standing = Standing::from_word(row.state.load());
            row.state.store(Standing { behind_full_nat, ..standing }.to_word());
        }
    }

    /// The endpoints of several services that keep their clients' addresses.
    fn mark_shared(&mut self, lab: &Lab) {
        let keeps = |row: &BackendRow| row.service != 0 && !is_full_nat(lab, row);
        for row in self.backends.iter().filter(|row| keeps(row)) {
            let others =
                self.backends.iter().filter(|other| keeps(other) && endpoint(other) == endpoint(row));
            let standing = Standing::from_word(row.state.load());
            row.state.store(Standing { shared: others.count() > 1, ..standing }.to_word());
        }
    }

    /// Rows of one endpoint, each pointing to the next.
    fn chain_siblings(&mut self) {
        for id in (1..self.backends.len()).filter(|&id| self.backends[id].service != 0).collect::<Vec<_>>() {
            let mut later = id + 1..self.backends.len();
            let Some(next) =
                later.find(|&next| endpoint(&self.backends[next]) == endpoint(&self.backends[id]))
            else {
                continue;
            };
            let row = &self.backends[id];
            let standing = Standing::from_word(row.state.load());
            row.state.store(Standing { sibling: next as u16, ..standing }.to_word());
        }
    }

    /// Lists what there is in the directory's first half.
    fn list(&mut self, lab: &Lab) {
        let mut listings = Vec::new();
        let mut list = |address: Address, port, protocol, kind, id| {
            let listing = Listing { address, port, protocol, kind, id };
            let same =
                |other: &Listing| (other.address, other.port, other.protocol) == (address, port, protocol);
            if !listings.iter().any(same) {
                listings.push(listing);
            }
        };
        for (service, id) in lab.services.iter().zip(1..) {
            list(service.vip, Be16::new(service.port), service.protocol, Kind::Service, id);
            list(service.vip, Be16(0), Protocol(0), Kind::Vip, id);
        }
        for (address, id) in lab.pool_addresses().into_iter().zip(0..) {
            list(address, Be16(0), Protocol(0), Kind::Pool, id);
        }
        for (row, id) in self.backends.iter().zip(0..).filter(|(row, _)| row.service != 0) {
            list(row.address, row.port, row.protocol, Kind::Backend, id);
            list(row.address, Be16(0), row.protocol, Kind::Host, id);
        }
        let buckets = self.directory.len() / directory::HALVES as usize;
        let (key, half) = directory::build(&listings, buckets as u32).expect("room for every listing");
        self.directory[..buckets].copy_from_slice(&half);
        self.settings.directory_keys[0].store(key);
    }
}

fn settings(lab: &Lab, directory_buckets: u32, backends: u32) -> Settings {
    Settings {
        abi: ABI_VERSION,
        jiffies_per_second: JIFFIES_PER_SECOND,
        tick_shift: TICK_SHIFT,
        flow4_buckets: lab.flow_buckets,
        flow6_buckets: lab.flow_buckets,
        directory_mask: directory_buckets - 1,
        pool_port: FIRST_POOL_PORT.into(),
        pool_block: lab.pool_ports,
        pool_blocks: 1,
        icmp_errors_per_second: lab.icmp_errors_per_second,
        backends,
        flow_key: FLOW_KEY,
        ..Settings::default()
    }
}

/// A service's pool, of the addresses that have these numbers.
fn entries(service: &Service, addresses: &[Address]) -> Pool {
    let numbers: Vec<u8> =
        (0..).zip(addresses).filter(|(_, address)| service.pool.contains(address)).map(|(n, _)| n).collect();
    Pool::new(std::array::from_fn(|at| numbers.get(at % numbers.len().max(1)).copied().unwrap_or(NO_ADDRESS)))
}

fn endpoint(row: &BackendRow) -> (Address, Be16, Protocol) {
    (row.address, row.port, row.protocol)
}

fn is_full_nat(lab: &Lab, row: &BackendRow) -> bool {
    row.service != 0 && !lab.services[usize::from(row.service) - 1].pool.is_empty()
}

fn clear<K: Key>(bucket: &Bucket<K>) {
    bucket.ways.iter().for_each(|entry| entry.data.store(0));
}
