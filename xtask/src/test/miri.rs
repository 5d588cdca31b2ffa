//! The pure crates under Miri: an interpreter that refuses undefined behaviour. It needs a nightly compiler, the only
//! thing here that does; where none can be had the level is skipped, aloud.

use std::process::Command;

use anyhow::{Context, Result};

use super::suites::run_harness;
use super::tally::Tally;
use crate::process::{self, Step};
use crate::workspace;

const TOOLCHAIN: &str = "nightly";

/// Cases of a property test, where 256 is usual: Miri is some hundred times slower than the machine.
const PROPTEST_CASES: &str = "8";

/// Runs the level.
pub(super) fn run(filter: &[String]) -> Result<Tally> {
    if let Err(reason) = ensure() {
        println!("SKIPPED level miri: {reason:#}");
        return Ok(Tally { skipped: 1, ..Tally::default() });
    }
    let mut command = Command::new("rustup");
    command
        .current_dir(workspace::root())
        .args([
            "run",
            TOOLCHAIN,
            "cargo",
            "miri",
            "test",
            "--quiet",
            "-p",
            "lb-common",
            "-p",
            "lb-ebpf",
            "--lib",
        ])
        .arg("--")
        .args(filter)
        // Property tests read the environment and the clock.
        .env("MIRIFLAGS", "-Zmiri-disable-isolation")
        .env("PROPTEST_CASES", PROPTEST_CASES)
        .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true")
        .env_remove("RUSTFLAGS");
    run_harness(&mut command)
}

/// Brings a nightly compiler with Miri.
fn ensure() -> Result<()> {
    if has_miri() {
        return Ok(());
    }
    process::find("rustup").context("Miri comes by rustup, which is not installed")?;
    println!("setup: adding Miri to the nightly compiler (rustup toolchain install)");
    let step = Step {
        name: "install Miri",
        way_round: "check the network, or leave this level out: it is run by continuous integration",
    };
    step.run_quietly(Command::new("rustup").args([
        "toolchain",
        "install",
        TOOLCHAIN,
        "--profile=minimal",
        "--component=miri,rust-src",
    ]))
}

fn has_miri() -> bool {
    let list =
        Command::new("rustup").args(["component", "list", "--toolchain", TOOLCHAIN, "--installed"]).output();
    list.is_ok_and(|output| {
        let text = String::from_utf8_lossy(&output.stdout);
        ["miri", "rust-src"].iter().all(|wanted| text.lines().any(|line| line.starts_with(wanted)))
    })
}
