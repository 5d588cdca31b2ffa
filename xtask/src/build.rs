//! `cargo xtask build`: the BPF objects, then the agent that embeds them.

use anyhow::Result;

use crate::bpf;
use crate::process::{self, Step};
use crate::setup::{self, Need};
use crate::workspace;

/// What to build.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Build the BPF objects alone
    #[arg(long)]
    bpf_only: bool,
}

/// Runs the verb.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let ready = setup::ensure(Need::Build)?;
    bpf::build(&ready.bpf)?;
    for object in &bpf::OBJECTS {
        println!("built {}", workspace::display(&workspace::bpf_objects().join(object.file)));
    }
    if arguments.bpf_only {
        return Ok(());
    }
    Step { name: "build the agent", way_round: "see the compiler's messages above" }.run(
        process::cargo()
            .current_dir(workspace::root())
            .args(["build", "--release", "--package", "lb-agent"])
            .env("LB_BPF_DIR", workspace::bpf_objects()),
    )
}
