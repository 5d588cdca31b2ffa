//! Carries a plan out. The only place that writes services, backends, tables and the directory.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context as _;
use lb_common::backend::{Backend, IN_USE, Load, Standing};
use lb_common::directory::Bucket;
use lb_common::port::{ENTRIES, Pool, PoolAddress, PortState};
use lb_common::service::{CHANGED_NOW, Options, Service, ServiceState, Table};
use lb_common::slot::{self, SLOTS_PER_LINE, SlotLine, members, members_line};

use super::arrays::Arrays;
use super::identity::Endpoint;
use super::observed::{Observed, Rested, region_of};
use super::plan::Action;
use super::prefixes::List;
use super::tables;

/// A service's pool, by the numbers of its addresses.
type Numbers = [u8; ENTRIES as usize];

/// What a plan needs beside the rows.
pub(crate) trait World {
    /// Returns once every packet that was under way at the call has been dealt with.
    fn grace_period(&mut self) -> anyhow::Result<()>;
    /// Gives this host an address and announces it.
    fn add_address(&mut self, address: IpAddr) -> anyhow::Result<()>;
    /// Writes prefix lists that no service's options name.
    fn write_list(&mut self, service: u16, generation: u16, list: &Arc<List>) -> anyhow::Result<()>;
    /// Erases prefix lists that no packet asks for any more.
    fn erase_list(&mut self, service: u16, generation: u16) -> anyhow::Result<()>;
    /// Takes an address off this host.
    fn remove_address(&mut self, address: IpAddr) -> anyhow::Result<()>;
}

/// Carries out one action.
///
/// # Errors
///
/// Where the kernel refuses an address or the waiting; rows are memory, and writing them cannot fail.
pub(crate) fn execute(
    action: &Action,
    arrays: &mut Arrays,
    rested: &mut Rested,
    world: &mut dyn World,
) -> anyhow::Result<()> {
    match action {
        &Action::PutBackend { id, service, vip, endpoint, standing } => {
            put_backend(arrays, id, (service, vip), endpoint, standing.to_word() | IN_USE);
        }
        &Action::SetBackend { id, standing } => {
            arrays.backends[usize::from(id)].state.store(standing.to_word() | IN_USE);
        }
        Action::WriteTable { region, slots } => write_table(arrays, *region, slots),
        &Action::PutService { id, vip, table, options, pool } => {
            put_service(arrays, rested, id, vip, (table, options, pool));
        }
        &Action::SetPool { service, pool } => {
            let row = &arrays.services[usize::from(service)];
            for (word, value) in row.pool.0.iter().zip(Pool::words(pool)) {
                word.store(value);
            }
        }
        &Action::SetLimits { service, limits: [all, source] } => {
            let state = &arrays.service_states[usize::from(service)];
            state.service_limit.store(all.0);
            state.source_limit.store(source.0);
        }
        Action::WriteList { service, generation, list } => world.write_list(*service, *generation, list)?,
        &Action::EraseList { service, generation } => world.erase_list(service, generation)?,
        &Action::PutSource { number, address } => put_source(arrays, number, address),
        &Action::RetireSource { number } => arrays.pool_addresses[usize::from(number)].live.store(0),
        &Action::SetOptions { service, options } => {
            arrays.services[usize::from(service)].options.store(options.0);
        }
        &Action::NoteChange { service } => {
            arrays.service_states[usize::from(service)].changed.store(CHANGED_NOW);
        }
        &Action::SwitchTable { service, table } => {
            arrays.services[usize::from(service)].table.store(table.0);
            take(arrays, rested, table);
        }
        Action::WriteDirectory { half, key, buckets } => write_directory(arrays, *half, *key, buckets),
        &Action::SwitchDirectory { half } => {
            arrays.settings().directory_half.store(half as u64);
            rested.half = false;
        }
        Action::GracePeriod => {
            world.grace_period().context("cannot wait for packets under way")?;
            rest(arrays, rested);
        }
        &Action::RetireService { id } => retire_service(arrays, id),
        &Action::RetireBackend { id } => {
            let row = &arrays.backends[usize::from(id)];
            // The sibling stays: a packet may be on its way along the chain.
            row.state.store(Standing { sibling: row.sibling(), ..Standing::default() }.to_word());
        }
        &Action::AddAddress { address } => {
            world.add_address(address).with_context(|| format!("cannot add address {address}"))?;
        }
        &Action::RemoveAddress { address } => {
            world.remove_address(address).with_context(|| format!("cannot remove address {address}"))?;
        }
    }
    Ok(())
}

/// Notes that a grace period has passed since now: what nothing names can be written again.
pub(crate) fn rest(arrays: &Arrays, rested: &mut Rested) {
    let named = Observed::read(arrays, rested, None).named_regions(arrays.sizes.table_size);
    rested.regions = (0..arrays.sizes.regions()).filter(|region| !named.contains(region)).collect();
    rested.half = true;
}

/// The row is complete before its state says that it is in use: an agent that dies in between leaves a row that
/// rests, and is freed.
fn put_backend(arrays: &mut Arrays, id: u16, service: (u16, Endpoint), endpoint: Endpoint, state: u64) {
    let (service, vip) = service;
    for cpu in 0..=arrays.sizes.cpus {
        let traffic = arrays.traffic(cpu, id);
        for counter in [
            &traffic.rx_packets,
            &traffic.rx_bytes,
            &traffic.tx_packets,
            &traffic.tx_bytes,
            &traffic.opened,
            &traffic.closed,
        ] {
            counter.store(0);
        }
    }
    for cpu in 0..arrays.sizes.cpus {
        let times = arrays.connect_times(cpu, id);
        times.counts.iter().chain([&times.sum]).for_each(|counter| counter.store(0));
    }
    arrays.loads.write(usize::from(id), Load::default());
    let row = Backend {
        state: Standing::default().to_word().into(),
        ..Backend::new(service, (vip.address, vip.port), (endpoint.address, endpoint.port), endpoint.protocol)
    };
    arrays.backends.write(usize::from(id), row);
    arrays.backends[usize::from(id)].state.store(state);
}

fn put_service(
    arrays: &mut Arrays,
    rested: &mut Rested,
    id: u16,
    vip: Endpoint,
    words: (Table, Options, Numbers),
) {
    let (table, options, pool) = words;
    let row = Service {
        vip: vip.address,
        table: table.0.into(),
        seed: tables::seed(&vip.address, vip.port, vip.protocol),
        options: options.0.into(),
        pool: Pool::new(pool),
        port: vip.port,
        protocol: vip.protocol,
        ..Service::default()
    };
    arrays.service_states.write(usize::from(id), ServiceState::default());
    arrays.services.write(usize::from(id), row.clone());
    arrays.services.write(usize::from(id), Service { live: 1, ..row });
    take(arrays, rested, table);
}

/// The ports are free, unless the row was this address's before: then some may rest. If it was another's, no packet goes by
/// that any more, and no backend remembers a connection from this one.
fn put_source(arrays: &mut Arrays, number: u8, address: IpAddr) {
    let ports = arrays.sizes.pool_ports() as usize;
    if arrays.pool_addresses[usize::from(number)].address != address.into() {
        let first = usize::from(number) * ports;
        for port in arrays.ports.part(first..first + ports).iter() {
            port.state.store(PortState(port.state.load()).free().0);
        }
    }
    let row = PoolAddress { address: address.into(), ..PoolAddress::default() };
    arrays.pool_addresses.write(number.into(), row);
    arrays.pool_addresses[usize::from(number)].live.store(1);
}

/// A region that a service names is at rest no more.
fn take(arrays: &Arrays, rested: &mut Rested, table: Table) {
    if let Some(region) = region_of(table, arrays.sizes.table_size) {
        rested.regions.remove(&region);
    }
}

fn write_table(arrays: &mut Arrays, region: u32, slots: &[u16]) {
    let first = (region * slot::lines(arrays.sizes.table_size)) as usize;
    let lines = slots.chunks(SLOTS_PER_LINE as usize).map(|chunk| {
        let mut backends = [0; SLOTS_PER_LINE as usize];
        backends[..chunk.len()].copy_from_slice(chunk);
        SlotLine { backends }
    });
    arrays.slots.write_all(first, lines);
    arrays.slots.write(first + members_line(slots.len() as u32) as usize, members(slots));
}

fn write_directory(arrays: &mut Arrays, half: usize, key: u64, buckets: &[Bucket]) {
    let first = half * arrays.sizes.directory_buckets() as usize;
    for (index, bucket) in (first..).zip(buckets) {
        arrays.directory.write(index, *bucket);
    }
    arrays.settings().directory_keys[half].store(key);
}

/// No packet finds the row any more, but flows may name it: what identifies it stays.
fn retire_service(arrays: &mut Arrays, id: u16) {
    let row = arrays.services[usize::from(id)].clone();
    arrays.services.write(usize::from(id), Service { live: 0, table: 0.into(), ..row });
}

/// Carries actions out where no packet is under way and no address belongs to anybody.
#[cfg(test)]
pub(crate) fn set_up(arrays: &mut Arrays, actions: impl IntoIterator<Item = Action>) {
    struct Still;

    impl World for Still {
        fn grace_period(&mut self) -> anyhow::Result<()> {
            Ok(())
        }

        fn write_list(&mut self, _: u16, _: u16, _: &Arc<List>) -> anyhow::Result<()> {
            Ok(())
        }

        fn erase_list(&mut self, _: u16, _: u16) -> anyhow::Result<()> {
            Ok(())
        }

        fn add_address(&mut self, _: IpAddr) -> anyhow::Result<()> {
            Ok(())
        }

        fn remove_address(&mut self, _: IpAddr) -> anyhow::Result<()> {
            Ok(())
        }
    }

    for action in actions {
        execute(&action, arrays, &mut Rested::default(), &mut Still).expect("nothing here refuses");
    }
}
