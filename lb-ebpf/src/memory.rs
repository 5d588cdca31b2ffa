//! Frame and tables in plain memory: the host's side of the two traits, for tests, fuzzing and simulation.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};

use lb_common::address::Address;
use lb_common::atomic::Word;
use lb_common::backend::{Backend, Load};
use lb_common::counters::{IcmpBudget, Outcomes, Traffic};
use lb_common::directory::{self, HALVES};
use lb_common::flow::{Bucket4, Bucket6, Entry, Key};
use lb_common::fragment::{FragmentKey, Ports};
use lb_common::latency::ConnectTimes;
use lb_common::limit::SourceLine;
use lb_common::maps;
use lb_common::next_hop::{CAPACITY, NextHop};
use lb_common::port::{PoolAddress, Port};
use lb_common::prefix::PrefixKey;
use lb_common::reason::{Event, Reason};
use lb_common::service::{Service, ServiceState};
use lb_common::settings::Settings;
use lb_common::slot::SlotLine;
use lb_common::syn::SynRow;

use crate::frame::{Fields, FieldsMut, Frame, MAX_OFFSET};
use crate::pipeline;
use crate::tables::{Route, RouteQuery, Tables};
use crate::verdict::Verdict;

/// A frame in a vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryFrame {
    /// The bytes, from the link-layer header on.
    pub bytes: Vec<u8>,
    /// Where it came in.
    pub ingress: u32,
}

impl<const N: usize> Fields<N> for &[u8; N] {
    fn get<const AT: usize, const M: usize>(&self) -> [u8; M] {
        (**self).get::<AT, M>()
    }
}

impl<const N: usize> Fields<N> for &mut [u8; N] {
    fn get<const AT: usize, const M: usize>(&self) -> [u8; M] {
        (**self).get::<AT, M>()
    }
}

impl<const N: usize> FieldsMut<N> for &mut [u8; N] {
    fn set<const AT: usize, const M: usize>(&mut self, bytes: [u8; M]) {
        const { assert!(AT + M <= N) };
        self[AT..AT + M].copy_from_slice(&bytes);
    }
}

impl Frame for MemoryFrame {
    type Fields<'a, const N: usize> = &'a [u8; N];
    type FieldsMut<'a, const N: usize> = &'a mut [u8; N];

    fn length(&self) -> usize {
        self.bytes.len()
    }

    fn ingress(&self) -> u32 {
        self.ingress
    }

    fn fields<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        if at > MAX_OFFSET {
            return None;
        }
        self.bytes.get(at..at + N)?.first_chunk()
    }

    fn fields_mut<const N: usize>(&mut self, at: usize) -> Option<&mut [u8; N]> {
        if at > MAX_OFFSET {
            return None;
        }
        self.bytes.get_mut(at..at + N)?.first_chunk_mut()
    }

    fn move_front(&mut self, by: i32) -> Option<()> {
        if by < 0 {
            self.bytes.splice(..0, std::iter::repeat_n(0, by.unsigned_abs() as usize));
        } else {
            if by as usize > self.bytes.len() {
                return None;
            }
            self.bytes.drain(..by as usize);
        }
        Some(())
    }

    fn move_end(&mut self, by: i32) -> Option<()> {
        let length = self.bytes.len().checked_add_signed(by as isize)?;
        self.bytes.resize(length, 0);
        Some(())
    }
}

/// Tables in memory, with room for what tests need. One CPU.
pub struct MemoryTables {
    /// The settings; the sizes of the vectors follow from them.
    pub settings: Settings,
    /// Both halves.
    pub directory: Vec<directory::Bucket>,
    /// By identifier.
    pub services: Vec<Service>,
    /// By identifier.
    pub backends: Vec<Backend>,
    /// By service.
    pub service_states: Vec<ServiceState>,
    /// By backend.
    pub loads: Vec<Load>,
    /// The slot array.
    pub slots: Vec<SlotLine>,
    /// IPv4 flows.
    pub flows4: Vec<Bucket4>,
    /// IPv6 flows.
    pub flows6: Vec<Bucket6>,
    /// By hash of a client.
    pub client_hops: Vec<Word>,
    /// By identifier.
    pub next_hops: Vec<NextHop>,
    /// By number.
    pub pool_addresses: Vec<PoolAddress>,
    /// Address by address.
    pub ports: Vec<Port>,
    /// This CPU's.
    pub outcomes: Outcomes,
    /// By backend.
    pub traffic: Vec<Traffic>,
    /// This CPU's.
    pub icmp_budget: IcmpBudget,
    /// By backend.
    pub connect_times: Vec<ConnectTimes>,
    /// By hash of a flow.
    pub syns: Vec<SynRow>,
    /// The sources whose new flows are limited.
    pub sources: Vec<SourceLine>,
    /// Every service's prefix lists: length of the prefix and its address, and whether it allows or denies.
    pub prefixes: BTreeMap<(u32, PrefixKey), u32>,
    /// First fragments seen.
    pub fragments: RefCell<HashMap<FragmentKey, Ports>>,
    /// The clock.
    pub jiffies: Cell<u64>,
    /// The other clock.
    pub nanoseconds: Cell<u64>,
    /// The routing table: answers by destination.
    pub routes: HashMap<Address, Route>,
    /// The answer for every other destination.
    pub default_route: Route,
}

/// Sizes of [`MemoryTables`].
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Services, 0 included.
    pub services: u32,
    /// Backends, 0 included.
    pub backends: u32,
    /// Lines of the slot array.
    pub slot_lines: u32,
    /// Buckets of each flow table.
    pub flow_buckets: u32,
    /// Buckets of half a directory: a power of two.
    pub directory_buckets: u32,
    /// Addresses of the source pools.
    pub pool_addresses: u32,
    /// Ports of each: at most a block.
    pub pool_ports: u32,
}

impl MemoryTables {
    /// Empty tables.
    pub fn new(sizes: Sizes) -> Self {
        Self {
            settings: Settings {
                abi: lb_common::ABI_VERSION,
                jiffies_per_second: 250,
                tick_shift: 8,
                flow4_buckets: sizes.flow_buckets,
                flow6_buckets: sizes.flow_buckets,
                directory_mask: sizes.directory_buckets - 1,
                icmp_errors_per_second: 1000,
                backends: sizes.backends,
                pool_port: 1024,
                pool_block: sizes.pool_ports,
                pool_blocks: 1,
                flow_key: 0x0123_4567_89ab_cdef,
                ..Settings::default()
            },
            directory: rows(sizes.directory_buckets * HALVES),
            services: rows(sizes.services),
            backends: rows(sizes.backends),
            service_states: rows(sizes.services),
            loads: rows(sizes.backends),
            slots: rows(sizes.slot_lines),
            flows4: (0..sizes.flow_buckets).map(|_| Bucket4 { ways: empty_ways() }).collect(),
            flows6: (0..sizes.flow_buckets).map(|_| Bucket6 { ways: empty_ways() }).collect(),
            // Miri takes seconds to fill a million words, for each of these tables.
            client_hops: rows(if cfg!(miri) { 64 } else { maps::CLIENT_HOP_CAPACITY }),
            next_hops: rows(CAPACITY),
            pool_addresses: rows(sizes.pool_addresses),
            ports: rows(sizes.pool_addresses * sizes.pool_ports),
            outcomes: Outcomes::default(),
            traffic: rows(sizes.backends),
            icmp_budget: IcmpBudget::default(),
            connect_times: rows(sizes.backends),
            syns: rows(if cfg!(miri) { 64 } else { maps::SYN_CAPACITY }),
            sources: rows(maps::SOURCE_LINES),
            prefixes: BTreeMap::new(),
            fragments: RefCell::default(),
            jiffies: Cell::new(1 << 20),
            // No moment that looks like none.
            nanoseconds: Cell::new(0x0123_4567_89ab),
            routes: HashMap::new(),
            default_route: Route::None,
        }
    }

    /// Runs a frame through the pipeline. Not generic, so that it is compiled here, with this package's optimisation.
    pub fn run(&self, frame: &mut MemoryFrame) -> Verdict {
        pipeline::run(frame, self)
    }

    /// How often each reason was the outcome.
    pub fn reasons(&self) -> Vec<(Reason, u64)> {
        Reason::ALL.iter().map(|&reason| (reason, self.outcomes.reason(reason).load())).collect()
    }

    /// How often each event happened.
    pub fn events(&self) -> Vec<(Event, u64)> {
        Event::ALL.iter().map(|&event| (event, self.outcomes.event(event).load())).collect()
    }
}

fn rows<Row: Default>(count: u32) -> Vec<Row> {
    (0..count).map(|_| Row::default()).collect()
}

fn empty_ways<K: Key>() -> [Entry<K>; lb_common::flow::WAYS]
where
    K::Stored: Default,
{
    std::array::from_fn(|_| Entry { key: K::Stored::default(), data: 0.into() })
}

impl Tables for MemoryTables {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn directory(&self, bucket: u32) -> Option<&directory::Bucket> {
        self.directory.get(bucket as usize)
    }

    fn service(&self, id: u16) -> Option<&Service> {
        self.services.get(usize::from(id))
    }

    fn backend(&self, id: u16) -> Option<&Backend> {
        self.backends.get(usize::from(id))
    }

    fn service_state(&self, id: u16) -> Option<&ServiceState> {
        self.service_states.get(usize::from(id))
    }

    fn load(&self, backend: u16) -> Option<&Load> {
        self.loads.get(usize::from(backend))
    }

    fn slots(&self, line: u32) -> Option<&SlotLine> {
        self.slots.get(line as usize)
    }

    fn flows4(&self, bucket: u32) -> Option<&Bucket4> {
        self.flows4.get(bucket as usize)
    }

    fn flows6(&self, bucket: u32) -> Option<&Bucket6> {
        self.flows6.get(bucket as usize)
    }

    fn client_hop(&self, hash: u32) -> Option<&Word> {
        self.client_hops.get(hash as usize % self.client_hops.len())
    }

    fn next_hop(&self, id: u16) -> Option<&NextHop> {
        self.next_hops.get(usize::from(id))
    }

    fn pool_address(&self, id: u8) -> Option<&PoolAddress> {
        self.pool_addresses.get(usize::from(id))
    }

    fn port(&self, row: u32) -> Option<&Port> {
        self.ports.get(row as usize)
    }

    fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    fn traffic(&self, backend: u16) -> Option<&Traffic> {
        self.traffic.get(usize::from(backend))
    }

    fn connect_times(&self, backend: u16) -> Option<&ConnectTimes> {
        self.connect_times.get(usize::from(backend))
    }

    fn icmp_budget(&self) -> Option<&IcmpBudget> {
        Some(&self.icmp_budget)
    }

    fn syn(&self, hash: u32) -> Option<&SynRow> {
        self.syns.get(hash as usize % self.syns.len())
    }

    fn source_line(&self, hash: u32) -> Option<&SourceLine> {
        self.sources.get(hash as usize % self.sources.len())
    }

    fn listed(&self, key: &PrefixKey) -> Option<u32> {
        let address = key.address();
        (0..=128).rev().find_map(|length| {
            let network = PrefixKey::new(key.service(), key.generation(), &address.network(length));
            self.prefixes.get(&(length, network)).copied()
        })
    }

    fn fragment(&self, key: &FragmentKey) -> Option<Ports> {
        self.fragments.borrow().get(key).copied()
    }

    fn remember_fragment(&self, key: &FragmentKey, ports: Ports) {
        self.fragments.borrow_mut().insert(*key, ports);
    }

    fn jiffies(&self) -> u64 {
        self.jiffies.get()
    }

    fn nanoseconds(&self) -> u64 {
        self.nanoseconds.get()
    }

    fn route(&self, query: &RouteQuery) -> Route {
        self.routes.get(&query.destination).copied().unwrap_or(self.default_route)
    }
}
