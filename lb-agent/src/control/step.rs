//! Whether disk and data plane are what they shall be, and the attempts to bring them there.

use std::sync::Arc;

use tracing::{error, info};

use super::{Control, ControlError, Report};
use crate::datapath::{InterfaceStatus, Plan, Wanted};
use crate::events::{Happening, first_lines};
use crate::model::{Desired, Endpoint, Refusal, ServiceName};
use crate::store::{Draft, Revision, StoreError};

impl Control {
    /// Has the data plane do what is wanted, and tells what that took.
    pub(super) fn apply(&mut self, wanted: &Wanted) -> anyhow::Result<Plan> {
        let began = super::now();
        let plan = self.datapath.apply(wanted);
        self.timings.reconciles.count(super::now().duration_since(began));
        let plan = plan?;
        if !plan.steps.is_empty() {
            self.events.tell(Happening::Reconciled { steps: first_lines(&plan.steps) });
        }
        Ok(plan)
    }

    /// Has the data plane follow what backends report of their load.
    pub(super) fn weigh(&mut self) {
        if !self.reports.settle(&self.desired, super::now()) {
            return;
        }
        let wanted = self.wanted();
        if let Err(failure) = self.apply(&wanted) {
            self.fall_out(&format!("{failure:#}"));
        }
    }

    /// Takes what a backend reports of its load.
    pub(super) fn take_report(
        &mut self,
        name: ServiceName,
        address: Endpoint,
        report: Report,
    ) -> Result<(), ControlError> {
        if !self.desired.service(&name)?.backends.contains_key(&address) {
            return Err(Refusal::UnknownBackend(name, address).into());
        }
        self.reports.take((name, address), report, super::now());
        Ok(())
    }

    /// Keeps a state.
    pub(super) fn keep(&mut self, draft: Draft) -> Result<Revision, StoreError> {
        self.store.swap(self.revision, draft).inspect_err(|failure| {
            // Whether the revision before is still what a crash would leave is not certain.
            if !matches!(failure, StoreError::Conflict { .. }) {
                self.fall_out(&failure.to_string());
            }
        })
    }

    /// A revision is what is desired from now on.
    pub(super) fn adopt(&mut self, revision: Revision) {
        let Revision { info, desired, services } = revision;
        self.revision = info.revision;
        self.modified = Arc::new(services);
        self.desired = desired;
        self.events.tell(Happening::StateChanged { revision: info.revision, changes: info.changes });
    }

    /// Takes over the latest revision where somebody else has made it.
    pub(super) fn follow(&mut self) {
        let latest = match self.store.latest() {
            Ok(latest) if latest.info.revision == self.revision => return,
            // Our own, which the data plane refused and which could not be taken back yet.
            Ok(latest)
                if self.unwanted.as_ref().is_some_and(|(number, _)| *number == latest.info.revision) =>
            {
                return;
            }
            Ok(latest) => latest,
            Err(failure) => return error!(error = %failure, "cannot read the state; going on with the last"),
        };
        let number = latest.info.revision;
        if let Err(refusal) = latest.desired.validate(&self.limits) {
            return error!(revision = number, %refusal, "a revision cannot be used here; going on with the last");
        }
        info!(revision = number, "the state was changed elsewhere");
        self.adopt(latest);
        self.refresh_checks();
        let wanted = self.wanted();
        if let Err(failure) = self.apply(&wanted) {
            self.fall_out(&format!("{failure:#}"));
        }
    }

    /// Acts on what has changed in the network around.
    pub(super) fn follow_network(&mut self) {
        for InterfaceStatus { name, mode, problem } in self.datapath.follow_network() {
            self.events.tell(Happening::InterfaceChanged { interface: name, mode, problem });
        }
        if self.out_of_step {
            return;
        }
        // An interface that went down, or was made anew, may have lost the addresses that it had for us.
        let wanted = self.wanted();
        if let Err(failure) = self.apply(&wanted) {
            self.fall_out(&format!("{failure:#}"));
        }
    }

    /// What the data plane refused after all: the revision that it was kept as is taken back.
    pub(super) fn undo(&mut self, revision: Option<u64>, refused: &ControlError) {
        self.unwanted = revision.map(|number| (number, refused.to_string()));
        self.fall_out(&refused.to_string());
        self.catch_up();
    }

    /// Brings disk and data plane back to the desired state, each for itself; what fails, the next tick tries again.
    pub(super) fn catch_up(&mut self) {
        let saved = self.settle().map_err(|failure| failure.to_string());
        let wanted = self.wanted();
        let applied = self.apply(&wanted).map(drop).map_err(|failure| format!("{failure:#}"));
        if let Err(failure) = &saved {
            error!(error = failure, "cannot save the state; trying again");
        }
        if let Err(failure) = &applied {
            error!(error = failure, "the data plane is out of step; trying again");
        }
        match saved.and(applied) {
            Ok(()) => self.fall_in(),
            Err(failure) => self.fall_out(&failure),
        }
    }

    /// Has the store hold what is desired: takes back a revision that the data plane did not take.
    pub(super) fn settle(&mut self) -> Result<(), StoreError> {
        let Some((number, refusal)) = self.unwanted.clone() else { return self.store.settle() };
        let undone = Draft {
            desired: Arc::clone(&self.desired),
            ..Draft::new(Desired::default()).because(format!("revision {number} undone: {refusal}"))
        };
        match self.store.swap(number, undone) {
            Ok(revision) => self.adopt(revision),
            // Then that one counts.
            Err(StoreError::Conflict { .. }) => {}
            Err(failure) => return Err(failure),
        }
        self.unwanted = None;
        Ok(())
    }

    /// Notes that something is not what it shall be; the next tick tries again.
    pub(super) fn fall_out(&mut self, error: &str) {
        if !std::mem::replace(&mut self.out_of_step, true) {
            self.events.tell(Happening::OutOfStep { error: error.to_owned() });
        }
    }

    /// Notes that everything is what it shall be.
    pub(super) fn fall_in(&mut self) {
        if std::mem::take(&mut self.out_of_step) {
            self.events.tell(Happening::InStep {});
        }
    }
}
