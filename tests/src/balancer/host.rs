//! The tables of the pipeline on the host.

use lb_ebpf::memory::{MemoryTables, Sizes};

use crate::lab::{self, Lab, Rows};

/// The host's tables, filled in and with the routes that a kernel has in [`crate::kernel`].
#[must_use]
pub fn tables(lab: &Lab) -> MemoryTables {
    let sizes = Sizes {
        services: 96,
        backends: 128,
        slot_lines: 256,
        flow_buckets: 4096,
        directory_buckets: 256,
        pool_addresses: lab::MOST_POOL_ADDRESSES,
        pool_ports: lab::MOST_POOL_PORTS,
    };
    let mut tables = MemoryTables::new(sizes);
    tables.routes = lab::routes().collect();
    tables.default_route = lab::default_route();
    tables.jiffies.set(5 << 30);
    reconfigure(&mut tables, lab);
    tables
}

/// Gives the host's tables another configuration; flows and counts stay.
pub fn reconfigure(tables: &mut MemoryTables, lab: &Lab) {
    let backends = tables.backends.len() as u32;
    rows(tables).configure(lab, backends);
    tables.prefixes = lab.prefixes().map(|(bits, key, verdict)| ((bits, key), verdict)).collect();
}

pub(super) fn rows(tables: &mut MemoryTables) -> Rows<'_> {
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
        client_hops: &mut tables.client_hops,
        next_hops: &mut tables.next_hops,
        pool_addresses: &mut tables.pool_addresses,
        ports: &mut tables.ports,
        outcomes: std::slice::from_mut(&mut tables.outcomes),
        traffic: &mut tables.traffic,
        connect_times: &mut tables.connect_times,
        icmp_budget: std::slice::from_mut(&mut tables.icmp_budget),
        syns: &mut tables.syns,
        sources: &mut tables.sources,
    }
}
