//! The pure crates under Miri: an interpreter that refuses undefined behaviour. It needs a nightly compiler, the only
//! thing here that does; where none can be had the level is skipped, aloud.

use std::process::Command;

use anyhow::{Context, Result};

use super::suites::run_harness;
use super::tally::Tally;
use crate::process::{self, Step};
use crate::workspace;

/// Pinned: the same on every machine, and nobody's own nightly is touched.
const PINNED: &str = "nightly-2026-10-30";

/// Taken as it is where it already has Miri, as without network.
const OWN: &str = "nightly";

/// Cases of a property test, where 256 is usual: Miri is some hundred times slower than the machine.
const PROPTEST_CASES: &str = "8";

/// Runs the level.
pub(super) fn run(filter: &[String]) -> Result<Tally> {
    let toolchain = match ensure() {
        Ok(toolchain) => toolchain,
        Err(reason) => {
            println!("SKIPPED level miri: {reason:#}");
            return Ok(Tally::skip());
        }
    };
    let mut command = Command::new("rustup");
    command
        .current_dir(workspace::root())
        .args(["run", toolchain, "cargo", "miri", "test", "--lib", "-p", "lb-common", "-p", "lb-ebpf"])
        .arg("--")
        .args(filter)
        // Property tests read the environment and the clock.
        .env("MIRIFLAGS", "-Zmiri-disable-isolation")
        .env("PROPTEST_CASES", PROPTEST_CASES)
        .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true")
        .env_remove("RUSTFLAGS");
    run_harness(&mut command)
}

/// A nightly compiler with Miri, brought if there is none.
fn ensure() -> Result<&'static str> {
    if let Some(toolchain) = [PINNED, OWN].into_iter().find(|toolchain| has_miri(toolchain)) {
        return Ok(toolchain);
    }
    process::find("rustup").context("Miri comes by rustup, which is not installed")?;
    println!("setup: installing {PINNED} with Miri (rustup toolchain install)");
    let step =
        Step { name: "install Miri", way_round: "check the network, or run the other levels one by one" };
    step.run_quietly(Command::new("rustup").args([
        "toolchain",
        "install",
        PINNED,
        "--no-self-update",
        "--profile=minimal",
        "--component=miri,rust-src",
    ]))?;
    Ok(PINNED)
}

fn has_miri(toolchain: &str) -> bool {
    let list =
        Command::new("rustup").args(["component", "list", "--toolchain", toolchain, "--installed"]).output();
    list.is_ok_and(|output| {
        let text = String::from_utf8_lossy(&output.stdout);
        ["miri", "rust-src"].iter().all(|wanted| text.lines().any(|line| line.starts_with(wanted)))
    })
}
