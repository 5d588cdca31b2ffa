//! Builds with cargo, and what came of them: cargo says itself where it put each executable.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{self, Step};
use crate::workspace;

/// An executable that cargo built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Artifact {
    /// Name of the target: a library's, binary's or suite's.
    pub(crate) name: String,
    /// `lib`, `bin`, `test`, ...
    pub(crate) kind: String,
    /// Whether it is a test harness.
    pub(crate) is_test: bool,
    /// The package's directory, in which its tests run.
    pub(crate) directory: PathBuf,
    /// The file to run.
    pub(crate) executable: PathBuf,
}

/// Runs cargo with these arguments and returns the executables.
pub(crate) fn build(step: &Step<'_>, arguments: &[&str]) -> Result<Vec<Artifact>> {
    let mut command = process::cargo();
    command
        .current_dir(workspace::root())
        .args(arguments)
        .arg("--message-format=json-render-diagnostics")
        .env("LB_BPF_DIR", workspace::bpf_objects())
        .stderr(Stdio::inherit());
    let messages = step.output(&mut command)?;
    messages.lines().filter_map(|line| artifact(line).transpose()).collect()
}

/// Builds one binary for release and returns its path.
pub(crate) fn release_binary(package: &str, name: &str) -> Result<PathBuf> {
    let step = Step { name: &format!("build {name}"), way_round: "see the compiler's messages above" };
    let artifacts = build(&step, &["build", "--release", "--package", package, "--bin", name])?;
    let Some(artifact) =
        artifacts.into_iter().find(|artifact| artifact.name == name && artifact.kind == "bin")
    else {
        bail!("cargo built {name} of package {package}, but did not say where it is");
    };
    Ok(artifact.executable)
}

/// Reads one of cargo's messages; most are about something else.
fn artifact(line: &str) -> Result<Option<Artifact>> {
    let message: Value =
        serde_json::from_str(line).with_context(|| format!("cargo's message is not JSON: {line:?}"))?;
    if message["reason"] != "compiler-artifact" {
        return Ok(None);
    }
    let Some(executable) = message["executable"].as_str() else { return Ok(None) };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let parts = || {
        Some(Artifact {
            name: text(&message["target"]["name"])?,
            kind: text(&message["target"]["kind"][0])?,
            is_test: message["profile"]["test"].as_bool()?,
            directory: PathBuf::from(message["manifest_path"].as_str()?).parent()?.to_owned(),
            executable: executable.into(),
        })
    };
    parts().map(Some).with_context(|| format!("cargo's message lacks a field: {line:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_is_read_from_cargo_s_message() {
        let line = r#"{"reason":"compiler-artifact","package_id":"x","manifest_path":"/w/tests/Cargo.toml",
            "target":{"kind":["test"],"name":"kernel"},"profile":{"test":true},"executable":"/w/target/debug/deps/kernel-1"}"#;
        let expected = Artifact {
            name: "kernel".to_owned(),
            kind: "test".to_owned(),
            is_test: true,
            directory: "/w/tests".into(),
            executable: "/w/target/debug/deps/kernel-1".into(),
        };
        assert_eq!(artifact(line).unwrap(), Some(expected));
    }

    #[test]
    fn other_messages_are_passed_over_and_nonsense_is_refused() {
        assert_eq!(artifact(r#"{"reason":"build-finished","success":true}"#).unwrap(), None);
        assert_eq!(artifact(r#"{"reason":"compiler-artifact","executable":null}"#).unwrap(), None);
        assert!(artifact(r#"{"reason":"compiler-artifact","executable":"/x"}"#).is_err());
        assert!(artifact("warning: hello").is_err());
    }
}
