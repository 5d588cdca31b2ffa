//! `/metrics`: everything that is counted, for Prometheus.
//!
//! Counters of traffic are those of the data plane, for each backend: they outlive the agent, and a service's are the sum
//! of its backends', which is for whoever asks to make (of rates, not of counters: a backend that goes takes its counter with
//! it). So no series ever goes back but where its backend, or the data plane, was made anew.

mod exposition;
mod families;
mod process;

#[cfg(test)]
mod tests;

use crate::api::tcp::HttpCounts;
use crate::control::{BackendNow, Snapshot};
use exposition::Exposition;
pub use exposition::Format;
use families::FAMILIES;
pub use process::Process;

/// What is written from.
pub struct Source<'a> {
    /// What the control task tells.
    pub snapshot: &'a Snapshot,
    /// What became of requests over TCP.
    pub http: HttpCounts,
    /// What the process uses, where that is known.
    pub process: Option<Process>,
}

/// The whole text.
pub fn text(source: &Source<'_>, format: Format) -> String {
    let source = Prepared { backends: backends(source.snapshot), source };
    let mut text = Exposition::new(format);
    for family in FAMILIES {
        (family.write)(&source, &mut text.family(&family.head));
    }
    text.finish()
}

/// What is written from, with the labels made that each family needs anew.
struct Prepared<'a> {
    source: &'a Source<'a>,
    backends: Vec<([String; 2], &'a BackendNow)>,
}

fn backends(snapshot: &Snapshot) -> Vec<([String; 2], &BackendNow)> {
    let labels =
        |((service, address), now)| ([ToString::to_string(service), ToString::to_string(address)], now);
    let pairs = snapshot.backends.iter().map(|((service, address), now)| ((service, address), now));
    pairs.map(labels).collect()
}
