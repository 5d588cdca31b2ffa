//! Compares what is wanted with what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::bail;
use lb_common::backend::Standing;
use lb_common::directory::Bucket;
use lb_common::service::Table;

use super::check::check;
use super::{Action, Plan, TableInputs, directory};
use crate::datapath::arrays::Arrays;
use crate::datapath::identity::Endpoint;
use crate::datapath::observed::{Observed, ObservedBackend, ObservedService, half};
use crate::datapath::{Wanted, WantedBackend, WantedService};
use crate::model::Track;

/// Plans the way from `observed` to `wanted`. `known` says what the tables in use were built from, where that is known.
///
/// # Errors
///
/// Where a limit is reached, or where what is wanted contradicts itself. Nothing is planned then.
pub(crate) fn diff(
    arrays: &Arrays,
    observed: Observed,
    wanted: &Wanted,
    known: &BTreeMap<u16, TableInputs>,
) -> anyhow::Result<Plan> {
    check(wanted)?;
    let mut differ = Differ::new(arrays, observed, known);
    let targets = differ.identify(wanted)?;
    differ.remove_addresses(wanted);
    differ.put_sources(wanted)?;
    differ.put_backends(&targets);
    differ.put_services(&targets)?;
    // Replies of new backends are recognised before a table sends anybody there.
    differ.list()?;
    differ.add_addresses(wanted);
    differ.switch_tables(&targets)?;
    differ.weigh(&targets);
    differ.set_options(&targets);
    differ.set_pools(&targets);
    differ.remove(&targets)?;
    let full_nat = differ.full_nat();
    differ.mark(|_| false, &full_nat);
    differ.retire_sources(wanted)?;
    differ.erase_lists();
    Ok(differ.plan)
}

/// A wanted service, with the rows that it and its backends have or get.
pub(super) struct Target<'a> {
    pub(super) service: &'a WantedService,
    pub(super) vip: Endpoint,
    pub(super) id: u16,
    /// Of a service that is in use.
    pub(super) table: Option<Table>,
    pub(super) backends: Vec<(u16, &'a WantedBackend)>,
}

/// The plan in the making.
pub(super) struct Differ<'a> {
    pub(super) arrays: &'a Arrays,
    pub(super) known: &'a BTreeMap<u16, TableInputs>,
    /// As it will be after the actions planned so far.
    pub(super) now: Observed,
    pub(super) plan: Plan,
    /// Rows that this plan makes.
    new_backends: BTreeSet<u16>,
    /// The directory's key and half, where this plan writes one.
    listed: Option<(u64, Vec<Bucket>)>,
}

impl<'a> Differ<'a> {
    fn new(arrays: &'a Arrays, observed: Observed, known: &'a BTreeMap<u16, TableInputs>) -> Self {
        Self {
            arrays,
            known,
            now: observed,
            plan: Plan::default(),
            new_backends: BTreeSet::new(),
            listed: None,
        }
    }

    pub(super) fn act(&mut self, action: Action) {
        self.plan.actions.push(action);
    }

    pub(super) fn say(&mut self, step: String) {
        self.plan.steps.push(step);
    }

    pub(super) fn table_size(&self) -> u32 {
        self.arrays.sizes.table_size
    }

    /// Finds or assigns the row of everything that is wanted.
    fn identify<'w>(&mut self, wanted: &'w Wanted) -> anyhow::Result<Vec<Target<'w>>> {
        let rows: BTreeMap<_, _> =
            self.now.backends.iter().map(|(&id, row)| ((row.service, row.endpoint), id)).collect();
        let mut targets = Vec::with_capacity(wanted.services.len());
        for service in &wanted.services {
            let vip = Endpoint::new(service.vip, service.protocol);
            let existing = self.now.services.get(&vip).copied();
            let id = match existing {
                Some(service) => service.id,
                None => self.assign_service(service)?,
            };
            let mut backends = Vec::with_capacity(service.backends.len());
            for backend in &service.backends {
                let endpoint = Endpoint::new(backend.address, service.protocol);
                let row = rows.get(&(id, endpoint)).copied().filter(|_| existing.is_some());
                backends.push((
                    row.map_or_else(|| self.assign_backend(id, endpoint, service, backend), Ok)?,
                    backend,
                ));
            }
            targets.push(Target { service, vip, id, table: existing.map(|service| service.table), backends });
        }
        Ok(targets)
    }

    fn assign_service(&mut self, service: &WantedService) -> anyhow::Result<u16> {
        let Some(id) = self.now.free_services.pop_first() else {
            let limit = self.arrays.sizes.services;
            bail!(
                "service {}: no room: all {limit} rows of [limits] services are in use, or removed less than a few \
                 seconds ago; raise the limit or try again",
                service.name
            );
        };
        Ok(id)
    }

    fn assign_backend(
        &mut self,
        service_id: u16,
        endpoint: Endpoint,
        service: &WantedService,
        backend: &WantedBackend,
    ) -> anyhow::Result<u16> {
        let Some(id) = self.now.free_backends.pop_first() else {
            let limit = self.arrays.sizes.backends;
            bail!(
                "backend {} of service {}: no room: all {limit} rows of [limits] backends are in use, or removed \
                 less than a few seconds ago; raise the limit or try again",
                backend.address,
                service.name
            );
        };
        let standing = Standing {
            serving: backend.serving,
            weight: row_weight(backend),
            by_exception: service.track == Track::Exceptions,
            ..Standing::default()
        };
        let row = ObservedBackend { service: service_id, endpoint, standing };
        self.now.backends.insert(id, row);
        self.new_backends.insert(id);
        Ok(id)
    }

    /// Writes new rows, links them into their endpoints' chains, and has those serve that shall serve again.
    fn put_backends(&mut self, targets: &[Target<'_>]) {
        let mut full_nat = self.full_nat();
        full_nat.extend(
            targets.iter().filter(|target| !target.service.source_pool.is_empty()).map(|target| target.id),
        );
        let new = self.new_backends.clone();
        self.mark(|id| new.contains(&id), &full_nat);
        let chained = chain(&self.now.backends, &full_nat);
        let mut puts = BTreeMap::new();
        for target in targets {
            for &(id, backend) in &target.backends {
                if !self.new_backends.contains(&id) {
                    continue;
                }
                let endpoint = Endpoint::new(backend.address, target.service.protocol);
                let standing = linked(self.now.backends[&id].standing, id, &chained);
                self.now.backends.entry(id).and_modify(|row| row.standing = standing);
                let service = target.id;
                puts.insert(id, Action::PutBackend { id, service, vip: target.vip, endpoint, standing });
                self.say(format!(
                    "backend {} of service {}: added with weight {}",
                    backend.address, target.service.name, backend.weight
                ));
            }
        }
        // Chains lead from lower to higher identifiers: written from the end, a sibling is always there.
        self.plan.actions.extend(puts.into_values().rev());
        self.relink(&chained);
        for target in targets {
            for &(id, backend) in &target.backends {
                if backend.serving && !self.now.backends[&id].standing.serving {
                    self.set_standing(id, true, row_weight(backend));
                    self.say(format!(
                        "backend {} of service {}: serves again",
                        backend.address, target.service.name
                    ));
                }
            }
        }
    }

    /// Brings the chains to what they shall be: each endpoint's rows in the order of their identifiers, all of which know
    /// whether there are others alike.
    pub(super) fn relink(&mut self, chained: &BTreeMap<u16, Links>) {
        let stale: Vec<_> = self
            .now
            .backends
            .iter()
            .rev()
            .map(|(&id, row)| (id, *row, linked(row.standing, id, chained)))
            .filter(|(_, row, standing)| row.standing != *standing)
            .collect();
        for (id, row, standing) in stale {
            self.now.backends.insert(id, ObservedBackend { standing, ..row });
            self.act(Action::SetBackend { id, standing });
        }
    }

    pub(super) fn set_standing(&mut self, id: u16, serving: bool, weight: u16) {
        if let Some(row) = self.now.backends.get_mut(&id) {
            row.standing = Standing { serving, weight, ..row.standing };
            let standing = row.standing;
            self.act(Action::SetBackend { id, standing });
        }
    }

    /// Tells rows that go on serving their weights. After the tables: what a table still gives new flows has weight.
    fn weigh(&mut self, targets: &[Target<'_>]) {
        for &(id, backend) in targets.iter().flat_map(|target| &target.backends) {
            let standing = self.now.backends[&id].standing;
            let weight = row_weight(backend);
            if standing.serving == backend.serving && standing.weight != weight {
                self.set_standing(id, standing.serving, weight);
            }
        }
    }

    /// Writes new services with their tables. No packet finds them before the directory lists them.
    fn put_services(&mut self, targets: &[Target<'_>]) -> anyhow::Result<()> {
        for target in targets.iter().filter(|target| target.table.is_none()) {
            self.say(format!("service {} ({}): added", target.service.name, target.vip));
            let table = self.table(target, None)?;
            let (id, vip, options) = (target.id, target.vip, self.options(target));
            let pool = self.pool(&target.service.source_pool);
            self.act(Action::PutService { id, vip, table, options, pool });
            let limits = Default::default();
            self.now.services.insert(vip, ObservedService { id, table, options, limits, pool });
            self.set_limits(target);
        }
        Ok(())
    }

    /// Gives services in use the tables that they shall have.
    fn switch_tables(&mut self, targets: &[Target<'_>]) -> anyhow::Result<()> {
        for target in targets {
            let Some(current) = target.table else { continue };
            let table = self.table(target, Some(current))?;
            if table != current {
                if target.service.track == Track::Exceptions {
                    self.act(Action::NoteChange { service: target.id });
                }
                self.act(Action::SwitchTable { service: target.id, table });
                self.now.services.entry(target.vip).and_modify(|service| service.table = table);
            }
        }
        Ok(())
    }

    pub(super) fn grace_period(&mut self) {
        self.act(Action::GracePeriod);
        let named = self.now.named_regions(self.table_size());
        self.now.rested.regions =
            (0..self.arrays.sizes.regions()).filter(|region| !named.contains(region)).collect();
        self.now.rested.half = true;
    }

    /// Has the directory list what is in use now.
    pub(super) fn list(&mut self) -> anyhow::Result<()> {
        let services = self.now.services.iter().map(|(endpoint, service)| (*endpoint, service.id)).collect();
        let backends = self.now.backends.iter().map(|(&id, row)| (id, row.endpoint));
        let (key, buckets, entries) =
            directory::half(&services, &self.now.sources, backends, self.arrays.sizes.directory_buckets())?;
        let current = match &self.listed {
            Some((key, buckets)) => (*key, &buckets[..]),
            None => half(self.arrays, self.now.half),
        };
        if current == (key, &buckets[..]) {
            return Ok(());
        }
        if !self.now.rested.half {
            self.grace_period();
        }
        let idle = 1 - self.now.half;
        self.listed = Some((key, buckets.clone()));
        self.act(Action::WriteDirectory { half: idle, key, buckets });
        self.act(Action::SwitchDirectory { half: idle });
        self.say(format!("directory: {entries} entries"));
        self.now.half = idle;
        self.now.rested.half = false;
        Ok(())
    }

    fn remove_addresses(&mut self, wanted: &Wanted) {
        let Some(addresses) = &self.now.addresses else { return };
        let vips = vips(wanted);
        let gone: Vec<_> = addresses.ours.difference(&vips).copied().collect();
        for address in gone {
            self.act(Action::RemoveAddress { address });
            self.say(format!("address {address}: removed from this host"));
        }
    }

    fn add_addresses(&mut self, wanted: &Wanted) {
        let Some(addresses) = &self.now.addresses else { return };
        let new: Vec<_> = vips(wanted).difference(&addresses.present).copied().collect();
        for address in new {
            self.act(Action::AddAddress { address });
            self.say(format!("address {address}: added to this host and announced"));
        }
    }
}

/// A weight as a row has it. An unfit backend has none.
pub(super) fn row_weight(backend: &WantedBackend) -> u16 {
    if backend.serving { u16::try_from(backend.weight).unwrap_or(u16::MAX) } else { 0 }
}

/// The addresses that this host answers for: virtual ones, and source pools'.
fn vips(wanted: &Wanted) -> BTreeSet<IpAddr> {
    let sources = wanted.services.iter().flat_map(|service| service.source_pool.iter().copied());
    wanted.services.iter().map(|service| service.vip.ip()).chain(sources).collect()
}

/// What ties a row to the others of its endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Links {
    sibling: u16,
    shared: bool,
}

/// A row's standing with the links that it shall have.
fn linked(standing: Standing, id: u16, links: &BTreeMap<u16, Links>) -> Standing {
    let Links { sibling, shared } = links.get(&id).copied().unwrap_or_default();
    Standing { sibling, shared, ..standing }
}

/// What each row's links shall be: the next identifier of the same endpoint, and whether there are others to whose flows its
/// own could look the same. Those of the services in `full_nat` could not: each has a port of its own.
pub(super) fn chain(
    backends: &BTreeMap<u16, ObservedBackend>,
    full_nat: &BTreeSet<u16>,
) -> BTreeMap<u16, Links> {
    let mut last: BTreeMap<Endpoint, u16> = BTreeMap::new();
    let mut last_alike: BTreeMap<Endpoint, u16> = BTreeMap::new();
    let mut links: BTreeMap<u16, Links> = BTreeMap::new();
    for (&id, row) in backends {
        if let Some(previous) = last.insert(row.endpoint, id) {
            links.entry(previous).or_default().sibling = id;
        }
        if full_nat.contains(&row.service) {
            continue;
        }
        if let Some(previous) = last_alike.insert(row.endpoint, id) {
            links.entry(previous).or_default().shared = true;
            links.entry(id).or_default().shared = true;
        }
    }
    links
}
