//! The maps as memory: which there are, and how many rows each has.
//!
//! The agent is the only writer of what is not a shared word, and writes it only while no packet can reach it: a row
//! before anything names it, the directory half that is not read, a slot region that no service names.

use std::os::fd::AsFd;

use crate::config::{Limits, PortRange};
use lb_common::atomic::Word;
use lb_common::backend::{Backend, Load};
use lb_common::counters::{IcmpBudget, Outcomes, Traffic};
use lb_common::directory::{Bucket, HALVES};
use lb_common::flow::{Bucket4, Bucket6};
use lb_common::latency::ConnectTimes;
use lb_common::next_hop::NextHop;
use lb_common::port::{MAX_BLOCK, PoolAddress, Port};
use lb_common::service::{Service, ServiceState};
use lb_common::settings::Settings;
use lb_common::slot::{self, SlotLine};
use lb_common::{ABI_VERSION, maps};

use super::rows::{Row, Rows};

macro_rules! rows {
    ($($row:ty),*) => {
        $(
            const _: () = assert!(!std::mem::needs_drop::<$row>());
            // SAFETY: `repr(C)` of integers and shared words, as `lb-common` asserts for each.
            unsafe impl Row for $row {}
        )*
    };
}
rows!(
    Word,
    Settings,
    Bucket,
    Service,
    Backend,
    ServiceState,
    Load,
    SlotLine,
    Bucket4,
    Bucket6,
    NextHop,
    PoolAddress,
    Port,
    Outcomes,
    Traffic,
    ConnectTimes,
    IcmpBudget
);

/// How many rows each array has: what `[limits]` and the machine ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// IPv4 flows that the tables provide for.
    pub(crate) flows: u32,
    /// IPv6 flows that they provide for.
    pub(crate) flows6: u32,
    /// Services.
    pub(crate) services: u32,
    /// Backends, counted per service.
    pub(crate) backends: u32,
    /// Slots of a service's table.
    pub(crate) table_size: u32,
    /// CPUs that the kernel may ever use.
    pub(crate) cpus: u32,
    /// Addresses of the source pools.
    pub(crate) source_addresses: u32,
    /// Their ports.
    pub(crate) source_ports: PortRange,
}

impl Sizes {
    /// What these limits ask for, on a machine whose kernel may use so many CPUs.
    pub(crate) const fn of_limits(limits: &Limits, cpus: u32) -> Self {
        Self {
            flows: limits.flows,
            flows6: limits.flows6(),
            services: limits.services,
            backends: limits.backends,
            table_size: limits.table_size,
            cpus,
            source_addresses: limits.source_addresses,
            source_ports: limits.source_ports,
        }
    }

    /// Rows of the backend array: row 0 is nobody's.
    pub(crate) const fn backend_rows(&self) -> u32 {
        self.backends + 1
    }

    /// Slot regions, one table each.
    pub(crate) const fn regions(&self) -> u32 {
        maps::slot_lines(self.services, self.table_size) / slot::lines(self.table_size)
    }

    /// Buckets of half a directory.
    pub(crate) const fn directory_buckets(&self) -> u32 {
        maps::directory_buckets(self.services, self.backends)
    }

    /// Blocks that an address's ports are cut into, and the ports of each.
    const fn pool_blocks(&self) -> (u32, u32) {
        let blocks = self.source_ports.count().div_ceil(MAX_BLOCK);
        (blocks, self.source_ports.count() / blocks)
    }

    /// Ports of a source address that are used: a few less than there are, where they do not make equal blocks.
    pub(crate) const fn pool_ports(&self) -> u32 {
        let (blocks, ports) = self.pool_blocks();
        blocks * ports
    }

    /// The arrays by name, with the rows that each is created with.
    pub(crate) const fn rows(&self) -> [(&'static str, u32); 22] {
        [
            (maps::SETTINGS, 1),
            (maps::DIRECTORY, self.directory_buckets() * HALVES),
            (maps::SERVICES, self.services),
            (maps::BACKENDS, self.backend_rows()),
            (maps::SERVICE_STATES, self.services),
            (maps::LOADS, self.backend_rows()),
            (maps::SLOTS, maps::slot_lines(self.services, self.table_size)),
            (maps::FLOWS4, maps::flow_buckets(self.flows)),
            (maps::FLOWS6, maps::flow_buckets(self.flows6)),
            (maps::CLIENT_HOPS, maps::CLIENT_HOP_CAPACITY),
            (maps::NEXT_HOPS, maps::NEXT_HOP_CAPACITY),
            (maps::POOL_ADDRESSES, self.source_addresses),
            (maps::PORTS, self.source_addresses * self.pool_ports()),
            (maps::OUTCOMES, self.cpus),
            (maps::TRAFFIC, (self.cpus + 1) * self.backend_rows()),
            (maps::CONNECT_TIMES, self.cpus * self.backend_rows()),
            (maps::ICMP_BUDGET, self.cpus),
            (maps::SYNS, maps::SYN_CAPACITY),
            (maps::SOURCES, maps::SOURCE_LINES),
            (maps::PREFIXES, maps::PREFIX_CAPACITY),
            (maps::FRAGMENTS, maps::FRAGMENT_CAPACITY),
            (maps::LINKS, maps::LINK_CAPACITY),
        ]
    }

    /// The rows of the map of that name.
    pub(crate) fn of(&self, name: &str) -> u32 {
        self.rows().into_iter().find(|(map, _)| *map == name).map_or(0, |(_, rows)| rows)
    }

    /// The settings of new maps. Everything but the keys follows from the sizes.
    pub(crate) fn settings(&self, jiffies_per_second: u32, flow_key: u64) -> Settings {
        Settings {
            abi: ABI_VERSION,
            jiffies_per_second,
            // The power of two next to a second, from above or below: ages count in ticks of about a second.
            tick_shift: (f64::from(jiffies_per_second)).log2().round() as u32,
            flow4_buckets: self.of(maps::FLOWS4),
            flow6_buckets: self.of(maps::FLOWS6),
            directory_mask: self.directory_buckets() - 1,
            icmp_errors_per_second: 1000,
            backends: self.backend_rows(),
            pool_port: self.source_ports.first.into(),
            pool_block: self.pool_blocks().1,
            pool_blocks: self.pool_blocks().0,
            flow_key,
            ..Settings::default()
        }
    }
}

/// What grows with flows and services, and is read by the sweep, by changes and for explanations only.
const ON_DEMAND: [&str; 5] = [maps::SLOTS, maps::FLOWS4, maps::FLOWS6, maps::CLIENT_HOPS, maps::PORTS];

/// Every array of one balancer.
pub(crate) struct Arrays {
    pub(crate) sizes: Sizes,
    pub(crate) settings: Rows<Settings>,
    pub(crate) directory: Rows<Bucket>,
    pub(crate) services: Rows<Service>,
    pub(crate) backends: Rows<Backend>,
    pub(crate) service_states: Rows<ServiceState>,
    pub(crate) loads: Rows<Load>,
    pub(crate) slots: Rows<SlotLine>,
    pub(crate) flows4: Rows<Bucket4>,
    pub(crate) flows6: Rows<Bucket6>,
    pub(crate) client_hops: Rows<Word>,
    pub(crate) next_hops: Rows<NextHop>,
    pub(crate) pool_addresses: Rows<PoolAddress>,
    pub(crate) ports: Rows<Port>,
    pub(crate) outcomes: Rows<Outcomes>,
    pub(crate) traffic: Rows<Traffic>,
    pub(crate) connect_times: Rows<ConnectTimes>,
}

impl Arrays {
    /// Maps the arrays; `map` finds an array's file descriptor by name.
    pub(crate) fn map<F: AsFd>(
        sizes: Sizes,
        descriptor: impl Fn(&str) -> anyhow::Result<F>,
    ) -> anyhow::Result<Self> {
        fn rows<T: Row, F: AsFd>(
            name: &'static str,
            sizes: &Sizes,
            descriptor: impl Fn(&str) -> anyhow::Result<F>,
        ) -> anyhow::Result<Rows<T>> {
            let (array, length) = (descriptor(name)?, sizes.of(name));
            let is_seldom_read = ON_DEMAND.contains(&name);
            let rows =
                if is_seldom_read { Rows::map_on_demand(array, length) } else { Rows::map(array, length) };
            rows.map_err(|error| anyhow::anyhow!("cannot map {name} into memory: {error}"))
        }
        Ok(Self {
            sizes,
            settings: rows(maps::SETTINGS, &sizes, &descriptor)?,
            directory: rows(maps::DIRECTORY, &sizes, &descriptor)?,
            services: rows(maps::SERVICES, &sizes, &descriptor)?,
            backends: rows(maps::BACKENDS, &sizes, &descriptor)?,
            service_states: rows(maps::SERVICE_STATES, &sizes, &descriptor)?,
            loads: rows(maps::LOADS, &sizes, &descriptor)?,
            slots: rows(maps::SLOTS, &sizes, &descriptor)?,
            flows4: rows(maps::FLOWS4, &sizes, &descriptor)?,
            flows6: rows(maps::FLOWS6, &sizes, &descriptor)?,
            client_hops: rows(maps::CLIENT_HOPS, &sizes, &descriptor)?,
            next_hops: rows(maps::NEXT_HOPS, &sizes, &descriptor)?,
            pool_addresses: rows(maps::POOL_ADDRESSES, &sizes, &descriptor)?,
            ports: rows(maps::PORTS, &sizes, &descriptor)?,
            outcomes: rows(maps::OUTCOMES, &sizes, &descriptor)?,
            traffic: rows(maps::TRAFFIC, &sizes, &descriptor)?,
            connect_times: rows(maps::CONNECT_TIMES, &sizes, &descriptor)?,
        })
    }

    /// Gives up the mappings of what is mapped on demand: they count as memory of the agent's.
    pub(crate) fn release(&mut self) {
        self.slots.release();
        self.flows4.release();
        self.flows6.release();
        self.client_hops.release();
        self.ports.release();
    }

    /// The one row of settings.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings[0]
    }

    /// What a CPU has carried for a backend. The agent counts as the CPU after the last.
    pub(crate) fn traffic(&self, cpu: u32, backend: u16) -> &Traffic {
        &self.traffic[(cpu * self.sizes.backend_rows()) as usize + usize::from(backend)]
    }

    /// How long connecting to a backend took, as a CPU has seen it.
    pub(crate) fn connect_times(&self, cpu: u32, backend: u16) -> &ConnectTimes {
        &self.connect_times[(cpu * self.sizes.backend_rows()) as usize + usize::from(backend)]
    }

    /// The agent's own row of a backend.
    pub(crate) fn own_traffic(&self, backend: u16) -> &Traffic {
        self.traffic(self.sizes.cpus, backend)
    }

    /// A service's table, read back; `line` and `slots` as its table word has them.
    pub(crate) fn table(&self, line: u32, slots: u32) -> Vec<u16> {
        let lines = self.slots.part(line as usize..(line + slot::lines(slots)) as usize);
        lines.iter().flat_map(|line| line.backends).take(slots as usize).collect()
    }
}

#[cfg(test)]
impl Sizes {
    /// What a test that is about something else need not say.
    pub(crate) const TEST: Self = Self {
        flows: 64,
        flows6: 64,
        services: 4,
        backends: 8,
        table_size: 251,
        cpus: 1,
        source_addresses: 3,
        source_ports: PortRange { first: 2000, last: 2009 },
    };
}

#[cfg(test)]
impl Arrays {
    /// Arrays on the heap, as new maps are.
    pub(crate) fn private(sizes: Sizes) -> Self {
        fn rows<T: Row>(name: &str, sizes: &Sizes) -> Rows<T> {
            Rows::private(sizes.of(name)).unwrap()
        }
        let mut arrays = Self {
            sizes,
            settings: rows(maps::SETTINGS, &sizes),
            directory: rows(maps::DIRECTORY, &sizes),
            services: rows(maps::SERVICES, &sizes),
            backends: rows(maps::BACKENDS, &sizes),
            service_states: rows(maps::SERVICE_STATES, &sizes),
            loads: rows(maps::LOADS, &sizes),
            slots: rows(maps::SLOTS, &sizes),
            flows4: rows(maps::FLOWS4, &sizes),
            flows6: rows(maps::FLOWS6, &sizes),
            client_hops: rows(maps::CLIENT_HOPS, &sizes),
            next_hops: rows(maps::NEXT_HOPS, &sizes),
            pool_addresses: rows(maps::POOL_ADDRESSES, &sizes),
            ports: rows(maps::PORTS, &sizes),
            outcomes: rows(maps::OUTCOMES, &sizes),
            traffic: rows(maps::TRAFFIC, &sizes),
            connect_times: rows(maps::CONNECT_TIMES, &sizes),
        };
        arrays.settings.write(0, sizes.settings(250, 1));
        arrays
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pinned_map_has_a_size() {
        let sizes = SIZES;
        let names: Vec<_> = sizes.rows().iter().map(|(name, _)| *name).collect();
        assert_eq!(names, maps::PINNED);
        assert!(sizes.rows().iter().all(|(_, rows)| *rows > 0));
    }

    #[test]
    fn a_flow_at_rated_load_takes_64_bytes_at_most_all_tables_counted() {
        for flows in [1 << 16, 1_000_000, 10_000_000, 1 << 26] {
            let limits = Limits { flows, ..Limits::default() };
            let sizes = Sizes { flows, flows6: limits.flows6(), ..SIZES };
            // Every map whose size follows from the number of flows.
            let rows = sizes.rows().into_iter().zip(SIZES.rows()).filter(|(row, other)| row.1 != other.1);
            let bytes: u64 = rows
                .map(|((name, rows), _)| match name {
                    maps::FLOWS4 => u64::from(rows) * size_of::<Bucket4>() as u64,
                    maps::FLOWS6 => u64::from(rows) * size_of::<Bucket6>() as u64,
                    other => panic!("{other} grows with the number of flows: count it"),
                })
                .sum();
            assert!(bytes > 0 && bytes <= 48 * u64::from(flows), "{bytes} bytes for {flows} flows");
        }
    }

    const SIZES: Sizes = Sizes {
        flows: 1000,
        flows6: 1000,
        services: 8,
        backends: 16,
        table_size: 251,
        cpus: 2,
        ..Sizes::TEST
    };

    #[test]
    fn a_tick_is_about_a_second() {
        let sizes = SIZES;
        for (hertz, shift) in [(100, 7), (250, 8), (300, 8), (1000, 10)] {
            assert_eq!(sizes.settings(hertz, 0).tick_shift, shift);
        }
    }
}
