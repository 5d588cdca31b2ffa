//! How a change is made: checked, saved, carried out; or refused without a trace.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use tracing::{error, info, warn};

use super::{BackendKey, Control, ControlError};
use crate::datapath::Plan;
use crate::model::{Change, Desired, Removal, differences};

/// What a change did, or would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// What differs in the desired state, for people.
    pub changes: Vec<String>,
    /// What the data plane does for it.
    pub plan: Plan,
}

impl Control {
    /// What a change would do.
    pub(super) fn preview(&self, change: &Change) -> Result<Changed, ControlError> {
        let next = self.next(change)?;
        let plan = self.datapath.plan(&self.wanted_of(&next)).map_err(ControlError::datapath)?;
        Ok(Changed { changes: differences(&self.desired, &next), plan })
    }

    /// Makes a change. When this returns well, it is on disk and in the kernel; else nothing has changed.
    pub(super) fn change(&mut self, change: &Change) -> Result<Changed, ControlError> {
        let next = self.next(change)?;
        let changes = differences(&self.desired, &next);
        let plan = self.commit(next)?;
        for change in &changes {
            info!(change, "state changed");
        }
        Ok(Changed { changes, plan })
    }

    fn next(&self, change: &Change) -> Result<Desired, ControlError> {
        let next = change.apply(&self.desired)?;
        next.validate(&self.limits)?;
        Ok(next)
    }

    /// Disk first: what is in the kernel but not on disk would be undone by the next start.
    fn commit(&mut self, next: Desired) -> Result<Plan, ControlError> {
        if next != *self.desired
            && let Err(failure) = self.store.save(&next)
        {
            // Whether the old state is still what a crash would leave is not certain: save it once more.
            self.out_of_step = true;
            return Err(failure.into());
        }
        match self.datapath.apply(&self.wanted_of(&next)) {
            Ok(plan) => {
                self.desired = Arc::new(next);
                self.out_of_step = false;
                self.refresh_checks();
                Ok(plan)
            }
            Err(refused) => {
                self.out_of_step = true;
                self.catch_up();
                Err(ControlError::datapath(refused))
            }
        }
    }

    /// Brings disk and data plane back to the desired state, each for itself; what fails, the next tick tries again.
    pub(super) fn catch_up(&mut self) {
        let saved = self.store.save(&self.desired);
        if let Err(failure) = &saved {
            error!(error = %failure, "cannot save the state; trying again");
        }
        let applied = self.datapath.apply(&self.wanted());
        if let Err(failure) = &applied {
            error!(error = format!("{failure:#}"), "the data plane is out of step; trying again");
        }
        self.out_of_step = saved.is_err() || applied.is_err();
    }

    /// Removes the backends that have drained or whose time is up.
    ///
    /// Not before the second tick after the drain began: until the new table is seen everywhere, a packet that read
    /// the old one can still open a flow.
    pub(super) fn remove_drained(&mut self) {
        let leaving = self.leaving();
        let known = std::mem::replace(&mut self.leaving, leaving);
        let now = SystemTime::now();
        let gone: Vec<_> = self
            .leaving
            .intersection(&known)
            .filter_map(|key| Some((key.clone(), self.is_gone(key, now)?)))
            .collect();
        if gone.is_empty() {
            return;
        }
        let mut next = Desired::clone(&self.desired);
        for ((name, address), _) in &gone {
            match Change::RemoveBackend(name.clone(), *address, Removal::Now).apply(&next) {
                Ok(removed) => next = removed,
                Err(refusal) => warn!(%refusal, "cannot remove a drained backend"),
            }
        }
        match self.commit(next) {
            Ok(_) => {
                for ((name, address), reason) in gone {
                    info!(service = %name, backend = %address, reason, "backend removed");
                }
            }
            Err(failure) => warn!(error = %failure, "cannot remove drained backends; trying again"),
        }
    }

    fn leaving(&self) -> BTreeSet<BackendKey> {
        let services = self.desired.services.values();
        services.flat_map(|service| service.removing.keys().map(|at| (service.name.clone(), *at))).collect()
    }

    /// Why a backend on its way out can go now, if it can.
    fn is_gone(&self, (name, address): &BackendKey, now: SystemTime) -> Option<&'static str> {
        let service = self.desired.services.get(name)?;
        let removing = service.removing.get(address)?;
        if self.traffic(service, *address).active_connections == 0 {
            return Some("drained");
        }
        (now >= removing.deadline).then_some("drain timeout")
    }
}
