//! The demo as a program: what it writes, how it ends, and that nothing is left in any case.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use lb_tests::process::{self, Process};
use lb_tests::{agent, needs_root, netns, residue, wait};
use rustix::process::Signal;
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(120);

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lb-demo"));
    command.args(arguments);
    command
}

/// A file in the temporary directory that goes with the guard.
struct Scratch(PathBuf);

impl Scratch {
    fn new(role: &str) -> Self {
        Self(std::env::temp_dir().join(netns::unique_name(role)))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

#[test]
fn it_runs_to_its_end_and_reports_every_step() {
    needs_root!();
    let json = Scratch::new("json");
    let agent = agent::default_binary();
    let mut command = demo(&["--seconds", "9", "--json"]);
    command.arg(json.path()).arg("--agent").arg(agent);
    let output = process::run(command, TIMEOUT).unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}\n{}", stderr(&output));
    assert!(shown.contains("every promise held") && shown.contains("nothing left behind"), "{shown}");
    assert!(!shown.contains('\x1b'), "colours without a terminal: {shown}");

    let steps: Value = serde_json::from_slice(&std::fs::read(json.path()).unwrap()).unwrap();
    let steps = steps.as_array().unwrap();
    let names: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    let expected =
        ["spread", "add", "drain", "remove", "strategy", "kill", "return", "restart", "kill-agent"];
    assert_eq!(names, expected);
    for step in steps {
        assert!(step["requests"].as_u64().unwrap() > 100, "{step}");
        assert!(step["spread"].as_object().unwrap().len() >= 2, "{step}");
        assert!(step["failed"] == 0 || step["step"] == "kill", "{step}");
    }
}

#[test]
fn ctrl_c_takes_everything_down() {
    needs_root!();
    let log = Scratch::new("log");
    let mut command = demo(&["--seconds", "60", "--agent"]);
    command.arg(agent::default_binary());
    let mut demo = Process::spawn(command, log.path()).unwrap();
    let shown = || std::fs::read_to_string(log.path()).unwrap_or_default();
    wait::until(TIMEOUT, "the second step is done", || {
        anyhow::ensure!(demo.ended()?.is_none(), "the demo has ended: {}", shown());
        Ok(shown().contains(" 2  ").then_some(()))
    })
    .unwrap();
    assert!(!residue::of(demo.pid()).is_empty());
    demo.signal(Signal::INT).unwrap();
    let status = demo.wait(TIMEOUT).unwrap();
    assert_eq!(status.code(), Some(130), "{}", shown());
    assert_eq!(residue::of(demo.pid()), []);
}

#[test]
fn an_agent_that_cannot_start_is_reported_and_nothing_is_left() {
    needs_root!();
    for binary in ["/nonexistent/lb-agent", "/bin/false"] {
        let log = Scratch::new("log");
        let mut demo = Process::spawn(demo(&["--agent", binary]), log.path()).unwrap();
        let status = demo.wait(TIMEOUT).unwrap();
        assert_eq!(status.code(), Some(1));
        let shown = demo.log_tail();
        assert!(shown.contains("lb-demo: "), "{shown}");
        assert_eq!(residue::of(demo.pid()), [], "{shown}");
    }
}
