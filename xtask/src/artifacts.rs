//! Builds with cargo, and what came of them: cargo says itself where it put each executable.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result};
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
    let [path] = binaries(&["--release"], [(package, name)])?;
    Ok(path)
}

/// Builds binaries of these packages in one run of cargo, which so compiles what they share once; their paths, in order.
pub(crate) fn binaries<const N: usize>(options: &[&str], wanted: [(&str, &str); N]) -> Result<[PathBuf; N]> {
    let names = wanted.map(|(_, name)| name);
    let step = Step {
        name: &format!("build {}", names.join(" and ")),
        way_round: "see the compiler's messages above",
    };
    let mut arguments = vec!["build"];
    arguments.extend(options);
    arguments.extend(wanted.iter().flat_map(|(package, name)| ["--package", package, "--bin", name]));
    let artifacts = build(&step, &arguments)?;
    let mut paths = names.map(|_| PathBuf::new());
    for (path, name) in paths.iter_mut().zip(names) {
        *path = executable(&artifacts, name)
            .with_context(|| format!("cargo built {name}, but did not say where it is"))?;
    }
    Ok(paths)
}

/// Where the binary of this name is.
fn executable(artifacts: &[Artifact], name: &str) -> Option<PathBuf> {
    let artifact = artifacts.iter().find(|artifact| artifact.name == name && artifact.kind == "bin")?;
    Some(artifact.executable.clone())
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
    fn a_binary_is_found_by_its_name_and_a_test_of_that_name_is_none() {
        let artifact = |name: &str, kind: &str, executable: &str| Artifact {
            name: name.to_owned(),
            kind: kind.to_owned(),
            is_test: kind == "test",
            directory: "/w".into(),
            executable: executable.into(),
        };
        let artifacts = [
            artifact("lb-agent", "test", "/t"),
            artifact("lb-demo", "bin", "/d"),
            artifact("lb-agent", "bin", "/a"),
        ];
        assert_eq!(executable(&artifacts, "lb-agent"), Some("/a".into()));
        assert_eq!(executable(&artifacts, "lb-demo"), Some("/d".into()));
        assert_eq!(executable(&artifacts, "lb-bench"), None);
    }

    #[test]
    fn other_messages_are_passed_over_and_nonsense_is_refused() {
        assert_eq!(artifact(r#"{"reason":"build-finished","success":true}"#).unwrap(), None);
        assert_eq!(artifact(r#"{"reason":"compiler-artifact","executable":null}"#).unwrap(), None);
        assert!(artifact(r#"{"reason":"compiler-artifact","executable":"/x"}"#).is_err());
        assert!(artifact("warning: hello").is_err());
    }
}
