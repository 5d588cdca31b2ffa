//! Whether backends are fit: what is due when ([`Scheduler`], which does no I/O), and the checks themselves.

mod scheduler;
mod tcp;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use crate::model::HealthType;
pub use scheduler::{Check, Failing, Health, Probe, Scheduler, Transition};

/// What a check found: nothing to say, or why it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    /// Of the probe that it answers.
    pub id: u64,
    /// Why it failed, if it did.
    pub outcome: Result<(), String>,
    /// How long it took.
    pub took: Duration,
}

/// Carries probes out.
pub trait Prober: Send {
    /// Starts a probe; its result is to be found in the channel later.
    fn start(&mut self, probe: Probe, results: &mpsc::Sender<ProbeResult>);
}

/// Probes over the network, each a task of its own: a slow one delays no other.
pub struct NetworkProber {
    runtime: Handle,
    /// Bounds the descriptors in use.
    permits: Arc<Semaphore>,
}

impl NetworkProber {
    /// Probes that run on that runtime, so many at once. With fewer than there are dead backends, these delay the
    /// checks of the others.
    pub fn new(runtime: Handle, concurrent: usize) -> Self {
        Self { runtime, permits: Arc::new(Semaphore::new(concurrent)) }
    }
}

impl Prober for NetworkProber {
    fn start(&mut self, probe: Probe, results: &mpsc::Sender<ProbeResult>) {
        let (permits, results) = (Arc::clone(&self.permits), results.clone());
        self.runtime.spawn(async move {
            // Neither is ever closed while the agent runs; when it stops, nobody waits for the result.
            let Ok(_permit) = permits.acquire().await else { return };
            let began = Instant::now();
            let outcome = match probe.check.spec.kind {
                HealthType::Tcp => tcp::connect(probe.check.target, probe.check.spec.timeout).await,
            };
            let _ = results.send(ProbeResult { id: probe.id, outcome, took: began.elapsed() }).await;
        });
    }
}
