//! Every change that can be asked for, as data, and what it makes of a state. No I/O, no clock.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use super::affinity::Affinity;
use super::desired::Desired;
use super::endpoint::Endpoint;
use super::fitness::{Damping, Lease, PanicThreshold, SlowStart};
use super::flow_limit::FlowLimit;
use super::guard::Guard;
use super::health::Checks;
use super::keyword::{Admin, Mode, OnBackendDown, OnNoBackend, Retry, Strategy, Track};
use super::name::ServiceName;
use super::prefix::Prefix;
use super::refusal::Refusal;
use super::service::{Backend, Removing, Service};
use super::source_pool::SourcePool;
use super::weight::Weight;

/// One change, as a verb asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new service.
    AddService(Box<Service>),
    /// Other properties for a service.
    SetService(ServiceName, Box<ServiceChange>),
    /// A service goes, with all its backends and flows.
    RemoveService(ServiceName),
    /// A new backend, or one that is being removed kept after all.
    AddBackend(ServiceName, Endpoint, Backend),
    /// Other properties for a backend.
    SetBackend(ServiceName, Endpoint, BackendChange),
    /// A backend goes.
    RemoveBackend(ServiceName, Endpoint, Removal),
    /// Services as declared.
    Declare {
        /// What was declared.
        desired: Desired,
        /// Whether what was not declared goes: services at once, backends as said. Kept where absent.
        prune: Option<Removal>,
    },
}

/// What of a service is set; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ServiceChange {
    /// How new flows are spread.
    pub strategy: Option<Strategy>,
    /// How packets get to the backends.
    pub mode: Option<Mode>,
    /// The addresses that stand for clients.
    #[serde(rename = "source_pool")]
    pub source_pool: Option<SourcePool>,
    /// What a new flow meets while no backend takes traffic.
    pub on_no_backend: Option<OnNoBackend>,
    /// What a flow meets whose backend is dead or removed.
    pub on_backend_down: Option<OnBackendDown>,
    /// Whether a connection that its backend refuses or does not answer is given another.
    pub retry: Option<Retry>,
    /// For how long a client's flows follow those before them.
    pub affinity: Option<Affinity>,
    /// Limit of new flows.
    pub limit_new_flows: Option<FlowLimit>,
    /// Limit of each source's new flows.
    pub limit_source: Option<FlowLimit>,
    /// The whole list of clients that get in.
    pub allow: Option<BTreeSet<Prefix>>,
    /// The whole list of clients that do not.
    pub deny: Option<BTreeSet<Prefix>>,
    /// Clients that get in as well.
    #[serde(default)]
    pub add_allow: Vec<Prefix>,
    /// Clients that do not either.
    #[serde(default)]
    pub add_deny: Vec<Prefix>,
    /// Prefixes that are to be on neither list.
    #[serde(default)]
    pub unlist: Vec<Prefix>,
    /// Below which share of fit backends all are used.
    pub panic_threshold: Option<PanicThreshold>,
    /// How long a backend takes to grow into its weight.
    pub slow_start: Option<SlowStart>,
    /// How long a backend that does not stay is held out at most.
    pub damping: Option<Damping>,
    /// What decides whether a backend is fit.
    pub health: Option<Checks>,
}

/// What of a backend is set; what is absent stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendChange {
    /// Share of new flows.
    pub weight: Option<Weight>,
    /// What the operator wants of it.
    pub admin: Option<Admin>,
    /// Whether it takes traffic only while no other is fit.
    pub backup: Option<bool>,
    /// How long it is fit after it was last heard of.
    pub lease: Option<Lease>,
}

/// How a backend goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// At once; its flows are re-balanced or reset, as the service says.
    Now,
    /// With its last flow, but not later than this.
    Drain(SystemTime),
}

impl Change {
    /// The state after the change.
    ///
    /// # Errors
    /// Where an object is missing that it is about, or there already. Whether the new state is sound as a whole is
    /// for [`Desired::validate`] to say.
    pub fn apply(&self, desired: &Desired) -> Result<Desired, Refusal> {
        let mut next = desired.clone();
        match self {
            Self::AddService(service) => add_service(&mut next, service)?,
            Self::SetService(name, change) => {
                let before = next.service(name)?.clone();
                let service = next.service_mut(name)?;
                change.apply(service);
                service.keeps_unremembered_flows_of(&before)?;
            }
            Self::RemoveService(name) => {
                next.services.remove(name).ok_or_else(|| Refusal::UnknownService(name.clone()))?;
            }
            Self::AddBackend(name, address, backend) => {
                next.service_mut(name)?.add_backend(*address, *backend)?;
            }
            Self::SetBackend(name, address, change) => {
                next.service_mut(name)?.set_backend(*address, *change)?;
            }
            Self::RemoveBackend(name, address, removal) => {
                next.service_mut(name)?.remove_backend(*address, *removal)?;
            }
            Self::Declare { desired, prune } => declare(&mut next, desired, *prune)?,
        }
        Ok(next)
    }
}

impl ServiceChange {
    fn apply(&self, service: &mut Service) {
        let Self { strategy, mode, source_pool, on_no_backend, on_backend_down, affinity, health, .. } = self;
        if self.changes_guard() {
            service.guard = Arc::new(self.guard(&service.guard).for_vip(service.vip));
        }
        service.strategy = strategy.unwrap_or(service.strategy);
        service.mode = mode.unwrap_or(service.mode);
        if let Some(pool) = source_pool {
            service.source_pool = pool.clone();
        } else if service.mode != Mode::FullNat {
            // Whoever says that it is full NAT no more need not say that it has no pool.
            service.source_pool = SourcePool::default();
        }
        service.on_no_backend = on_no_backend.unwrap_or(service.on_no_backend);
        service.on_backend_down = on_backend_down.unwrap_or(service.on_backend_down);
        service.retry = self.retry.unwrap_or(service.retry);
        service.affinity = affinity.unwrap_or(service.affinity);
        let fitness = &mut service.fitness;
        fitness.panic_threshold = self.panic_threshold.unwrap_or(fitness.panic_threshold);
        fitness.slow_start = self.slow_start.unwrap_or(fitness.slow_start);
        fitness.damping = self.damping.unwrap_or(fitness.damping);
        if let Some(health) = health {
            service.health = health.clone();
        }
    }
}

impl ServiceChange {
    fn changes_guard(&self) -> bool {
        self.limit_new_flows.is_some()
            || self.limit_source.is_some()
            || self.allow.is_some()
            || self.deny.is_some()
            || [&self.add_allow, &self.add_deny, &self.unlist].iter().any(|prefixes| !prefixes.is_empty())
    }

    /// The guard after the change: whole lists first, then what is added to them and taken from them.
    fn guard(&self, before: &Guard) -> Guard {
        let mut guard = Guard {
            limit_new_flows: self.limit_new_flows.unwrap_or(before.limit_new_flows),
            limit_source: self.limit_source.unwrap_or(before.limit_source),
            allow: self.allow.clone().unwrap_or_else(|| before.allow.clone()),
            deny: self.deny.clone().unwrap_or_else(|| before.deny.clone()),
        };
        guard.unlist(&self.unlist);
        guard.allow(&self.add_allow);
        guard.deny(&self.add_deny);
        guard
    }
}

impl BackendChange {
    fn apply(self, Backend { weight, admin, backup, lease }: Backend) -> Backend {
        Backend {
            weight: self.weight.unwrap_or(weight),
            admin: self.admin.unwrap_or(admin),
            backup: self.backup.unwrap_or(backup),
            lease: self.lease.unwrap_or(lease),
        }
    }
}

fn add_service(next: &mut Desired, service: &Service) -> Result<(), Refusal> {
    if next.services.contains_key(&service.name) {
        return Err(Refusal::DuplicateService(service.name.clone()));
    }
    next.services.insert(service.name.clone(), service.clone());
    Ok(())
}

impl Service {
    fn add_backend(&mut self, address: Endpoint, backend: Backend) -> Result<(), Refusal> {
        if self.backends.contains_key(&address) {
            return Err(Refusal::DuplicateBackend(self.name.clone(), address));
        }
        self.removing.remove(&address);
        self.backends.insert(address, backend);
        Ok(())
    }

    fn set_backend(&mut self, address: Endpoint, change: BackendChange) -> Result<(), Refusal> {
        // Whoever says what a backend shall be from now on wants it to stay.
        if let (Some(removing), Some(_)) = (self.removing.get(&address), change.admin) {
            return self.add_backend(address, change.apply(removing.backend()));
        }
        if self.removing.contains_key(&address) {
            return Err(Refusal::BeingRemoved(self.name.clone(), address));
        }
        let unknown = || Refusal::UnknownBackend(self.name.clone(), address);
        let backend = self.backends.get_mut(&address).ok_or_else(unknown)?;
        *backend = change.apply(*backend);
        Ok(())
    }

    fn remove_backend(&mut self, address: Endpoint, removal: Removal) -> Result<(), Refusal> {
        let present = self.backends.remove(&address);
        let leaving = self.removing.remove(&address).map(Removing::backend);
        let backend =
            present.or(leaving).ok_or_else(|| Refusal::UnknownBackend(self.name.clone(), address))?;
        if let Removal::Drain(deadline) = removal {
            self.removing.insert(address, Removing::new(backend, deadline));
        }
        Ok(())
    }
}

/// Takes over what is declared. With `prune`, what is not declared goes.
fn declare(next: &mut Desired, declared: &Desired, prune: Option<Removal>) -> Result<(), Refusal> {
    if prune.is_some() {
        next.services.retain(|name, _| declared.services.contains_key(name));
    }
    for (name, service) in &declared.services {
        let mut merged = service.clone();
        if let Some(current) = next.services.remove(name) {
            merged.keeps_unremembered_flows_of(&current)?;
            merged.keep_backends_of(&current, prune);
        }
        next.services.insert(name.clone(), merged);
    }
    Ok(())
}

impl Service {
    /// Refuses what would send flows that nobody remembers to another backend. A service at another address is another.
    fn keeps_unremembered_flows_of(&self, before: &Self) -> Result<(), Refusal> {
        if (self.vip, self.protocol) != (before.vip, before.protocol) {
            return Ok(());
        }
        if self.track != before.track {
            return Err(Refusal::Fixed(self.name.clone(), "`track`"));
        }
        if self.track == Track::Exceptions && self.strategy.hashes_source() != before.strategy.hashes_source()
        {
            return Err(Refusal::Fixed(self.name.clone(), "what a strategy hashes"));
        }
        Ok(())
    }

    /// Takes over from `current` the backends that were not declared: as they are, or on their way out.
    fn keep_backends_of(&mut self, current: &Self, prune: Option<Removal>) {
        for (address, removing) in &current.removing {
            if !self.backends.contains_key(address) {
                self.removing.insert(*address, *removing);
            }
        }
        for (address, backend) in &current.backends {
            match prune {
                _ if self.backends.contains_key(address) => {}
                None => drop(self.backends.insert(*address, *backend)),
                Some(Removal::Now) => {}
                Some(Removal::Drain(deadline)) => {
                    self.removing.insert(*address, Removing::new(*backend, deadline));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::model::file;
    use crate::model::file::tests::any_state;

    fn admin(admin: Admin) -> BackendChange {
        BackendChange { admin: Some(admin), ..BackendChange::default() }
    }

    fn state() -> Desired {
        let text = r#"
            [[service]]
            name = "web"
            vip = "10.0.0.100:80"
            [[service.backend]]
            address = "10.0.1.11:80"
            weight = 5
            [[service]]
            name = "dns"
            vip = "10.0.0.100:53"
            protocol = "udp"
        "#;
        file::parse(text, "state").unwrap()
    }

    fn web() -> ServiceName {
        "web".parse().unwrap()
    }

    fn at(address: &str) -> Endpoint {
        address.parse().unwrap()
    }

    fn drain() -> Removal {
        Removal::Drain(SystemTime::UNIX_EPOCH + Duration::from_secs(300))
    }

    fn removed_gently() -> Desired {
        Change::RemoveBackend(web(), at("10.0.1.11:80"), drain()).apply(&state()).unwrap()
    }

    #[test]
    fn a_backend_that_drains_out_is_no_longer_wanted_but_still_there() {
        let next = removed_gently();
        let service = next.service(&web()).unwrap();
        assert!(service.backends.is_empty());
        assert_eq!(service.removing[&at("10.0.1.11:80")].weight, Weight::from(5));
    }

    #[test]
    fn enabling_or_adding_it_again_keeps_it() {
        let enable = Change::SetBackend(web(), at("10.0.1.11:80"), admin(Admin::Enabled));
        assert_eq!(enable.apply(&removed_gently()).unwrap(), state());
        let add = Change::AddBackend(web(), at("10.0.1.11:80"), Backend::default());
        let service = add.apply(&removed_gently()).unwrap().services.remove(&web()).unwrap();
        assert_eq!((service.backends.len(), service.removing.len()), (1, 0));
    }

    #[test]
    fn removing_it_by_force_takes_it_out_at_once() {
        let force = Change::RemoveBackend(web(), at("10.0.1.11:80"), Removal::Now);
        for before in [state(), removed_gently()] {
            assert_eq!(force.apply(&before).unwrap().service(&web()).unwrap().endpoints().count(), 0);
        }
    }

    #[test]
    fn each_refused_change_has_its_message() {
        let (nobody, nowhere) = ("nobody".parse::<ServiceName>().unwrap(), at("10.0.1.99:80"));
        let there = at("10.0.1.11:80");
        let web_again = state().services.remove(&web()).unwrap();
        let cases = [
            (
                Change::RemoveService(nobody.clone()),
                "unknown service `nobody`: `lb-agent service list` shows those that there are",
            ),
            (
                Change::AddBackend(nobody, nowhere, Backend::default()),
                "unknown service `nobody`: `lb-agent service list` shows those that there are",
            ),
            (
                Change::RemoveBackend(web(), nowhere, drain()),
                "service `web` has no backend 10.0.1.99:80: `lb-agent backend list web` shows those that it has",
            ),
            (
                Change::SetBackend(web(), nowhere, admin(Admin::Draining)),
                "service `web` has no backend 10.0.1.99:80: `lb-agent backend list web` shows those that it has",
            ),
            (
                Change::AddBackend(web(), there, Backend::default()),
                "service `web` has backend 10.0.1.11:80 already: change it with `lb-agent backend set`",
            ),
            (
                Change::AddService(Box::new(web_again)),
                "service `web` exists already: change it with `lb-agent service set`, or choose another name",
            ),
        ];
        for (change, message) in cases {
            assert_eq!(change.apply(&state()).unwrap_err().to_string(), message);
        }
        let heavier = Change::SetBackend(
            web(),
            there,
            BackendChange { weight: Some(9.into()), ..BackendChange::default() },
        );
        assert_eq!(
            heavier.apply(&removed_gently()).unwrap_err().to_string(),
            "backend 10.0.1.11:80 of service `web` is being removed: keep it with `lb-agent backend enable web 10.0.1.11:80` first"
        );
    }

    #[test]
    fn declaring_part_of_a_state_keeps_the_rest() {
        let part = "[[service]]\nname = \"web\"\nvip = \"10.0.0.100:80\"\nstrategy = \"consistent-hash\"\n";
        let declared = file::parse(part, "part").unwrap();
        let next = Change::Declare { desired: declared, prune: None }.apply(&state()).unwrap();
        assert_eq!(next.services.len(), 2);
        let service = next.service(&web()).unwrap();
        assert_eq!((service.strategy, service.backends.len()), (super::Strategy::ConsistentHash, 1));
    }

    #[test]
    fn pruned_backends_drain_out() {
        let part = "[[service]]\nname = \"web\"\nvip = \"10.0.0.100:80\"\n";
        let declared = file::parse(part, "part").unwrap();
        let next = Change::Declare { desired: declared, prune: Some(drain()) }.apply(&state()).unwrap();
        assert_eq!(next, { Change::RemoveService("dns".parse().unwrap()).apply(&removed_gently()).unwrap() });
    }

    proptest! {
        #[test]
        fn declaring_a_whole_state_gives_that_state(before in any_state(), declared in any_state()) {
            let change = Change::Declare { desired: declared.clone(), prune: Some(Removal::Now) };
            prop_assert_eq!(change.apply(&before).unwrap(), declared);
        }

        #[test]
        fn declaring_twice_is_declaring_once(before in any_state(), declared in any_state(), prune in any::<bool>()) {
            let change = Change::Declare { desired: declared, prune: prune.then(drain) };
            let once = change.apply(&before).unwrap();
            prop_assert_eq!(change.apply(&once).unwrap(), once);
        }
    }
}
