//! The test executables: built as the user, found by asking cargo, run at their level.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

use super::tally::{Reader, Tally};
use super::{Level, threads};
use crate::artifacts::{self, Artifact};
use crate::process::{self, Step};
use crate::workspace;

/// A test executable and the level it belongs to.
pub(crate) struct Suite {
    pub(super) level: Level,
    artifact: Artifact,
}

/// What the suites of one level find in their environment.
pub(crate) struct Environment {
    needs_root: bool,
    variables: Vec<(OsString, OsString)>,
}

/// Builds every test of the workspace, in one go so that all share their dependencies.
pub(crate) fn build() -> Result<Vec<Suite>> {
    let step = Step { name: "build the tests", way_round: "see the compiler's messages above" };
    let artifacts = artifacts::build(&step, &["test", "--workspace", "--no-run"])?;
    let suites = artifacts.into_iter().filter(|artifact| artifact.is_test);
    Ok(suites.map(|artifact| Suite { level: level_of(&artifact), artifact }).collect())
}

/// Unit tests need no root wherever they are; of the integration suites, the name says it.
fn level_of(artifact: &Artifact) -> Level {
    let is_in_tests_crate = artifact.directory == workspace::root().join("tests");
    match artifact.name.as_str() {
        _ if artifact.kind != "test" || !is_in_tests_crate => Level::Host,
        name if name.starts_with("host") => Level::Host,
        name if name.starts_with("kernel") => Level::Kernel,
        _ => Level::EndToEnd,
    }
}

impl Environment {
    pub(super) fn of(level: Level, agent: Option<&Path>) -> Self {
        let mut own = vec![("LB_BPF_DIR", workspace::bpf_objects().into_os_string())];
        own.extend(agent.map(|path| ("LB_AGENT", path.into())));
        let is_told = std::env::var_os("RUST_TEST_THREADS").is_some();
        let threads = threads(level).filter(|_| !is_told);
        own.extend(threads.map(|threads| ("RUST_TEST_THREADS", threads.to_string().into())));
        let own: Vec<_> = own.iter().map(|(name, value)| (*name, value.as_os_str())).collect();
        Self { needs_root: level.needs_root(), variables: process::passed_on(&own) }
    }

    fn command(&self, artifact: &Artifact) -> Result<Command> {
        // As cargo does it; property tests look there for regressions.
        let mut variables = self.variables.clone();
        variables.push(("CARGO_MANIFEST_DIR".into(), artifact.directory.clone().into_os_string()));
        let mut command = if self.needs_root {
            process::as_root(&artifact.executable, &variables)?
        } else {
            let mut command = Command::new(&artifact.executable);
            command.envs(variables);
            command
        };
        command.current_dir(&artifact.directory);
        Ok(command)
    }
}

impl Suite {
    /// Runs it to its end, showing what it says.
    pub(super) fn run(&self, environment: &Environment, filter: &[String]) -> Result<Tally> {
        println!("\n--- {} {} ({})", self.package(), self.artifact.name, self.artifact.kind);
        let mut command = environment.command(&self.artifact)?;
        run_harness(command.args(filter))
    }

    fn package(&self) -> String {
        self.artifact.directory.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// Runs the examples in the documentation of the libraries.
pub(super) fn run_documentation_tests(filter: &[String]) -> Result<Tally> {
    println!("\n--- examples in documentation");
    let mut command = process::cargo();
    command.current_dir(workspace::root()).args(["test", "--workspace", "--doc", "--"]);
    run_harness(command.args(filter))
}

/// Runs a command that prints what Rust's test harness prints, and shows all of it.
pub(super) fn run_harness(command: &mut Command) -> Result<Tally> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failure = || format!("cannot run {program}");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(failure)?;
    let output = child.stdout.take().with_context(failure)?;
    let asides = child.stderr.take().with_context(failure)?;
    let reader = Mutex::new(Reader::default());
    // Both at once: a child that fills one pipe while the other is being read would wait for ever.
    std::thread::scope(|scope| {
        let asides = scope.spawn(|| {
            each_line(asides, |line| {
                eprintln!("{line}");
                lock(&reader).aside(line);
            })
        });
        each_line(output, |line| {
            println!("{line}");
            lock(&reader).output(line);
        })?;
        asides.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
    .with_context(failure)?;
    let status = child.wait().with_context(failure)?;
    if !status.success() {
        println!("{program}: {status}");
    }
    Ok(reader.into_inner().unwrap_or_else(PoisonError::into_inner).finish(&program, status.success()))
}

fn each_line(pipe: impl Read, mut take: impl FnMut(&str)) -> io::Result<()> {
    for line in BufReader::new(pipe).split(b'\n') {
        take(&String::from_utf8_lossy(&line?));
    }
    Ok(())
}

/// A count is whole after any panic: nothing is left half-done under the lock.
fn lock(reader: &Mutex<Reader>) -> MutexGuard<'_, Reader> {
    reader.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(package: &str, kind: &str, name: &str) -> Level {
        level_of(&Artifact {
            name: name.to_owned(),
            kind: kind.to_owned(),
            is_test: true,
            directory: workspace::root().join(package),
            executable: "/x".into(),
        })
    }

    #[test]
    fn a_suite_s_name_says_its_level() {
        assert_eq!(level("tests", "test", "kernel"), Level::Kernel);
        assert_eq!(level("tests", "test", "kernel_random"), Level::Kernel);
        assert_eq!(level("tests", "test", "host_mutated"), Level::Host);
        assert_eq!(level("tests", "test", "end_to_end"), Level::EndToEnd);
        assert_eq!(level("tests", "test", "cli"), Level::EndToEnd);
    }

    #[test]
    fn unit_tests_run_on_the_host() {
        assert_eq!(level("tests", "lib", "lb_tests"), Level::Host);
        assert_eq!(level("lb-common", "lib", "lb_common"), Level::Host);
        assert_eq!(level("lb-agent", "test", "kernel"), Level::Host);
    }

    #[test]
    fn a_program_that_is_no_harness_has_failed() {
        assert_eq!(run_harness(&mut Command::new("true")).unwrap().failed, 1);
        assert_eq!(run_harness(&mut Command::new("false")).unwrap().failed, 1);
    }
}
