//! How a change is made: checked, saved, carried out; or refused without a trace.

use std::collections::BTreeSet;
use std::time::SystemTime;

use tracing::{info, warn};

use super::{BackendKey, Control, ControlError, Order};
use crate::datapath::Plan;
use crate::model::{Change, Desired, Removal, Track, differences};
use crate::store::{Draft, StoreError};

/// What a change did, or would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// What differs in the desired state, for people.
    pub changes: Vec<String>,
    /// What the data plane does for it.
    pub plan: Plan,
    /// The revision that holds it; for a change that was not made, the one it was tried on.
    pub revision: u64,
}

/// How often a change is tried again while others change the state.
const ATTEMPTS: usize = 5;

impl Control {
    /// What a change would do.
    pub(super) fn preview(&self, change: &Change) -> Result<Changed, ControlError> {
        let next = self.next(change)?;
        let plan = self.datapath.plan(&self.wanted_of(&next)).map_err(ControlError::datapath)?;
        Ok(Changed { changes: differences(&self.desired, &next), plan, revision: self.revision })
    }

    /// Makes a change, or says what it would do.
    pub(super) fn carry_out(&mut self, change: &Change, order: Order) -> Result<Changed, ControlError> {
        match order.dry_run {
            true => self.check(order.precondition.as_ref()).and_then(|()| self.preview(change)),
            false => self.change(change, order),
        }
    }

    /// Makes a change. When this returns well, it is on disk and in the kernel; else nothing has changed.
    pub(super) fn change(&mut self, change: &Change, order: Order) -> Result<Changed, ControlError> {
        for _ in 0..ATTEMPTS {
            match self.try_change(change, &order) {
                // Somebody else was faster: the change is made on top of his, or refused if that was not to be.
                Err(ControlError::Store(StoreError::Conflict { .. })) => self.follow(),
                done => return done,
            }
        }
        Err(ControlError::Busy)
    }

    fn try_change(&mut self, change: &Change, order: &Order) -> Result<Changed, ControlError> {
        self.check(order.precondition.as_ref())?;
        let next = self.next(change)?;
        if self.unwanted.is_some() {
            // The store is not at our revision until that is taken back.
            self.settle()?;
        }
        let changes = differences(&self.desired, &next);
        let plan = self.commit(next, order.reason.clone())?;
        for change in &changes {
            info!(change, revision = self.revision, "state changed");
        }
        Ok(Changed { changes, plan, revision: self.revision })
    }

    /// Brings a kept revision back. Backends that it does not have go as said; those that were on their way out when it
    /// was made stay gone.
    pub(super) fn roll_back(
        &mut self,
        number: u64,
        removal: Removal,
        order: Order,
    ) -> Result<Changed, ControlError> {
        let revision = self.store.revision(number).map_err(ControlError::Unreadable)?;
        let mut desired = Desired::clone(&revision.desired);
        desired.services.values_mut().for_each(|service| service.removing.clear());
        let change = Change::Declare { desired, prune: Some(removal) };
        self.carry_out(&change, Order { reason: Some(format!("rollback to revision {number}")), ..order })
    }

    fn next(&self, change: &Change) -> Result<Desired, ControlError> {
        let next = change.apply(&self.desired)?;
        next.validate(&self.limits)?;
        Ok(next)
    }

    /// Disk first: what is in the kernel but not on disk would be undone by the next start. What the data plane can tell
    /// beforehand that it will refuse does not get that far.
    fn commit(&mut self, next: Desired, reason: Option<String>) -> Result<Plan, ControlError> {
        let wanted = self.wanted_of(&next);
        let is_kept = next == *self.desired;
        if !is_kept {
            self.datapath.plan(&wanted).map_err(ControlError::datapath)?;
        }
        let kept = match is_kept {
            true => None,
            false => Some(self.keep(Draft { reason, ..Draft::new(next) })?),
        };
        match self.apply(&wanted) {
            Ok(plan) => {
                if let Some(revision) = kept {
                    self.adopt(revision);
                }
                self.fall_in();
                self.refresh_checks();
                Ok(plan)
            }
            Err(refused) => {
                let refused = ControlError::datapath(refused);
                self.undo(kept.map(|revision| revision.info.revision), &refused);
                Err(refused)
            }
        }
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
        match self.commit(next, None) {
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
        // Where flows are not remembered, nobody knows whether there are any.
        if service.track == Track::Full && self.traffic(service, *address).active_connections == 0 {
            return Some("drained");
        }
        (now >= removing.deadline).then_some("drain timeout")
    }
}
