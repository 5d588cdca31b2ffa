//! Taking out of use, in the reverse order of putting into use.

use std::collections::{BTreeMap, BTreeSet};

use super::Action;
use super::diff::{Differ, Target, chain};
use crate::datapath::WantedBackend;
use crate::datapath::identity::Endpoint;
use crate::model::OnBackendDown;

impl Differ<'_> {
    /// Takes out of use what is wanted no more, and has dead backends give up their flows.
    pub(super) fn remove(&mut self, targets: &[Target<'_>]) -> anyhow::Result<()> {
        let kept: BTreeSet<u16> = targets.iter().map(|target| target.id).collect();
        let wanted: BTreeMap<u16, &WantedBackend> =
            targets.iter().flat_map(|target| target.backends.iter().copied()).collect();
        let gone_services: Vec<_> = self
            .now
            .services
            .iter()
            .filter(|(_, service)| !kept.contains(&service.id))
            .map(|(endpoint, service)| (*endpoint, service.id))
            .collect();
        let gone: Vec<_> = self.now.backends.keys().copied().filter(|id| !wanted.contains_key(id)).collect();
        // A service that goes keeps its backends serving until no packet can find it.
        let lowered: Vec<_> = self
            .now
            .backends
            .iter()
            .filter(|(id, row)| {
                row.standing.serving
                    && kept.contains(&row.service)
                    && wanted.get(id).is_none_or(|w| !w.serving)
            })
            .map(|(&id, _)| id)
            .collect();
        let resetting: BTreeSet<u16> = targets
            .iter()
            .filter(|target| target.service.on_backend_down == OnBackendDown::Reset)
            .flat_map(|target| target.backends.iter().map(|(id, _)| *id))
            .collect();
        if !lowered.is_empty() {
            // A packet that read the old table may still be about to look at the backend.
            self.grace_period();
        }
        for &id in &lowered {
            self.set_standing(id, false, 0);
            if let Some(backend) = wanted.get(&id) {
                let fate = match resetting.contains(&id) {
                    true => "its flows are reset",
                    false => "its flows are given to others",
                };
                self.say(format!("backend {}: out of service, {fate}", backend.address));
            }
        }
        self.retire(&gone_services, &gone)
    }

    fn retire(&mut self, services: &[(Endpoint, u16)], backends: &[u16]) -> anyhow::Result<()> {
        let rows: Vec<_> = backends.iter().filter_map(|id| self.now.backends.remove(id)).collect();
        for (endpoint, _) in services {
            self.now.services.remove(endpoint);
        }
        // Also where nothing is to be removed: an agent that died may have left the directory behind its rows.
        self.list()?;
        if !services.is_empty() {
            self.grace_period();
        }
        for &(endpoint, id) in services {
            self.act(Action::RetireService { id });
            self.say(format!("service {endpoint}: removed"));
        }
        self.relink(&chain(&self.now.backends, &self.full_nat()));
        for (&id, row) in backends.iter().zip(&rows) {
            self.act(Action::RetireBackend { id });
            self.say(format!("backend {}: removed", row.endpoint));
        }
        Ok(())
    }
}
