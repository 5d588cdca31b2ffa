//! Health as the control task sees it: which checks there are, and what their results mean for each backend.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tracing::{info, warn};

use super::wanted::wanted;
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
        self.verdicts = verdicts(&self.desired, &self.scheduler);
        self.save_failing();
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
        let health = |service: &Service, address| health_of(service, address, &self.scheduler);
        let headroom = |service: &Service, address| self.reports.headroom(&(service.name.clone(), address));
        wanted(desired, health, headroom)
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
            self.checked.take(*check, outcome, took);
        }
    }

    fn take_transitions(&mut self, transitions: &[Transition]) {
        let after = verdicts(&self.desired, &self.scheduler);
        let mut matters = false;
        for (key, &to) in &after {
            let from = self.verdicts.get(key).copied().unwrap_or_default();
            if from != to {
                self.tell_change(key, from, to, transitions);
                // An unknown backend is treated as a healthy one.
                matters |= from == Health::Unhealthy || to == Health::Unhealthy;
            }
        }
        self.verdicts = after;
        if !matters {
            return;
        }
        self.save_failing();
        let wanted = self.wanted();
        if let Err(error) = self.apply(&wanted) {
            let error = format!("{error:#}");
            warn!(error, "the data plane did not take a change of health; trying again");
            self.fall_out(&error);
        }
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
        let reason = decisive.map_or("", |transition| transition.reason.as_str());
        info!(service = %name, backend = %address, %from, %to, reason, "health changed");
        let (service, backend, reason) = (name.clone(), *address, reason.to_owned());
        self.events.tell(Happening::HealthChanged { service, backend, from, to, reason });
    }
}

/// What is checked for a backend. In maintenance it may be down, and is left in peace.
pub(super) fn checks_of(service: &Service, address: Endpoint) -> impl Iterator<Item = Check> + '_ {
    let is_checked = service.backends.get(&address).is_none_or(|backend| backend.admin != Admin::Maintenance);
    let specs = service.health.iter().filter(move |_| is_checked);
    specs.map(move |spec| Check::of(address.socket(), *spec))
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

fn verdicts(desired: &Desired, scheduler: &Scheduler) -> BTreeMap<BackendKey, Health> {
    let services = desired.services.values();
    services
        .flat_map(|service| {
            service
                .endpoints()
                .map(|address| ((service.name.clone(), address), health_of(service, address, scheduler)))
        })
        .collect()
}
