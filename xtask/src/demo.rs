//! `cargo xtask demo`: real traffic through the balancer, in network namespaces.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::artifacts;
use crate::bpf;
use crate::process;
use crate::setup::{self, Need};
use crate::workspace;

/// What the demonstration is told.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long traffic runs, over all steps
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub(crate) seconds: u32,
    /// Hold the lab open at the end, until Ctrl-C
    #[arg(long)]
    pub(crate) keep: bool,
    /// Write what each step counted
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Runs the verb: this process becomes the demonstration, so that Ctrl-C and the exit status are its own.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut command = command(arguments)?;
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))
}

/// Builds all that the demonstration needs, and returns the command that runs it as root.
pub(crate) fn command(arguments: &Arguments) -> Result<Command> {
    let ready = setup::ensure(Need::Demo)?;
    bpf::build(&ready.bpf)?;
    // Not optimised: the kernel carries the packets, and compiling takes half as long.
    let [agent, demo] = artifacts::binaries(&[], [("lb-agent", "lb-agent"), ("lb-tests", "lb-demo")])?;
    let objects = workspace::bpf_objects();
    let mut command = process::as_root(&demo, &process::passed_on(&[("LB_BPF_DIR", objects.as_os_str())]))?;
    command.arg("--agent").arg(&agent).args(["--seconds", &arguments.seconds.to_string()]);
    if arguments.keep {
        command.arg("--keep");
    }
    if let Some(file) = &arguments.json {
        command.args([OsStr::new("--json"), file.as_os_str()]);
    }
    Ok(command)
}
