//! The one task that owns the desired state, the health of every backend and the data plane.
//!
//! Everybody else sends it a [`Request`] through a [`Handle`] and gets plain data back. There is no second writer, so
//! there is no lock, and a change is answered only when it is on disk and in the kernel.

mod change;
mod checked;
mod condition;
mod fitness;
mod handle;
mod health;
mod lease;
mod order;
mod rates;
mod reports;
mod snapshot;
mod step;
mod timings;
mod wanted;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
pub mod fake;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio::time::{self, MissedTickBehavior};

use crate::config::Limits;
use crate::datapath::{Datapath, Network};
use crate::events::{Events, Happening};
use crate::health::{Failing, Health, ProbeResult, Prober, Scheduler};
use crate::model::{Desired, Endpoint, ServiceName};
use crate::store::{Revision, Store};
pub use change::Changed;
pub use checked::CheckNow;
use checked::Checked;
pub use condition::Condition;
use fitness::Fitness;
use handle::Request;
pub use handle::{ControlError, Handle};
pub use lease::Renewal;
pub use order::{Order, Precondition, Tags, Target};
pub use rates::Rates;
use rates::Sampler;
use reports::Reports;
pub use reports::{EffectiveWeight, LoadNow, Report};
pub use snapshot::{BackendNow, Explained, FlowRow, Snapshot};
pub use timings::{Durations, Timings};

/// A backend of a service, as the control plane names it.
type BackendKey = (ServiceName, Endpoint);

/// Probe results that may wait while the data plane is being changed.
const RESULT_QUEUE: usize = 1024;
/// Requests that may wait.
const REQUEST_QUEUE: usize = 64;
/// Between two looks at what drains, what is counted and what failed before.
const TICK: Duration = Duration::from_secs(1);

/// What the control task is made of.
pub struct Parts {
    /// The state to begin with, as [`load`] found it.
    pub revision: Revision,
    /// Where the state is kept.
    pub store: Box<dyn Store>,
    /// What carries packets.
    pub datapath: Box<dyn Datapath>,
    /// What tells of changes around it.
    pub network: Network,
    /// What carries health checks out.
    pub prober: Box<dyn Prober>,
    /// Sizes of the tables.
    pub limits: Limits,
}

/// The saved state, if it can be used.
///
/// # Errors
/// Where it cannot be read, or not with these limits. It is left as it is.
pub fn load(store: &dyn Store, limits: &Limits) -> anyhow::Result<Revision> {
    let revision = store.latest()?;
    revision.desired.validate(limits).context("the saved state cannot be used with this configuration")?;
    Ok(revision)
}

/// The task. Made by [`Control::start`], driven by [`Control::run`].
pub struct Control {
    store: Box<dyn Store>,
    datapath: Box<dyn Datapath>,
    network: Network,
    prober: Box<dyn Prober>,
    limits: Limits,
    desired: Arc<Desired>,
    /// The number of the revision that holds it.
    revision: u64,
    /// For each service, the revision that changed it last.
    modified: Arc<BTreeMap<ServiceName, u64>>,
    /// A revision that was kept and that the data plane then refused, with the refusal: to be taken back.
    unwanted: Option<(u64, String)>,
    scheduler: Scheduler,
    /// The failing checks that were saved last.
    failing: BTreeSet<Failing>,
    /// What the data plane was last told of each backend.
    verdicts: BTreeMap<BackendKey, Health>,
    fitness: Fitness,
    /// Services of which so few backends are fit that all take traffic.
    panicking: BTreeSet<ServiceName>,
    /// Backends that were on their way out at the last tick already.
    leaving: BTreeSet<BackendKey>,
    checked: Checked,
    sampler: Sampler,
    timings: Timings,
    reports: Reports,
    /// The data plane or the disk may differ from what is desired: try again at the next tick.
    out_of_step: bool,
    started: Instant,
    events: Events,
    requests: mpsc::Receiver<Request>,
    results: (mpsc::Sender<ProbeResult>, mpsc::Receiver<ProbeResult>),
}

impl Control {
    /// Brings the data plane in step with the state.
    ///
    /// # Errors
    /// Where the data plane refuses it.
    pub fn start(parts: Parts) -> anyhow::Result<(Self, Handle)> {
        let Parts { revision, store, datapath, network, prober, limits } = parts;
        let failing = store.load_failing();
        let (sender, requests) = mpsc::channel(REQUEST_QUEUE);
        let mut control = Self {
            store,
            datapath,
            network,
            prober,
            limits,
            desired: revision.desired,
            revision: revision.info.revision,
            modified: Arc::new(revision.services),
            unwanted: None,
            scheduler: Scheduler::remembering(failing.clone()),
            failing,
            verdicts: BTreeMap::new(),
            fitness: Fitness::default(),
            panicking: BTreeSet::new(),
            leaving: BTreeSet::new(),
            checked: Checked::default(),
            sampler: Sampler::default(),
            timings: Timings::default(),
            reports: Reports::default(),
            out_of_step: false,
            started: now(),
            events: Events::default(),
            requests,
            results: mpsc::channel(RESULT_QUEUE),
        };
        control.refresh_checks();
        let wanted = control.wanted();
        let plan = control.apply(&wanted).context("cannot bring the data plane in step")?;
        for step in &plan.steps {
            tracing::debug!(step, "data plane");
        }
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let unattended_seconds = control.datapath.unattended().map(|time| time.as_secs());
        let revision = control.revision;
        control.events.tell(Happening::Started { version, revision, unattended_seconds });
        let handle = Handle::new(sender, control.events.clone());
        Ok((control, handle))
    }

    /// Serves until every [`Handle`] is gone. The data plane stays as it is.
    pub async fn run(mut self) {
        let mut ticks = time::interval(TICK);
        let mut revisions = self.store.watch();
        // What was made between the start and here is not told any more.
        self.follow();
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.scheduler.next_due();
            let fitness_due = self.fitness.next_due();
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(request) => self.answer(request),
                    None => return,
                },
                Some(result) = self.results.1.recv() => self.take_results(result),
                () = until(due) => self.start_probes(),
                () = until(fitness_due) => self.follow_fitness(),
                Ok(()) = revisions.changed() => self.follow(),
                () = self.network.changed() => self.follow_network(),
                _ = ticks.tick() => self.tick(),
            }
        }
    }

    fn answer(&mut self, request: Request) {
        // Whoever asked may be gone by now; what was done stays done.
        match request {
            Request::Change { change, order, reply } => {
                drop(reply.send(self.timed(|control| control.carry_out(&change, order))));
            }
            Request::Rollback { number, removal, order, reply } => {
                drop(reply.send(self.timed(|control| control.roll_back(number, removal, order))));
            }
            Request::History { reply } => {
                drop(reply.send(self.store.history().map_err(ControlError::Unreadable)))
            }
            Request::Revision { number, reply } => {
                drop(reply.send(self.store.revision(number).map_err(ControlError::Unreadable)));
            }
            Request::Report { service, backend, report, reply } => {
                drop(reply.send(self.take_report(service, backend, report)));
            }
            Request::Renew { service, backend, renewal, reply } => {
                drop(reply.send(self.renew(&service, backend, renewal)));
            }
            Request::Ping { reply } => drop(reply.send(Ok(()))),
            Request::Snapshot { reply } => drop(reply.send(Ok(self.snapshot()))),
            Request::Flows { service, from, reply } => drop(reply.send(self.flows(service.as_ref(), from))),
            Request::Explain { protocol, client, vip, reply } => {
                drop(reply.send(Ok(self.explain(protocol, client, vip))));
            }
        }
    }

    /// Makes a change, and counts how long that took.
    fn timed<T>(&mut self, change: impl FnOnce(&mut Self) -> T) -> T {
        let began = now();
        let changed = change(self);
        self.timings.changes.count(now().duration_since(began));
        changed
    }

    fn tick(&mut self) {
        let began = now();
        self.datapath.tick();
        self.timings.housekeeping.count(now().duration_since(began));
        self.remove_drained();
        self.weigh();
        if self.out_of_step {
            self.catch_up();
        }
        let sample = self.sample();
        self.sampler.sample(now(), sample);
    }
}

/// The runtime's clock, which tests can turn.
fn now() -> Instant {
    time::Instant::now().into_std()
}

/// Waits for a point in time; for ever where there is none.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
