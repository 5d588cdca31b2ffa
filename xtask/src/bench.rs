//! `cargo xtask bench`: nanoseconds per packet, measured in the kernel.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::artifacts;
use crate::bpf;
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
}

/// Runs the verb: this process becomes the bench.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let ready = setup::ensure(Need::Demo)?;
    bpf::build(&ready.bpf)?;
    let bench = artifacts::release_binary("lb-tests", "lb-bench")?;
    let objects = workspace::bpf_objects();
    let mut command = process::as_root(&bench, &process::passed_on(&[("LB_BPF_DIR", objects.as_os_str())]))?;
    if let Some(file) = &arguments.json {
        command.arg("--json").arg(file);
    }
    if arguments.quick {
        command.arg("--quick");
    }
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", bench.display()))
}
