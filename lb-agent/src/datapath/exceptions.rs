//! What time does to services that track flows by exception: slots forget their former owners, and then need no
//! look-ups any more.
//!
//! 1. A slot that changes hands keeps its former owner as the *base* of flows that began before. The change is noted, and
//!    its time with it once every packet sees it.
//! 2. A flow that has been silent for longer than its timeout since then is forgotten by rights: the base becomes the
//!    present owner. Entries stay in force.
//! 3. A whole pass over the flow table that begins after that and finds no entry of the slot with another backend proves
//!    that the slot alone gives every flow's backend: it is *clean*, and its packets look nothing up.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::address::{Address, Be16};
use lb_common::service::{CHANGED_NOW, Options, Service, Table};
use lb_common::settings::timeout;
use lb_common::slot::Owners;
use lb_ebpf::family::{Family, Ipv4, Ipv6};
use lb_ebpf::select;

use super::arrays::Arrays;
use super::observed::{Occupancy, use_of_service};
use super::plan::{elements, pairs, to_elements};

/// Another table for a service, of the same length and for the same slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewTable {
    pub(crate) service: u16,
    pub(crate) elements: Vec<u16>,
}

/// Notes the time of changes that have none yet, one tick ahead: packets that read an old table are long gone then.
pub(crate) fn date_changes(arrays: &Arrays, now: u64) {
    for (id, _) in by_exception(arrays) {
        arrays.service_states[usize::from(id)].changed.replace(CHANGED_NOW, now + 1);
    }
}

/// Tables without the bases that no flow can need any more.
pub(crate) fn outlived(arrays: &Arrays, now: u64) -> Vec<NewTable> {
    by_exception(arrays)
        .filter(|(id, _)| {
            let changed = arrays.service_states[usize::from(*id)].changed.load();
            changed != 0 && changed != CHANGED_NOW && now > changed + timeout::ESTABLISHED + 1
        })
        .map(|(service, row)| {
            let owners = owners(arrays, Table(row.table.load()));
            NewTable { service, elements: to_elements(owners.into_iter().map(Owners::rebased)) }
        })
        .collect()
}

/// Notes that a service has the table that [`outlived`] gave it, unless something has changed meanwhile.
pub(crate) fn forget_change(arrays: &Arrays, service: u16, now: u64) {
    let changed = &arrays.service_states[usize::from(service)].changed;
    let noted = changed.load();
    if now > noted {
        changed.replace(noted, 0);
    }
}

/// Tables without the look-ups that no flow needs, by what a whole pass over the flow table has seen.
pub(crate) fn settled(arrays: &Arrays, pass: &Pass) -> Vec<NewTable> {
    let unchanged = |id: &u16, seen: &Seen| arrays.services[usize::from(*id)].table.load() == seen.table.0;
    let seen = pass.services.iter().filter(|(id, seen)| unchanged(id, seen));
    seen.filter_map(|(&service, seen)| {
        let before = &seen.owners;
        let settle = |(slot, owners): (usize, &Owners)| {
            if seen.elsewhere.contains(&(slot as u32)) { *owners } else { owners.settled() }
        };
        let after: Vec<_> = before.iter().enumerate().map(settle).collect();
        (after != *before).then(|| NewTable { service, elements: to_elements(after.into_iter()) })
    })
    .collect()
}

/// What a pass over the flow table sees of services that track by exception.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    services: BTreeMap<u16, Seen>,
}

#[derive(Debug)]
struct Seen {
    table: Table,
    seed: u64,
    owners: Vec<Owners>,
    /// Slots of which there is a flow on another backend than their owner.
    elsewhere: BTreeSet<u32>,
}

impl Pass {
    /// Begins a pass: services that have slots to settle.
    pub(crate) fn begin(arrays: &Arrays) -> Self {
        let seen = |(id, row): (u16, &Service)| {
            let table = Table(row.table.load());
            let owners = owners(arrays, table);
            let unsettled = owners.iter().any(|owners| owners.settled() != *owners);
            unsettled.then(|| (id, Seen { table, seed: row.seed, owners, elsewhere: BTreeSet::new() }))
        };
        Self { services: by_exception(arrays).filter_map(seen).collect() }
    }

    /// Meets a flow.
    pub(crate) fn meet(&mut self, client: (Address, Be16), service: u16, backend: u16) {
        let Some(seen) = self.services.get_mut(&service) else { return };
        let slot = match client.0.is_v4() {
            true => select::hashed::<Ipv4>(seen.table, Ipv4::narrow(&client.0), client.1, seen.seed),
            false => select::hashed::<Ipv6>(seen.table, client.0, client.1, seen.seed),
        };
        if seen.owners.get(slot as usize).is_some_and(|owners| owners.current != backend) {
            seen.elsewhere.insert(slot);
        }
    }

    /// Whether there is nothing to meet flows for.
    pub(crate) fn is_idle(&self) -> bool {
        self.services.is_empty()
    }
}

fn by_exception(arrays: &Arrays) -> impl Iterator<Item = (u16, &Service)> {
    (0..).zip(arrays.services.iter()).filter(|(_, row)| {
        use_of_service(row) == Occupancy::InUse && Options(row.options.load()).has(Options::EXCEPTIONS)
    })
}

fn owners(arrays: &Arrays, table: Table) -> Vec<Owners> {
    pairs(&arrays.table(table.line(), elements(table.slots(), true))).collect()
}

#[cfg(test)]
mod tests;
