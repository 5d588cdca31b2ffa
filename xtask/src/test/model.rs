//! The flow table's protocol under loom, which runs the real code over all interleavings of threads and stale reads.
//!
//! A build of its own, in its own directory: the flag that makes loom watch every word would make everything else anew.

use std::process::Command;

use anyhow::Result;

use super::suites::run_harness;
use super::tally::Tally;
use crate::workspace;

/// Runs the models.
pub(super) fn run(filter: &[String]) -> Result<Tally> {
    // Nothing else can run on words that loom watches.
    if !filter.is_empty() && !filter.iter().any(|name| name.contains("model")) {
        return Ok(Tally::default());
    }
    println!("\nmodels (loom)");
    let root = workspace::root();
    let mut command = Command::new("cargo");
    command
        .current_dir(root)
        .args(["test", "--release", "--lib", "-p", "lb-ebpf", "--", "flows::model::"])
        .env("RUSTFLAGS", "--cfg loom")
        .env("CARGO_TARGET_DIR", root.join("target/loom"));
    run_harness(&mut command)
}
