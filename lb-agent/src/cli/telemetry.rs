//! The daemon's log: structured lines on stderr.

use std::io::{self, IsTerminal as _};

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

/// Starts logging. `RUST_LOG` decides what is logged, where it is set; else `-v` and `-q` do.
pub(super) fn start(verbose: u8, is_quiet: bool) -> anyhow::Result<()> {
    let default = match (is_quiet, verbose) {
        (true, _) => "warn",
        (false, 0) => "info",
        (false, 1) => "lb_agent=debug,info",
        (false, _) => "trace",
    };
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) => {
            EnvFilter::try_new(&directives).with_context(|| format!("RUST_LOG={directives}"))?
        }
        Err(_) => EnvFilter::new(default),
    };
    let is_coloured = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(is_coloured).init();
    Ok(())
}
