//! The balancer under test: one way to feed it, two that it may run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::MutexGuard;

use lb_common::address::Be16;
use lb_common::flow::{Bucket, Data, Key, Key4, Key6, State};
use lb_common::reason::{Event, Reason};
use lb_ebpf::family::{Family, Ipv4, Ipv6};
use lb_ebpf::flows::{self, Insertion};
use lb_ebpf::memory::{MemoryFrame, MemoryTables, Sizes};
use lb_ebpf::verdict::Verdict;

use crate::kernel::{self, Kernel};
use crate::lab::{self, INGRESS_INDEX, Lab, Rows};
use crate::packet::{Packet, checksums_valid, describe};

/// What becomes of a frame: XDP's actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `XDP_ABORTED`: never meant.
    Aborted,
    /// `XDP_DROP`.
    Drop,
    /// `XDP_PASS`.
    Pass,
    /// `XDP_TX`.
    Transmit,
    /// `XDP_REDIRECT`.
    Redirect,
}

/// A balancer with a lab's tables.
pub struct Balancer {
    side: Side,
}

enum Side {
    Host(Box<MemoryTables>),
    Kernel(MutexGuard<'static, Kernel>),
}

/// What came of one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The frame that went in.
    pub input: Vec<u8>,
    /// What becomes of it.
    pub action: Action,
    /// The frame afterwards.
    pub output: Vec<u8>,
    /// Out of which interface a redirect goes. The kernel does not tell.
    pub interface: Option<u32>,
    /// Every counter that moved, and by how much.
    pub counters: Counters,
}

/// Counters by their stable names.
pub type Counters = BTreeMap<&'static str, u64>;

/// An entry of the flow table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// The client.
    pub client: (IpAddr, u16),
    /// The service's identifier.
    pub service: u16,
    /// The backend's identifier.
    pub backend: u16,
    /// The state's stable name.
    pub state: &'static str,
}

impl Balancer {
    /// The pipeline on the host.
    #[must_use]
    pub fn host(lab: &Lab) -> Self {
        Self { side: Side::Host(Box::new(tables(lab))) }
    }

    /// The program in the kernel.
    #[must_use]
    pub fn kernel(lab: &Lab) -> Self {
        let mut balancer = Self { side: Side::Kernel(kernel::borrow()) };
        balancer.configure(lab);
        balancer
    }

    /// Gives it another configuration; flows and counts stay.
    pub fn configure(&mut self, lab: &Lab) {
        let backends = match &self.side {
            Side::Host(tables) => tables.backends.len() as u32,
            Side::Kernel(kernel) => kernel.backends_per_cpu(),
        };
        self.rows().configure(lab, backends);
    }

    /// Forgets flows, fragments, next hops and counts, and takes on a configuration.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn restart(&mut self, lab: &Lab) {
        self.rows().clear();
        match &mut self.side {
            Side::Host(tables) => tables.fragments.borrow_mut().clear(),
            Side::Kernel(kernel) => kernel.forget_fragments().expect("removing what is there"),
        }
        self.configure(lab);
    }

    /// The tables, for writing what no packet would.
    pub fn rows(&mut self) -> Rows<'_> {
        match &mut self.side {
            Side::Host(tables) => memory_rows(tables),
            Side::Kernel(kernel) => kernel.rows(),
        }
    }

    /// One frame comes in.
    pub fn receive(&mut self, packet: &Packet) -> Run {
        self.receive_bytes(&packet.bytes())
    }

    /// One frame comes in, whatever it is.
    ///
    /// # Panics
    /// When the kernel does not take it: less than a link-layer header, or more than fits in a page.
    pub fn receive_bytes(&mut self, frame: &[u8]) -> Run {
        let before = self.counters();
        let (action, output, interface) = self.run(frame);
        let counters = moved(&before, &self.counters());
        Run { input: frame.to_vec(), action, output, interface, counters }
    }

    /// One frame comes in, and nobody counts.
    ///
    /// # Panics
    /// As [`Balancer::receive_bytes`].
    pub fn run(&mut self, frame: &[u8]) -> (Action, Vec<u8>, Option<u32>) {
        match &mut self.side {
            Side::Host(tables) => {
                let mut frame = MemoryFrame { bytes: frame.to_vec(), ingress: INGRESS_INDEX };
                let verdict = tables.run(&mut frame);
                let (action, interface) = action(verdict);
                (action, frame.bytes, interface)
            }
            Side::Kernel(kernel) => {
                let (returned, output) = kernel.run(frame).expect("a frame that the kernel takes");
                let action = match returned {
                    0 => Action::Aborted,
                    1 => Action::Drop,
                    2 => Action::Pass,
                    3 => Action::Transmit,
                    4 => Action::Redirect,
                    other => panic!("XDP has no action {other}"),
                };
                (action, output, None)
            }
        }
    }

    /// All counters that are not zero.
    pub fn counters(&mut self) -> Counters {
        let rows = self.rows();
        let mut counters = Counters::new();
        for row in rows.outcomes.iter() {
            let reasons = Reason::ALL.iter().map(|&reason| (reason.name(), row.reason(reason).load()));
            let events = Event::ALL.iter().map(|&event| (event.name(), row.event(event).load()));
            for (name, count) in reasons.chain(events).filter(|(_, count)| *count > 0) {
                *counters.entry(name).or_default() += count;
            }
        }
        counters
    }

    /// What a backend carried, over all CPUs: packets and bytes from clients, the same to clients, flows that became
    /// active and that stopped being so.
    pub fn traffic(&mut self, backend: u16) -> [u64; 6] {
        let rows = self.rows();
        let count = rows.settings.backends as usize;
        let of_backend = rows.traffic.iter().skip(usize::from(backend)).step_by(count);
        of_backend.fold([0; 6], |total, row| {
            let words =
                [&row.rx_packets, &row.rx_bytes, &row.tx_packets, &row.tx_bytes, &row.opened, &row.closed];
            std::array::from_fn(|at| total[at] + words[at].load())
        })
    }

    /// Active connections of a backend: opened and not closed.
    pub fn active(&mut self, backend: u16) -> i64 {
        let [.., opened, closed] = self.traffic(backend);
        opened as i64 - closed as i64
    }

    /// The flow table, in a fixed order.
    pub fn flows(&mut self) -> Vec<Flow> {
        let rows = self.rows();
        let mut flows = Vec::new();
        rows.flows4.iter().for_each(|bucket| entries(bucket, &mut flows));
        rows.flows6.iter().for_each(|bucket| entries(bucket, &mut flows));
        flows.sort();
        flows
    }

    /// Enters a flow that was last seen so many ticks (of about a second) ago.
    ///
    /// # Panics
    /// When its bucket is full.
    pub fn plant(&mut self, client: (&str, u16), service: u16, backend: u16, state: State, idle: u64) {
        let now = self.tick();
        let address = lab::address(client.0);
        let port = Be16::new(client.1);
        let rows = self.rows();
        let hash = |key: u64, mask: u32| (key as u32 & mask) as usize;
        if address.is_v4() {
            let key = Key4::new(Ipv4::narrow(&address), port, service);
            let bucket = &rows.flows4[hash(key.hash(rows.settings.flow_key), rows.settings.flow4_mask)];
            plant(bucket, key, state, backend, now.wrapping_sub(idle));
        } else {
            let key = Key6::new(&Ipv6::narrow(&address), port, service);
            let bucket = &rows.flows6[hash(key.hash(rows.settings.flow_key), rows.settings.flow6_mask)];
            plant(bucket, key, state, backend, now.wrapping_sub(idle));
        }
    }

    /// The time, in the ticks that flows are stamped with.
    fn tick(&mut self) -> u64 {
        let jiffies = match &self.side {
            Side::Host(tables) => tables.jiffies.get(),
            Side::Kernel(kernel) => kernel.jiffies().expect("the clock program"),
        };
        self.rows().settings.tick(jiffies)
    }

    /// Client ports whose flows to `service` fall into the bucket of another flow of that client: port and service.
    pub fn ports_beside(&mut self, client: &str, flow: (u16, u16), service: u16) -> Vec<u16> {
        let address = lab::address(client);
        let settings = self.rows().settings.clone();
        let bucket = |port: u16, service: u16| {
            let port = Be16::new(port);
            let hash = if address.is_v4() {
                Key4::new(Ipv4::narrow(&address), port, service).hash(settings.flow_key)
            } else {
                Key6::new(&address, port, service).hash(settings.flow_key)
            };
            hash as u32 & settings.flow4_mask
        };
        let wanted = bucket(flow.0, flow.1);
        (1..u16::MAX).filter(|&port| (port, service) != flow && bucket(port, service) == wanted).collect()
    }
}

/// The host's tables, filled in and with the routes that a kernel has in [`crate::kernel`].
#[must_use]
pub fn tables(lab: &Lab) -> MemoryTables {
    let sizes =
        Sizes { services: 64, backends: 64, slot_lines: 64, flow_buckets: 4096, directory_buckets: 256 };
    let mut tables = MemoryTables::new(sizes);
    tables.routes = lab::routes().collect();
    tables.default_route = lab::default_route();
    tables.jiffies.set(5 << 30);
    memory_rows(&mut tables).configure(lab, sizes.backends);
    tables
}

fn memory_rows(tables: &mut MemoryTables) -> Rows<'_> {
    Rows {
        settings: &mut tables.settings,
        directory: &mut tables.directory,
        services: &mut tables.services,
        backends: &mut tables.backends,
        service_states: &mut tables.service_states,
        loads: &mut tables.loads,
        slots: &mut tables.slots,
        flows4: &mut tables.flows4,
        flows6: &mut tables.flows6,
        next_hops: &mut tables.next_hops,
        outcomes: std::slice::from_mut(&mut tables.outcomes),
        traffic: &mut tables.traffic,
        icmp_budget: std::slice::from_mut(&mut tables.icmp_budget),
    }
}

fn action(verdict: Verdict) -> (Action, Option<u32>) {
    match verdict {
        Verdict::Pass(_) => (Action::Pass, None),
        Verdict::Drop(_) => (Action::Drop, None),
        Verdict::Transmit(_) => (Action::Transmit, None),
        Verdict::Redirect(_, interface) => (Action::Redirect, Some(interface)),
        Verdict::Defer(stage) => panic!("{stage:?} was not run"),
    }
}

fn entries<K: Key>(bucket: &Bucket<K>, flows: &mut Vec<Flow>) {
    for entry in &bucket.ways {
        let data = Data(entry.data.load());
        if data.state().is_live() {
            let (address, port, service) = K::read(&entry.key);
            let client = (IpAddr::from(address), port.get());
            flows.push(Flow { client, service, backend: data.backend(), state: data.state().name() });
        }
    }
}

fn plant<K: Key>(bucket: &Bucket<K>, key: K, state: State, backend: u16, stamp: u64) {
    let insertion = flows::insert(bucket, key, state, backend, stamp, |_| panic!("the bucket is full"));
    assert!(matches!(insertion, Insertion::Created), "the flow is there, or the bucket is full");
}

/// The difference of two counts.
#[must_use]
pub fn moved(before: &Counters, after: &Counters) -> Counters {
    let was = |name| before.get(name).copied().unwrap_or(0);
    after
        .iter()
        .map(|(&name, &count)| (name, count - was(name)))
        .filter(|(_, difference)| *difference > 0)
        .collect()
}

impl Run {
    /// Sent back out of the interface that it came in by.
    ///
    /// # Panics
    /// Where anything else happened, or the frame is another; so do all assertions here.
    #[track_caller]
    pub fn assert_transmitted(&self, expected: &Packet) -> &Self {
        self.assert(Action::Transmit, &expected.bytes())
    }

    /// Sent out of another interface.
    ///
    /// # Panics
    /// Where not.
    #[track_caller]
    pub fn assert_redirected(&self, interface: u32, expected: &Packet) -> &Self {
        if let Some(actual) = self.interface {
            assert_eq!(actual, interface, "redirected to another interface\n{}", self.report(None));
        }
        self.assert(Action::Redirect, &expected.bytes())
    }

    /// Rewritten, then left to the kernel.
    ///
    /// # Panics
    /// Where not.
    #[track_caller]
    pub fn assert_passed_as(&self, expected: &Packet) -> &Self {
        self.assert(Action::Pass, &expected.bytes())
    }

    /// Left to the kernel as it is.
    ///
    /// # Panics
    /// Where not.
    #[track_caller]
    pub fn assert_untouched(&self) -> &Self {
        assert_eq!(self.action, Action::Pass, "{}", self.report(None));
        assert!(self.output == self.input, "passed, but not as it was\n{}", self.report(Some(&self.input)));
        self
    }

    /// Dropped.
    ///
    /// # Panics
    /// Where not.
    #[track_caller]
    pub fn assert_dropped(&self) -> &Self {
        assert_eq!(self.action, Action::Drop, "{}", self.report(None));
        self
    }

    /// Exactly one reason and these events, once each, and no other counter moved.
    ///
    /// # Panics
    /// Where not.
    #[track_caller]
    pub fn assert_counted<const N: usize>(&self, reason: Reason, events: [Event; N]) -> &Self {
        self.assert_counted_with(reason, &events)
    }

    /// As [`Run::assert_counted`], for a list that is not written where it is used.
    ///
    /// # Panics
    /// Where not.
    #[track_caller]
    pub fn assert_counted_with(&self, reason: Reason, events: &[Event]) -> &Self {
        let mut expected = Counters::from([(reason.name(), 1)]);
        for event in events {
            *expected.entry(event.name()).or_default() += 1;
        }
        assert_eq!(self.counters, expected, "counters\n{}", self.report(None));
        self
    }

    #[track_caller]
    fn assert(&self, action: Action, expected: &[u8]) -> &Self {
        assert_eq!(self.action, action, "{}", self.report(Some(expected)));
        assert!(self.output == expected, "another frame\n{}", self.report(Some(expected)));
        assert_eq!(checksums_valid(&self.output), Ok(()), "{}", self.report(None));
        self
    }

    /// All there is to know of it.
    #[must_use]
    pub fn report(&self, expected: Option<&[u8]>) -> String {
        let mut text = format!("in: {}", describe(&self.input));
        if let Some(expected) = expected {
            let _ = write!(text, "expected: {}", describe(expected));
        }
        let _ = write!(text, "{:?}: {}counters: {:?}", self.action, describe(&self.output), self.counters);
        text
    }
}
