//! Health as the control task sees it: which checks there are, and what their results mean for each backend.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tracing::{info, warn};

use super::wanted::{Known, Pool, is_fit, wanted};
use super::{BackendKey, Control, Timings};
use crate::datapath::Wanted;
use crate::events::Happening;
use crate::health::{Check, Health, ProbeResult, Scheduler, Transition};
use crate::model::{Admin, Desired, Endpoint, Service};

impl Control {
    /// Checks what the desired state says from now on.
    pub(super) fn refresh_checks(&mut self) {
        let checks: BTreeSet<Check> = self
            .desired
            .services
            .values()
            .flat_map(|service| service.endpoints().flat_map(|address| checks_of(service, address)))
            .collect();
        self.scheduler.set(&checks, super::now());
        self.checked.retain(&checks);
        self.verdicts = self.judge();
        self.tell_panics();
        self.save_failing();
    }

    /// What every backend is now, after what its checks say and what it has been through.
    fn judge(&mut self) -> BTreeMap<BackendKey, Health> {
        let checks = |service: &Service, address| health_of(service, address, &self.scheduler);
        self.fitness.settle(&self.desired, checks, super::now());
        let services = self.desired.services.values();
        let of =
            |service: &Service, address| ((service.name.clone(), address), self.health(service, address));
        services.flat_map(|service| service.endpoints().map(move |address| of(service, address))).collect()
    }

    /// What a backend is.
    pub(super) fn health(&self, service: &Service, address: Endpoint) -> Health {
        let checks = health_of(service, address, &self.scheduler);
        self.fitness.health(service, address, checks, super::now())
    }

    /// What is known of a backend.
    pub(super) fn known(&self, service: &Service, address: Endpoint) -> Known {
        Known {
            health: self.health(service, address),
            headroom: self.reports.headroom(&(service.name.clone(), address)),
            grown: self.fitness.grown(service, address, super::now()),
        }
    }

    /// Tells which services have begun to use unfit backends, and which have ended.
    fn tell_panics(&mut self) {
        let panics =
            |service: &&Service| Pool::of(service, |address| self.health(service, address)) == Pool::Everyone;
        let panicking: BTreeSet<_> =
            self.desired.services.values().filter(panics).map(|service| service.name.clone()).collect();
        let before = std::mem::replace(&mut self.panicking, panicking);
        for name in before.symmetric_difference(&self.panicking) {
            let Some(service) = self.desired.services.get(name) else { continue };
            let panicking = self.panicking.contains(name);
            let enabled = service.backends.iter().filter(|(_, backend)| backend.admin == Admin::Enabled);
            let backends = enabled.clone().count();
            let fit = enabled.filter(|(address, _)| is_fit(self.health(service, **address))).count();
            warn!(service = %name, panicking, fit, backends, "panic");
            self.events.tell(Happening::PanicChanged { service: name.clone(), panicking, fit, backends });
        }
    }

    /// Acts on what time alone has changed: a backend has grown, or has been held out for long enough.
    pub(super) fn follow_fitness(&mut self) {
        self.take_verdicts(&[]);
        self.carry_out_fitness();
    }

    fn carry_out_fitness(&mut self) {
        let wanted = self.wanted();
        if let Err(error) = self.apply(&wanted) {
            let error = format!("{error:#}");
            warn!(error, "the data plane did not take a change of health; trying again");
            self.fall_out(&error);
        }
    }

    /// Keeps what fails for the next agent.
    fn save_failing(&mut self) {
        let failing = self.scheduler.failing();
        if failing == self.failing {
            return;
        }
        match self.store.save_failing(&failing) {
            Ok(()) => self.failing = failing,
            Err(error) => warn!(%error, "cannot save which checks fail"),
        }
    }

    /// What the data plane shall do now.
    pub(super) fn wanted(&self) -> Wanted {
        self.wanted_of(&self.desired)
    }

    /// What the data plane would have to do for another state.
    pub(super) fn wanted_of(&self, desired: &Desired) -> Wanted {
        wanted(desired, |service, address| self.known(service, address))
    }

    /// Hands out what is due.
    pub(super) fn start_probes(&mut self) {
        let now = super::now();
        while let Some(probe) = self.scheduler.next_probe(now) {
            self.prober.start(probe, &self.results.0);
        }
    }

    /// Takes a result, and with it those that wait already: a rack that dies is one change of the tables, not forty.
    pub(super) fn take_results(&mut self, first: ProbeResult) {
        let now = super::now();
        let mut transitions = Vec::new();
        let mut next = Some(first);
        while let Some(ProbeResult { id, outcome, took }) = next {
            self.note_result(id, &outcome, took);
            transitions.extend(self.scheduler.handle_result(id, outcome, now));
            next = self.results.1.try_recv().ok();
        }
        if !transitions.is_empty() {
            self.take_transitions(&transitions);
        }
    }

    /// Keeps what a check found, and how long it took, for whoever looks.
    fn note_result(&mut self, id: u64, outcome: &Result<(), String>, took: Duration) {
        let Timings { passed_checks, failed_checks, .. } = &mut self.timings;
        if outcome.is_ok() { passed_checks } else { failed_checks }.count(took);
        if let Some(check) = self.scheduler.in_flight(id) {
            self.checked.take(check, outcome, took);
        }
    }

    fn take_transitions(&mut self, transitions: &[Transition]) {
        if self.take_verdicts(transitions) {
            self.save_failing();
            self.carry_out_fitness();
        }
    }

    /// Judges every backend anew, and tells what is other than before. True where that matters to the data plane.
    fn take_verdicts(&mut self, transitions: &[Transition]) -> bool {
        let after = self.judge();
        let mut matters = false;
        for (key, &to) in &after {
            let from = self.verdicts.get(key).copied().unwrap_or_default();
            if from != to {
                self.tell_change(key, from, to, transitions);
                // An unknown backend is treated as a healthy one.
                matters |= is_fit(from) != is_fit(to) || to == Health::Unhealthy || from == Health::Unhealthy;
            }
        }
        self.verdicts = after;
        self.tell_panics();
        matters
    }

    fn tell_change(
        &self,
        (name, address): &BackendKey,
        from: Health,
        to: Health,
        transitions: &[Transition],
    ) {
        let service = self.desired.services.get(name);
        let checks: BTreeSet<_> =
            service.into_iter().flat_map(|service| checks_of(service, *address)).collect();
        let decisive = transitions.iter().find(|transition| checks.contains(&transition.check));
        let held = service.and_then(|service| self.fitness.held(service, *address, super::now()));
        let is_leased = service
            .and_then(|service| service.backends.get(address))
            .is_some_and(|backend| backend.lease.period().is_some());
        let reason = match (from, held) {
            (_, Some(held)) => held,
            (Health::Ejected, None) if is_fit(to) => "held out for long enough".to_owned(),
            (Health::Unhealthy, None) if decisive.is_none() && is_leased => "heard of again".to_owned(),
            _ => decisive.map(|transition| transition.reason.clone()).unwrap_or_default(),
        };
        info!(service = %name, backend = %address, %from, %to, reason = reason.as_str(), "health changed");
        let (service, backend) = (name.clone(), *address);
        self.events.tell(Happening::HealthChanged { service, backend, from, to, reason });
    }
}

/// What is checked for a backend. In maintenance it may be down, and is left in peace.
pub(super) fn checks_of(service: &Service, address: Endpoint) -> impl Iterator<Item = Check> + '_ {
    let is_checked = service.backends.get(&address).is_none_or(|backend| backend.admin != Admin::Maintenance);
    let specs = service.health.iter().filter(move |_| is_checked);
    specs.map(move |spec| Check::of(address.socket(), spec))
}

/// One failed check makes a backend unhealthy; it is healthy when all pass.
pub(super) fn health_of(service: &Service, address: Endpoint, scheduler: &Scheduler) -> Health {
    let known: Vec<_> = checks_of(service, address).map(|check| scheduler.health(&check)).collect();
    match known.as_slice() {
        [] => Health::Unknown,
        all if all.contains(&Health::Unhealthy) => Health::Unhealthy,
        all if all.contains(&Health::Unknown) => Health::Unknown,
        _ => Health::Healthy,
    }
}
