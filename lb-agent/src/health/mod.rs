//! Whether backends are fit: what is due when ([`Scheduler`], which does no I/O), and the checks themselves.

mod grpc;
mod http;
mod icmp;
mod reason;
mod recorded;
mod scheduler;
mod tcp;
mod tls;
mod udp;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::time;

use crate::model::CheckAction;
pub use scheduler::{Check, Failing, Health, Probe, Scheduler, Transition};
use tls::Tls;

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
    tls: Tls,
}

impl NetworkProber {
    /// Probes that run on that runtime, so many at once. With fewer than there are dead backends, these delay the
    /// checks of the others.
    pub fn new(runtime: Handle, concurrent: usize) -> Self {
        Self { runtime, permits: Arc::new(Semaphore::new(concurrent)), tls: Tls::of_this_host() }
    }
}

impl Prober for NetworkProber {
    fn start(&mut self, probe: Probe, results: &mpsc::Sender<ProbeResult>) {
        let (permits, results, tls) = (Arc::clone(&self.permits), results.clone(), self.tls.clone());
        self.runtime.spawn(async move {
            // Neither is ever closed while the agent runs; when it stops, nobody waits for the result.
            let Ok(_permit) = permits.acquire().await else { return };
            let began = Instant::now();
            let outcome = carry_out(&probe.check, &tls).await;
            let outcome = outcome.map_err(|reason| format!("{}: {reason}", probe.check));
            let _ = results.send(ProbeResult { id: probe.id, outcome, took: began.elapsed() }).await;
        });
    }
}

/// Makes a check; why it failed, if it did.
async fn carry_out(check: &Check, tls: &Tls) -> Result<(), String> {
    let target = check.target;
    let action = async {
        match &*check.spec.action {
            CheckAction::Tcp => tcp::check(target).await,
            CheckAction::Http(request) => http::check(tcp::connect(target).await?, target, request).await,
            CheckAction::Https(request, policy) => {
                let stream =
                    tls.connect(tcp::connect(target).await?, policy, request.host.as_deref()).await?;
                http::check(stream, target, request).await
            }
            CheckAction::Grpc { service } => grpc::check(tcp::connect(target).await?, target, service).await,
            CheckAction::Udp { send, expect } => udp::check(target, send, expect.as_ref()).await,
            CheckAction::Icmp => icmp::check(target.ip()).await,
        }
    };
    let timeout = check.spec.timeout;
    time::timeout(timeout.duration(), action)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {timeout}")))
}
