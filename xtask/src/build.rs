//! `cargo xtask build`: the BPF objects, then the agent that embeds them.

use std::path::PathBuf;

use anyhow::Result;

use crate::artifacts;
use crate::bpf;
use crate::prebuilt;
use crate::setup::{self, Need};
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
        println!("built {}", workspace::display(&agent()?));
    }
    Ok(())
}

/// Builds the agent with the BPF objects that are there, and returns its path.
pub(crate) fn agent() -> Result<PathBuf> {
    artifacts::release_binary("lb-agent", "lb-agent")
}
