//! The log of the diagnostics build of the program, one line for each packet, passed on to the agent's own log.

use anyhow::anyhow;
use aya::Ebpf;
use aya_log::EbpfLogger;
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

/// To the agent's log, at its debug level.
struct Forward;

impl Log for Forward {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        tracing::enabled!(target: "lb_ebpf", tracing::Level::DEBUG)
    }

    fn log(&self, record: &Record<'_>) {
        tracing::debug!(target: "lb_ebpf", "{}", record.args());
    }

    fn flush(&self) {}
}
