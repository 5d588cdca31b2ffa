//! `cargo xtask lint`: formatting, clippy, documentation, manifests, dependencies, virtual machines' description, the systemd unit.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::bpf;
use crate::bpf_toolchain::BpfToolchain;
use crate::process::{self, Step};
use crate::setup::{self, Need};
use crate::workspace;

/// Runs the verb.
pub(crate) fn run() -> Result<()> {
    let ready = setup::ensure(Need::Build)?;
    bpf::build(&ready.bpf)?;
    let checks: [(&str, &dyn Fn() -> Result<()>); 8] = [
        ("formatting", &formatting),
        ("clippy", &clippy),
        ("clippy for BPF", &|| clippy_for_bpf(&ready.bpf)),
        ("documentation", &documentation),
        ("manifests", &manifests),
        ("dependencies", &dependencies),
        ("virtual machines", &virtual_machines),
        ("systemd unit", &systemd_unit),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        println!("lint: {name}");
        // All are run: whoever repairs one wants to know of the others.
        if let Err(error) = check() {
            eprintln!("error: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("lint failed: {}", failed.join(", "));
    }
    Ok(())
}

fn formatting() -> Result<()> {
    let step = Step { name: "check the formatting", way_round: "run `cargo fmt --all`" };
    step.run(process::cargo().current_dir(workspace::root()).args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    let step = Step { name: "run clippy", way_round: "repair what it says above" };
    step.run(process::cargo().current_dir(workspace::root()).args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-Dwarnings",
    ]))
}

/// The code behind `cfg(target_arch = "bpf")` is seen by no other check.
fn clippy_for_bpf(toolchain: &BpfToolchain) -> Result<()> {
    let BpfToolchain::Compiler(compiler) = toolchain else {
        println!("SKIPPED clippy for BPF: the BPF program is not built here");
        return Ok(());
    };
    if !compiler.builds_core {
        println!("SKIPPED clippy for BPF: the distribution's compiler builds it, without its own clippy");
        return Ok(());
    }
    let step = Step { name: "run clippy on the BPF program", way_round: "repair what it says above" };
    for object in &bpf::OBJECTS {
        let mut command = bpf::cargo(compiler, "clippy", object)?;
        step.run(command.args(["--", "-Dwarnings"]))?;
    }
    Ok(())
}

fn documentation() -> Result<()> {
    let step = Step { name: "build the documentation", way_round: "repair what rustdoc says above" };
    step.run(
        process::cargo()
            .current_dir(workspace::root())
            .args(["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"])
            .env("RUSTDOCFLAGS", "-Dwarnings"),
    )
}

/// The lock file is up to date, and every crate is under the workspace's lints.
fn manifests() -> Result<()> {
    let step = Step { name: "check Cargo.lock", way_round: "run `cargo metadata`, and commit Cargo.lock" };
    let mut command = process::cargo();
    command.current_dir(workspace::root()).args(["metadata", "--locked", "--format-version", "1"]);
    let metadata: Value =
        serde_json::from_str(&step.output(&mut command)?).context("cargo metadata is not JSON")?;
    for manifest in manifests_of_members(&metadata) {
        let text =
            fs::read_to_string(&manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
        if !inherits_lints(&text) {
            bail!("{} does not say `[lints] workspace = true`", workspace::display(&manifest));
        }
    }
    Ok(())
}

fn manifests_of_members(metadata: &Value) -> Vec<PathBuf> {
    let members = metadata["workspace_members"].as_array().map_or(&[][..], Vec::as_slice);
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    packages
        .iter()
        .filter(|package| members.contains(&package["id"]))
        .filter_map(|package| package["manifest_path"].as_str().map(PathBuf::from))
        .collect()
}

fn inherits_lints(manifest: &str) -> bool {
    let mut lines = manifest.lines().map(str::trim);
    lines.any(|line| line == "[lints]") && lines.next() == Some("workspace = true")
}

/// Licences and origins. `cargo deny` takes minutes to build, so it is used where it is and not brought.
fn dependencies() -> Result<()> {
    if process::find("cargo-deny").is_none() {
        println!("SKIPPED dependencies: cargo-deny is not installed (`cargo install cargo-deny`)");
        return Ok(());
    }
    let step = Step { name: "check licences and origins of dependencies", way_round: "see deny.toml" };
    step.run_quietly(
        process::cargo()
            .current_dir(workspace::root())
            .args(["deny", "check", "licenses", "bans", "sources"]),
    )
}

fn virtual_machines() -> Result<()> {
    let directory = workspace::root().join("vagrant");
    let Some(vagrant) = process::find("vagrant") else {
        println!("SKIPPED virtual machines: vagrant is not installed");
        return Ok(());
    };
    let step = Step { name: "validate vagrant/Vagrantfile", way_round: "repair what vagrant says above" };
    step.run_quietly(
        Command::new(vagrant)
            .current_dir(&directory)
            .args(["validate", "--ignore-provider"])
            // Its state belongs to machines, of which none is made here.
            .env("VAGRANT_DOTFILE_PATH", workspace::products().join("vagrant")),
    )
}

/// What the unit leaves the agent, at most, as `systemd-analyze security` counts it: 30 is an exposure of 3.0 of 10.
const MOST_EXPOSED: &str = "30";

fn systemd_unit() -> Result<()> {
    let Some(analyze) = process::find("systemd-analyze") else {
        println!("SKIPPED systemd unit: systemd-analyze is not installed");
        return Ok(());
    };
    let step =
        Step { name: "judge lb-agent/lb-agent.service", way_round: "give it less, see systemd.exec(5)" };
    step.run_quietly(
        Command::new(analyze)
            .args(["security", "--offline=true", "--no-pager", "--threshold", MOST_EXPOSED])
            .arg(workspace::root().join("lb-agent/lb-agent.service")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lints_are_inherited_by_one_form_only() {
        assert!(inherits_lints("[package]\n\n[lints]\nworkspace = true\n"));
        assert!(!inherits_lints("[package]\n\n[lints]\n\nworkspace = false\n"));
        assert!(!inherits_lints("[package]\nname = \"x\"\n"));
    }

    #[test]
    fn members_are_told_from_dependencies() {
        let metadata = serde_json::json!({
            "workspace_members": ["a"],
            "packages": [
                {"id": "a", "manifest_path": "/w/a/Cargo.toml"},
                {"id": "b", "manifest_path": "/registry/b/Cargo.toml"},
            ],
        });
        assert_eq!(manifests_of_members(&metadata), [PathBuf::from("/w/a/Cargo.toml")]);
    }
}
