//! `cargo xtask bench`: nanoseconds per packet, measured in the kernel.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::artifacts;
use crate::bpf;
use crate::build;
use crate::packages;
use crate::process;
use crate::setup::{self, Need};
use crate::workspace;

/// What the bench is told.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write the rows as an array of objects
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fewer rounds: to see that it runs, not to quote
    #[arg(long)]
    quick: bool,
    /// Measure whole requests instead, beside nftables, HAProxy and nginx
    #[arg(long, conflicts_with = "json")]
    peers: bool,
    /// Send frames through a veth pair instead, beside swap-and-transmit and nftables
    #[arg(long, conflicts_with_all = ["json", "peers", "scale"])]
    chain: bool,
    /// Fill the flow table of a running agent instead: memory, sweep and list
    #[arg(long, conflicts_with_all = ["json", "quick", "peers"])]
    scale: bool,
}

/// Runs the verb: this process becomes the bench.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let ready = setup::ensure(Need::Demo)?;
    bpf::build(&ready.bpf)?;
    let bench = artifacts::release_binary("lb-tests", "lb-bench")?;
    let objects = workspace::bpf_objects();
    let mut variables = vec![("LB_BPF_DIR", objects.into_os_string())];
    if arguments.peers {
        packages::ensure_peers()?;
    }
    if arguments.peers || arguments.scale {
        variables.push(("LB_AGENT", build::agent()?.into()));
    }
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_os_str())).collect();
    let mut command = process::as_root(&bench, &process::passed_on(&variables))?;
    if let Some(file) = &arguments.json {
        command.arg("--json").arg(file);
    }
    if arguments.peers {
        command.arg("--peers");
    }
    if arguments.chain {
        command.arg("--chain");
    }
    if arguments.scale {
        command.arg("--scale");
    }
    if arguments.quick {
        command.arg("--quick");
    }
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", bench.display()))
}
