//! `cargo xtask build`: the BPF objects, then the agent that embeds them.

use std::path::PathBuf;

use anyhow::Result;

use crate::artifacts;
use crate::bpf;
use crate::prebuilt;
use crate::setup::{self, Need, Ready};
use crate::workspace;

/// What to build.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Build the BPF objects alone
    #[arg(long)]
    bpf_only: bool,
    /// Put the built BPF objects into lb-ebpf/prebuilt, to be committed
    #[arg(long)]
    update_prebuilt: bool,
}

/// Runs the verb.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let ready = setup::ensure(Need::Build)?;
    bpf::build(&ready.bpf)?;
    if arguments.update_prebuilt {
        prebuilt::update(&ready.bpf)?;
    }
    for object in &bpf::OBJECTS {
        println!("built {}", workspace::display(&workspace::bpf_objects().join(object.file)));
    }
    if !arguments.bpf_only {
        println!("built {}", workspace::display(&agent_binary()?));
    }
    Ok(())
}

/// Builds BPF objects and agent, and returns the agent's path.
pub(crate) fn agent(ready: &Ready) -> Result<PathBuf> {
    bpf::build(&ready.bpf)?;
    agent_binary()
}

fn agent_binary() -> Result<PathBuf> {
    artifacts::release_binary("lb-agent", "lb-agent")
}
