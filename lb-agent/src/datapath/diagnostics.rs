//! The log of the diagnostics build of the program, one line for each packet, passed on to the agent's own log.

use anyhow::anyhow;
use aya::Ebpf;
use aya_log::EbpfLogger;
use lb_common::reason::Reason;
use log::{Log, Metadata, Record};

/// The program's log.
pub(super) struct Diagnostics(EbpfLogger<Forward>);

impl Diagnostics {
    /// Takes the log's buffer from the object. Before its programs are loaded, since they refer to it.
    pub(super) fn take(object: &mut Ebpf) -> anyhow::Result<Self> {
        EbpfLogger::init_with_logger(object, Forward)
            .map(Self)
            .map_err(|error| anyhow!("cannot read the program's log: {error}"))
    }

    /// Passes on what was logged since the last call.
    pub(super) fn flush(&mut self) {
        self.0.flush();
    }
}

/// To the agent's log, at its usual level: whoever loads the diagnostics build wants to see it.
struct Forward;

impl Log for Forward {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        tracing::enabled!(target: "lb_ebpf", tracing::Level::INFO)
    }

    fn log(&self, record: &Record<'_>) {
        tracing::info!(target: "lb_ebpf", "{}", with_name(&record.args().to_string()));
    }

    fn flush(&self) {}
}

/// The program's line with the reason's name for its number: a table of strings is more than a BPF program can have.
fn with_name(line: &str) -> String {
    line.split(' ')
        .map(|word| match word.strip_prefix("reason=").and_then(|number| number.parse::<usize>().ok()) {
            Some(number) => {
                format!("reason={}", Reason::ALL.get(number).map_or("unknown", |reason| reason.name()))
            }
            None => word.to_owned(),
        })
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_named() {
        assert_eq!(with_name("ifindex=2 reason=0 action=3"), "ifindex=2 reason=request_forwarded action=3");
        assert_eq!(with_name("ifindex=2 reason=99 action=3"), "ifindex=2 reason=unknown action=3");
    }
}
