//! What the data plane holds, read back from its rows: after a restart they are the only memory.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_common::backend::{Backend, IN_USE, Standing};
use lb_common::directory;
use lb_common::limit::Limit;
use lb_common::port::ENTRIES;
use lb_common::service::{Options, Service, Table};
use lb_common::slot;

use super::arrays::Arrays;
use super::identity::Endpoint;
use super::prefixes::Lists;

/// The state of everything that a plan may change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// Services in use.
    pub(crate) services: BTreeMap<Endpoint, ObservedService>,
    /// Backends in use, by identifier.
    pub(crate) backends: BTreeMap<u16, ObservedBackend>,
    /// Service rows that nothing names.
    pub(crate) free_services: BTreeSet<u16>,
    /// Backend rows that nothing names.
    pub(crate) free_backends: BTreeSet<u16>,
    /// Source addresses in use, and their numbers.
    pub(crate) sources: BTreeMap<IpAddr, u8>,
    /// Numbers that no source address has.
    pub(crate) free_sources: BTreeSet<u8>,
    /// The directory half that packets read.
    pub(crate) half: usize,
    /// What can be reused at once.
    pub(crate) rested: Rested,
    /// Prefix lists that are in the trie.
    pub(crate) lists: Lists,
    /// Addresses of this host, and which of them are there because of us; `None` where addresses are left to others.
    pub(crate) addresses: Option<Addresses>,
}

/// A service in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ObservedService {
    pub(crate) id: u16,
    pub(crate) table: Table,
    pub(crate) options: Options,
    pub(crate) limits: [Limit; 2],
    pub(crate) pool: [u8; ENTRIES as usize],
}

/// A backend in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ObservedBackend {
    pub(crate) service: u16,
    pub(crate) endpoint: Endpoint,
    pub(crate) standing: Standing,
}

/// Memory that no packet can still be reading: a grace period has passed since it was last reachable.
///
/// Nothing is known to be rested when the agent starts; the first need for it costs one grace period.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rested {
    /// Slot regions that no service names.
    pub(crate) regions: BTreeSet<u32>,
    /// Whether the directory half that is not read is.
    pub(crate) half: bool,
}

/// Addresses of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// All of them.
    pub(crate) present: BTreeSet<IpAddr>,
    /// Those that this software added.
    pub(crate) ours: BTreeSet<IpAddr>,
}

impl Observed {
    /// Reads the rows.
    pub(crate) fn read(arrays: &Arrays, rested: &Rested, addresses: Option<Addresses>) -> Self {
        let mut observed = Self {
            half: arrays.settings().directory_half.load() as usize & 1,
            rested: rested.clone(),
            addresses,
            ..Self::default()
        };
        for (id, row) in (0..).zip(arrays.services.iter()) {
            match use_of_service(row) {
                Occupancy::Free => drop(observed.free_services.insert(id)),
                Occupancy::Resting => {}
                Occupancy::InUse => {
                    let (table, options) = (Table(row.table.load()), Options(row.options.load()));
                    let state = &arrays.service_states[usize::from(id)];
                    let limits = [&state.service_limit, &state.source_limit].map(|word| Limit(word.load()));
                    let pool = row.pool.entries();
                    let service = ObservedService { id, table, options, limits, pool };
                    observed.services.insert(service_key(row), service);
                }
            }
        }
        for (number, row) in (0..).zip(arrays.pool_addresses.iter()) {
            match row.live.load() {
                0 => drop(observed.free_sources.insert(number)),
                _ => drop(observed.sources.insert(row.address.into(), number)),
            }
        }
        // Row 0 stays nobody's: a slot, a sibling or a flow that says 0 names no backend.
        for (id, row) in (0..).zip(arrays.backends.iter()).skip(1) {
            match use_of_backend(row) {
                Occupancy::Free => drop(observed.free_backends.insert(id)),
                Occupancy::Resting => {}
                Occupancy::InUse => drop(observed.backends.insert(id, ObservedBackend::from(row))),
            }
        }
        observed
    }

    /// The regions that services name.
    pub(crate) fn named_regions(&self, table_size: u32) -> BTreeSet<u32> {
        self.services.values().filter_map(|service| region_of(service.table, table_size)).collect()
    }
}

/// The region that a table word names; none for a service without a table.
pub(crate) fn region_of(table: Table, table_size: u32) -> Option<u32> {
    (table.slots() > 0).then(|| table.line() / slot::lines(table_size))
}

impl From<&Backend> for ObservedBackend {
    fn from(row: &Backend) -> Self {
        Self {
            service: row.service,
            endpoint: backend_key(row),
            standing: Standing::from_word(row.state.load()),
        }
    }
}

/// What a row is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occupancy {
    /// Nothing.
    Free,
    /// Nothing any more, but a flow or a packet may still name it.
    Resting,
    /// A service or a backend.
    InUse,
}

/// What a service's row is used for. A row that was written halfway when the agent died counts as resting.
pub(crate) fn use_of_service(row: &Service) -> Occupancy {
    match (row.live, row.port.get()) {
        (1, _) => Occupancy::InUse,
        (_, 0) => Occupancy::Free,
        _ => Occupancy::Resting,
    }
}

/// What a backend's row is used for.
pub(crate) fn use_of_backend(row: &Backend) -> Occupancy {
    match (row.state.load() & IN_USE != 0, row.port.get()) {
        (true, _) => Occupancy::InUse,
        (false, 0) => Occupancy::Free,
        (false, _) => Occupancy::Resting,
    }
}

/// What a service's row is known by.
pub(crate) fn service_key(row: &Service) -> Endpoint {
    Endpoint { address: row.vip, port: row.port, protocol: row.protocol }
}

/// What a backend's row is known by, beside its service.
pub(crate) fn backend_key(row: &Backend) -> Endpoint {
    Endpoint { address: row.address, port: row.port, protocol: row.protocol }
}

/// The buckets of one half, and its key.
pub(crate) fn half(arrays: &Arrays, half: usize) -> (u64, &[directory::Bucket]) {
    let buckets = arrays.sizes.directory_buckets() as usize;
    let key = arrays.settings().directory_keys[half].load();
    (key, &arrays.directory[half * buckets..(half + 1) * buckets])
}
