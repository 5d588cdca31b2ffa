//! `lb-agent detach`: takes the data plane down.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::output::Output;
use super::privilege;
use crate::config::Config;
use crate::datapath::kernel::{self, Detached};

/// Takes programs, links, maps and the addresses that the agent added down, and puts the system settings back that it
/// changed. Works without a running agent.
///
/// The saved state stays: `lb-agent run` brings everything back, but for the flows.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  lb-agent detach\n  lb-agent detach --pin-dir /sys/fs/bpf/lb-agent")]
pub(super) struct Arguments {
    /// The configuration file that says where things are pinned [default: /etc/lb-agent/config.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where things are pinned, whatever the configuration says.
    #[arg(long, value_name = "DIR")]
    pin_dir: Option<PathBuf>,
}

impl Arguments {
    pub(super) fn execute(self, output: &Output) -> anyhow::Result<()> {
        privilege::require("detach")?;
        let pin_dir = match self.pin_dir {
            Some(named) => named,
            None => Config::load(self.config.as_deref())?.pin_dir,
        };
        let detached =
            kernel::detach(&pin_dir).with_context(|| format!("cannot detach {}", pin_dir.display()))?;
        if detached.is_empty() {
            output.note(&format!("nothing to take down at {}", pin_dir.display()));
        }
        output.data(&detached, list)
    }
}

fn list(detached: &Detached) -> String {
    let addresses = detached.addresses.iter().map(ToString::to_string);
    let kinds = [
        ("interface", detached.links.clone()),
        ("program", detached.programs.clone()),
        ("map", detached.maps.clone()),
        ("address", addresses.collect()),
        ("setting", detached.settings.clone()),
    ];
    kinds.iter().flat_map(|(kind, names)| names.iter().map(move |name| format!("{kind} {name}\n"))).collect()
}
