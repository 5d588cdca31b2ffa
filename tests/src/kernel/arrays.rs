//! The array maps as memory.

use anyhow::Result;
use lb_common::atomic::Word;
use lb_common::backend::{Backend, Load};
use lb_common::counters::{IcmpBudget, Outcomes, Traffic};
use lb_common::directory;
use lb_common::flow::{Bucket4, Bucket6};
use lb_common::latency::ConnectTimes;
use lb_common::limit::SourceLine;
use lb_common::maps;
use lb_common::next_hop::NextHop;
use lb_common::port::{PoolAddress, Port};
use lb_common::service::{Service, ServiceState};
use lb_common::settings::Settings;
use lb_common::slot::SlotLine;
use lb_common::syn::SynRow;

use crate::lab::{MOST_POOL_ADDRESSES, MOST_POOL_PORTS, Rows};
use crate::object::{Mapping, Object};

/// Rows of the backend array, and so of each CPU's traffic.
pub(super) const BACKENDS: u32 = 128;
const SERVICES: u32 = 96;
const SLOT_LINES: u32 = 256;
const FLOW_BUCKETS: u32 = 32_768;
const DIRECTORY_BUCKETS: u32 = 256;
/// Far more than the tests use: the LRU starts to forget long before it is full.
const FRAGMENTS: u32 = 65_536;

/// The sizes that do not depend on the machine.
pub(super) const SIZES: &[(&str, u32)] = &[
    (maps::SETTINGS, 1),
    (maps::DIRECTORY, DIRECTORY_BUCKETS * directory::HALVES),
    (maps::SERVICES, SERVICES),
    (maps::BACKENDS, BACKENDS),
    (maps::SERVICE_STATES, SERVICES),
    (maps::LOADS, BACKENDS),
    (maps::SLOTS, SLOT_LINES),
    (maps::FLOWS4, FLOW_BUCKETS),
    (maps::FLOWS6, FLOW_BUCKETS),
    (maps::NEXT_HOPS, maps::NEXT_HOP_CAPACITY),
    (maps::POOL_ADDRESSES, MOST_POOL_ADDRESSES),
    (maps::PORTS, MOST_POOL_ADDRESSES * MOST_POOL_PORTS),
    (maps::SYNS, maps::SYN_CAPACITY),
    (maps::SOURCES, maps::SOURCE_LINES),
    (maps::PREFIXES, maps::PREFIX_CAPACITY),
    (maps::FRAGMENTS, FRAGMENTS),
];

/// The sizes that do.
pub(super) const fn sizes_by_cpu(cpus: u32) -> [(&'static str, u32); 4] {
    [
        (maps::OUTCOMES, cpus),
        (maps::TRAFFIC, cpus * BACKENDS),
        (maps::CONNECT_TIMES, cpus * BACKENDS),
        (maps::ICMP_BUDGET, cpus),
    ]
}

/// All arrays.
pub(super) struct Arrays {
    settings: Mapping<Settings>,
    directory: Mapping<directory::Bucket>,
    services: Mapping<Service>,
    backends: Mapping<Backend>,
    service_states: Mapping<ServiceState>,
    loads: Mapping<Load>,
    slots: Mapping<SlotLine>,
    flows4: Mapping<Bucket4>,
    flows6: Mapping<Bucket6>,
    client_hops: Mapping<Word>,
    next_hops: Mapping<NextHop>,
    pool_addresses: Mapping<PoolAddress>,
    ports: Mapping<Port>,
    outcomes: Mapping<Outcomes>,
    traffic: Mapping<Traffic>,
    connect_times: Mapping<ConnectTimes>,
    icmp_budget: Mapping<IcmpBudget>,
    syns: Mapping<SynRow>,
    sources: Mapping<SourceLine>,
}

impl Arrays {
    pub(super) fn map(object: &Object, cpus: u32) -> Result<Self> {
        // SAFETY: each row's type is the one that the program has under this name, `repr(C)`, without padding, and
        // valid for any bits.
        unsafe {
            Ok(Self {
                settings: object.rows(maps::SETTINGS, 1)?,
                directory: object.rows(maps::DIRECTORY, DIRECTORY_BUCKETS * directory::HALVES)?,
                services: object.rows(maps::SERVICES, SERVICES)?,
                backends: object.rows(maps::BACKENDS, BACKENDS)?,
                service_states: object.rows(maps::SERVICE_STATES, SERVICES)?,
                loads: object.rows(maps::LOADS, BACKENDS)?,
                slots: object.rows(maps::SLOTS, SLOT_LINES)?,
                flows4: object.rows(maps::FLOWS4, FLOW_BUCKETS)?,
                flows6: object.rows(maps::FLOWS6, FLOW_BUCKETS)?,
                client_hops: object.rows(maps::CLIENT_HOPS, maps::CLIENT_HOP_CAPACITY)?,
                next_hops: object.rows(maps::NEXT_HOPS, maps::NEXT_HOP_CAPACITY)?,
                pool_addresses: object.rows(maps::POOL_ADDRESSES, MOST_POOL_ADDRESSES)?,
                ports: object.rows(maps::PORTS, MOST_POOL_ADDRESSES * MOST_POOL_PORTS)?,
                outcomes: object.rows(maps::OUTCOMES, cpus)?,
                traffic: object.rows(maps::TRAFFIC, cpus * BACKENDS)?,
                connect_times: object.rows(maps::CONNECT_TIMES, cpus * BACKENDS)?,
                icmp_budget: object.rows(maps::ICMP_BUDGET, cpus)?,
                syns: object.rows(maps::SYNS, maps::SYN_CAPACITY)?,
                sources: object.rows(maps::SOURCES, maps::SOURCE_LINES)?,
            })
        }
    }

    /// As slices; the exclusive borrow says that no program runs meanwhile.
    pub(super) fn rows(&mut self) -> Rows<'_> {
        Rows {
            settings: &mut self.settings.slice()[0],
            directory: self.directory.slice(),
            services: self.services.slice(),
            backends: self.backends.slice(),
            service_states: self.service_states.slice(),
            loads: self.loads.slice(),
            slots: self.slots.slice(),
            flows4: self.flows4.slice(),
            flows6: self.flows6.slice(),
            client_hops: self.client_hops.slice(),
            next_hops: self.next_hops.slice(),
            pool_addresses: self.pool_addresses.slice(),
            ports: self.ports.slice(),
            outcomes: self.outcomes.slice(),
            traffic: self.traffic.slice(),
            connect_times: self.connect_times.slice(),
            icmp_budget: self.icmp_budget.slice(),
            syns: self.syns.slice(),
            sources: self.sources.slice(),
        }
    }
}
