//! The balancer under test: the BPF object as it ships, with tables as the agent would write them.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_common::backend::{Backend, Standing};
use lb_common::counters::Outcomes;
use lb_common::directory::{self, HALVES, Kind, Listing};
use lb_common::flow::{Bucket, Bucket4, Bucket6, Data, Key, State};
use lb_common::hash::{mix, scale};
use lb_common::reason::{Event, Reason};
use lb_common::service::{Index, OnNoBackend, Options, Service, Table};
use lb_common::settings::Settings;
use lb_common::slot::{self, Owners, PAIRS_PER_LINE, SLOTS_PER_LINE, SlotLine};
use lb_common::{ABI_VERSION, Address, Be16, Be32, Protocol, maps};
use lb_ebpf::family::{Family as _, Ipv4, Ipv6};

use super::crowd;
use super::traffic::{BACKEND_PORT, Family, SERVICE_PORT, following};
use crate::object::{Mapping, Object, possible_cpus};
use crate::wait;

/// Backends of each service.
pub(super) const BACKENDS: u16 = 3;
/// Flows that the tables are made for: the default of `[limits] flows`.
pub(super) const FLOWS: u32 = 1_000_000;
/// The other limits' defaults.
const SERVICES: u32 = 512;
const DEFAULT_BACKENDS: u32 = 4096;
pub(super) const TABLE_SIZE: u32 = 65_537;

/// Seeds and keys; any will do.
pub(super) const SLOT_SEED: u64 = 0x736c_6f74_7365_6564;
const FLOW_KEY: u64 = 0x9e37_79b9_7f4a_7c15;

/// How long the kernel's clock is watched to learn its rate.
const CLOCK_WATCHED: Duration = Duration::from_millis(200);

/// How the services balance; can be changed between packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Setting {
    /// Every flow is remembered, new ones go by their hash.
    #[default]
    Maglev,
    /// The same, tracked by exception; no slot has changed hands.
    Exceptions,
    /// Every flow is remembered, new ones go to the less loaded of two backends.
    LeastConnections,
    /// As maglev, but packets are of flows to many services.
    Crowd,
}

impl Setting {
    const fn index(self) -> Index {
        match self {
            Self::Maglev | Self::Exceptions | Self::Crowd => Index::Flow,
            Self::LeastConnections => Index::LeastConnections,
        }
    }

    fn options(self) -> Options {
        let none = Options::default();
        if self == Self::Exceptions { none.with(Options::EXCEPTIONS) } else { none }
    }
}

/// The loaded object and those of its rows that the bench reads.
pub(super) struct Balancer {
    object: Object,
    outcomes: Mapping<Outcomes>,
    flows4: Mapping<Bucket4>,
    flows6: Mapping<Bucket6>,
    slots: Mapping<SlotLine>,
    services: Mapping<Service>,
    backends: Mapping<Backend>,
    backend_rows: u32,
}

/// Counters of the data plane at one moment, all CPUs together.
#[derive(Clone, Debug)]
pub(super) struct Counters {
    reasons: Vec<u64>,
    events: Vec<u64>,
}

impl Counters {
    /// How often a reason was the outcome since `earlier`.
    pub(super) fn reason_since(&self, earlier: &Self, reason: Reason) -> u64 {
        self.reasons[reason as usize] - earlier.reasons[reason as usize]
    }

    /// How often an event happened since `earlier`.
    pub(super) fn event_since(&self, earlier: &Self, event: Event) -> u64 {
        self.events[event as usize] - earlier.events[event as usize]
    }

    /// Every reason that was an outcome since `earlier`, for people.
    pub(super) fn reasons_since(&self, earlier: &Self) -> String {
        let counted = Reason::ALL.iter().map(|&reason| (reason.name(), self.reason_since(earlier, reason)));
        let seen: Vec<_> =
            counted.filter(|&(_, count)| count > 0).map(|(name, count)| format!("{name} {count}")).collect();
        seen.join(", ")
    }
}

impl Balancer {
    /// Loads the object, writes its tables, with the [crowd] or without, and attaches it to an interface of this
    /// thread's network namespace.
    pub(super) fn load(interface: &str, with_crowd: bool) -> Result<Self> {
        let cpus = possible_cpus()?;
        let limit =
            if with_crowd { u32::from(crowd::ALL_BACKENDS) + DEFAULT_BACKENDS } else { DEFAULT_BACKENDS };
        let backend_rows = limit + 1;
        let object = Object::load([
            (maps::DIRECTORY, directory_buckets(backend_rows) * HALVES),
            (maps::SERVICES, SERVICES),
            (maps::BACKENDS, backend_rows),
            (maps::SLOTS, maps::slot_lines(SERVICES, TABLE_SIZE)),
            (maps::FLOWS4, maps::flow_buckets(FLOWS)),
            (maps::FLOWS6, maps::flow_buckets(FLOWS)),
            (maps::OUTCOMES, cpus + 1),
            (maps::SERVICE_STATES, SERVICES),
            (maps::LOADS, backend_rows),
            (maps::TRAFFIC, (cpus + 1) * backend_rows),
            (maps::CONNECT_TIMES, (cpus + 1) * backend_rows),
            (maps::ICMP_BUDGET, cpus + 1),
        ])?;
        // SAFETY: the rows that `lb-common` lays out for these maps, as many as were asked for above.
        let mut balancer = unsafe {
            Self {
                outcomes: object.rows(maps::OUTCOMES, cpus + 1)?,
                flows4: object.rows(maps::FLOWS4, maps::flow_buckets(FLOWS))?,
                flows6: object.rows(maps::FLOWS6, maps::flow_buckets(FLOWS))?,
                slots: object.rows(maps::SLOTS, maps::slot_lines(SERVICES, TABLE_SIZE))?,
                services: object.rows(maps::SERVICES, SERVICES)?,
                backends: object.rows(maps::BACKENDS, backend_rows)?,
                object,
                backend_rows,
            }
        };
        balancer.write_tables(with_crowd)?;
        balancer.object.attach(interface)?;
        Ok(balancer)
    }

    /// The entry program.
    pub(super) fn program(&self) -> Result<OwnedFd> {
        self.object.entry()
    }

    /// One service of each family with its backends; settings last.
    fn write_tables(&mut self, with_crowd: bool) -> Result<()> {
        let buckets = directory_buckets(self.backend_rows);
        // SAFETY: as in `load`.
        let (mut half, mut settings) = unsafe {
            (
                self.object.rows::<directory::Bucket>(maps::DIRECTORY, buckets)?,
                self.object.rows::<Settings>(maps::SETTINGS, 1)?,
            )
        };
        let mut listings = Vec::new();
        for family in Family::ALL {
            let (id, vip) = (service_id(family), (Address::from(family.vip()), Be16::new(SERVICE_PORT)));
            let table = Table::new(table_line(family), TABLE_SIZE, Index::Flow, OnNoBackend::Reset);
            self.services.write(id.into(), service(vip, table))?;
            listings.push(listing(vip, Protocol::TCP, Kind::Service, id));
            listings.push(listing((vip.0, Be16(0)), Protocol(0), Kind::Vip, id));
            for number in 0..BACKENDS {
                let row = first_backend(family) + number;
                let address = Address::from(following(family.first_backend(), number.into()));
                let endpoint = (address, Be16::new(BACKEND_PORT));
                self.backends.write(row.into(), Backend::new(id, vip, endpoint, Protocol::TCP))?;
                listings.push(listing(endpoint, Protocol::TCP, Kind::Backend, row));
                listings.push(listing((address, Be16(0)), Protocol::TCP, Kind::Host, row));
            }
            self.write_slots(family)?;
        }
        if with_crowd {
            self.write_crowd()?;
            listings.extend(crowd::listings(FIRST_CROWD_SERVICE, FIRST_CROWD_BACKEND));
        }
        let (key, listed) = directory::build(&listings, buckets).context("no key for the directory")?;
        for (index, bucket) in listed.into_iter().enumerate() {
            half.write(index, bucket)?;
        }
        let jiffies_per_second = self.clock_rate()?;
        settings.write(0, self::settings(jiffies_per_second, key, self.backend_rows))
    }

    /// The many services.
    fn write_crowd(&mut self) -> Result<()> {
        for number in 0..crowd::SERVICES {
            let (id, line) = (FIRST_CROWD_SERVICE + number, crowd_line(number));
            let table = Table::new(line, TABLE_SIZE, Index::Flow, OnNoBackend::Reset);
            self.services.write(id.into(), service(crowd::vip(number), table))?;
            for line_of_table in 0..crowd::lines() {
                let mut row = SlotLine::default();
                for (place, backend) in row.backends.iter_mut().enumerate() {
                    let slot = u64::from(line_of_table * SLOTS_PER_LINE) + place as u64;
                    *backend = FIRST_CROWD_BACKEND + crowd::owner(number, slot);
                }
                self.slots.write((line + line_of_table) as usize, row)?;
            }
        }
        for number in 0..crowd::ALL_BACKENDS {
            let service = number / crowd::BACKENDS;
            let id = FIRST_CROWD_SERVICE + service;
            let row = Backend::new(id, crowd::vip(service), crowd::endpoint(number), Protocol::TCP);
            self.backends.write(usize::from(FIRST_CROWD_BACKEND + number), row)?;
        }
        Ok(())
    }

    /// Backends dealt to slots at random. How a table came about makes no difference to a packet.
    fn write_slots(&mut self, family: Family) -> Result<()> {
        let first_line = table_line(family);
        for line in 0..slot::lines(TABLE_SIZE) {
            let mut row = SlotLine::default();
            for (place, backend) in row.backends.iter_mut().enumerate() {
                let slot = u64::from(line * SLOTS_PER_LINE) + place as u64;
                *backend = owner(family, slot);
            }
            self.slots.write((first_line + line) as usize, row)?;
        }
        let first_line = pairs_line(family);
        for line in 0..slot::lines(2 * TABLE_SIZE) {
            let mut row = SlotLine::default();
            for (place, pair) in row.backends.chunks_exact_mut(2).enumerate() {
                let slot = u64::from(line * PAIRS_PER_LINE) + place as u64;
                pair.copy_from_slice(&Owners::clean(owner(family, slot)).to_elements());
            }
            self.slots.write((first_line + line) as usize, row)?;
        }
        Ok(())
    }

    /// Changes how the services balance, as the agent does: by words of their rows and of their backends'.
    pub(super) fn set(&self, setting: Setting) {
        for family in Family::ALL {
            let row = &self.services[usize::from(service_id(family))];
            let line = if setting == Setting::Exceptions { pairs_line(family) } else { table_line(family) };
            row.options.store(setting.options().0);
            row.table.store(Table::new(line, TABLE_SIZE, setting.index(), OnNoBackend::Reset).0);
            for number in 0..BACKENDS {
                let state = &self.backends[usize::from(first_backend(family) + number)].state;
                let by_exception = setting == Setting::Exceptions;
                state.store(Standing { by_exception, ..Standing::from_word(state.load()) }.to_word());
            }
        }
    }

    /// Jiffies a second, read through the object's own program.
    fn clock_rate(&self) -> Result<u32> {
        let (before, start) = (self.object.jiffies()?, Instant::now());
        wait::observe(CLOCK_WATCHED)?;
        let (after, elapsed) = (self.object.jiffies()?, start.elapsed());
        let rate = after.wrapping_sub(before) as f64 / elapsed.as_secs_f64();
        ensure!((10.0..100_000.0).contains(&rate), "the kernel's clock advances by {rate} a second");
        Ok(rate.round() as u32)
    }

    /// The backend that a client's flow is sent to: its number within the service.
    pub(super) fn backend_of(&self, client: (IpAddr, u16)) -> u32 {
        let port = Be16::new(client.1);
        let (family, hash) = match client.0 {
            IpAddr::V4(address) => {
                (Family::V4, Ipv4::slot_hash(Be32::from_wire(address.octets()), port, SLOT_SEED))
            }
            IpAddr::V6(_) => (Family::V6, Ipv6::slot_hash(Address::from(client.0), port, SLOT_SEED)),
        };
        let slot = scale(hash, TABLE_SIZE);
        let line = &self.slots[(table_line(family) + slot / SLOTS_PER_LINE) as usize];
        u32::from(line.backends[(slot % SLOTS_PER_LINE) as usize] - first_backend(family))
    }

    /// What has been counted so far.
    pub(super) fn counters(&self) -> Counters {
        let sum = |count: &dyn Fn(&Outcomes) -> u64| self.outcomes.iter().map(count).sum();
        Counters {
            reasons: Reason::ALL.iter().map(|&reason| sum(&|row| row.reason(reason).load())).collect(),
            events: Event::ALL.iter().map(|&event| sum(&|row| row.event(event).load())).collect(),
        }
    }

    /// How many entries of a flow table are in a state.
    pub(super) fn flows_in(&self, family: Family, state: State) -> usize {
        fn count<K: Key>(buckets: &[Bucket<K>], state: State) -> usize {
            let states =
                buckets.iter().flat_map(|bucket| &bucket.ways).map(|way| Data(way.data.load()).state());
            states.filter(|&found| found == state).count()
        }
        match family {
            Family::V4 => count(&self.flows4, state),
            Family::V6 => count(&self.flows6, state),
        }
    }
}

/// The first of the many services' identifiers, and of their backends'.
const FIRST_CROWD_SERVICE: u16 = 3;
const FIRST_CROWD_BACKEND: u16 = 1 + 2 * BACKENDS;

/// First line of the table of one of the many services: behind the families' own.
const fn crowd_line(number: u16) -> u32 {
    pairs_line(Family::V6) + slot::lines(2 * TABLE_SIZE) + number as u32 * crowd::lines()
}

const fn service_id(family: Family) -> u16 {
    match family {
        Family::V4 => 1,
        Family::V6 => 2,
    }
}

const fn first_backend(family: Family) -> u16 {
    match family {
        Family::V4 => 1,
        Family::V6 => 1 + BACKENDS,
    }
}

/// First line of a family's slot table.
const fn table_line(family: Family) -> u32 {
    match family {
        Family::V4 => 0,
        Family::V6 => slot::lines(TABLE_SIZE),
    }
}

/// First line of a family's table of slots with their former owners: as many slots, so that each has the same owner.
const fn pairs_line(family: Family) -> u32 {
    2 * slot::lines(TABLE_SIZE)
        + match family {
            Family::V4 => 0,
            Family::V6 => slot::lines(2 * TABLE_SIZE),
        }
}

fn owner(family: Family, slot: u64) -> u16 {
    first_backend(family) + scale(mix(slot, SLOT_SEED), BACKENDS.into()) as u16
}

const fn directory_buckets(backend_rows: u32) -> u32 {
    maps::directory_buckets(SERVICES, backend_rows)
}

fn service(vip: (Address, Be16), table: Table) -> Service {
    Service {
        vip: vip.0,
        port: vip.1,
        protocol: Protocol::TCP,
        table: table.0.into(),
        seed: SLOT_SEED,
        live: 1,
        ..Service::default()
    }
}

fn listing(endpoint: (Address, Be16), protocol: Protocol, kind: Kind, id: u16) -> Listing {
    Listing { address: endpoint.0, port: endpoint.1, protocol, kind, id }
}

fn settings(jiffies_per_second: u32, directory_key: u64, backend_rows: u32) -> Settings {
    Settings {
        abi: ABI_VERSION,
        jiffies_per_second,
        // The power of two next to a second.
        tick_shift: jiffies_per_second.next_power_of_two().trailing_zeros(),
        flow4_buckets: maps::flow_buckets(FLOWS),
        flow6_buckets: maps::flow_buckets(FLOWS),
        directory_mask: directory_buckets(backend_rows) - 1,
        backends: backend_rows,
        flow_key: FLOW_KEY,
        directory_keys: [directory_key.into(), 0.into()],
        ..Settings::default()
    }
}
