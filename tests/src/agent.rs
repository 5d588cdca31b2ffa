//! The agent under test: a real `lb-agent run` in the balancer's namespace, driven through its command line.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::netns::{Handle, Namespace, unique_name};
use crate::process::{self, Process};
use crate::refusal;
use crate::residue::BPF_FS;
use crate::topology::Topology;
use crate::wait;

/// How long the agent may take to load its programs and answer: the verifier on a machine that is ten times as busy as
/// it can be takes more than half a minute.
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// How long the agent may take to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(15);

/// Which agent to run, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The `lb-agent` binary.
    pub binary: PathBuf,
    /// Flow table size.
    pub flows: u32,
    /// Whether the agent adds the VIPs to the interfaces.
    pub manage_vips: bool,
    /// Ports that full NAT takes; the agent's own choice if nothing is said.
    pub source_ports: Option<&'static str>,
    /// A system call, by its number, that the kernel refuses to the agent as one that it does not know (`EINVAL`).
    pub refused: Option<libc::c_long>,
}

impl Default for Settings {
    /// The binary of `LB_AGENT`, or what `cargo xtask build` leaves; a small flow table, as suites run several agents.
    fn default() -> Self {
        Self { binary: default_binary(), flows: 65_536, manage_vips: true, source_ports: None, refused: None }
    }
}

/// A running agent; dropping it detaches the data plane and removes all its files.
#[derive(Debug)]
pub struct Agent {
    settings: Settings,
    namespace: Handle,
    directory: PathBuf,
    pin_dir: PathBuf,
    process: Option<Process>,
}

/// What a command of the agent's command line did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The exit status; 128 and the signal's number for a command that died of one.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Agent {
    /// Starts an agent on the topology's balancer and waits until it answers.
    ///
    /// # Errors
    /// When there is no binary, or the agent does not come up: with its log.
    pub fn start(topology: &Topology) -> Result<Self> {
        Self::start_with(topology, Settings::default())
    }

    /// [`Agent::start`] with other settings.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn start_with(topology: &Topology, settings: Settings) -> Result<Self> {
        Self::start_in(&topology.balancer, topology.balancer_interfaces(), settings)
    }

    /// Starts an agent in a namespace, on interfaces of it, and waits until it answers.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn start_in(namespace: &Namespace, interfaces: &[&str], settings: Settings) -> Result<Self> {
        ensure!(
            settings.binary.is_file(),
            "there is no agent at {}: run `cargo xtask build`, or name one with LB_AGENT",
            settings.binary.display()
        );
        let name = unique_name("agent");
        let mut agent = Self {
            settings,
            namespace: namespace.handle(),
            directory: std::env::temp_dir().join(&name),
            pin_dir: Path::new(BPF_FS).join(&name),
            process: None,
        };
        std::fs::create_dir(&agent.directory)
            .with_context(|| format!("cannot create {}", agent.directory.display()))?;
        std::fs::write(agent.config(), agent.config_text(interfaces))?;
        agent.run()?;
        Ok(agent)
    }

    /// Starts the agent again after [`Agent::terminate`] or [`Agent::kill`], and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up: with its log.
    pub fn run(&mut self) -> Result<()> {
        let mut command = self.command();
        command.arg("run").arg("--config").arg(self.config());
        if let Some(number) = self.settings.refused {
            refusal::refuse(&mut command, number, libc::EINVAL);
        }
        let mut process = Process::spawn(command, &self.log())?;
        wait::until(START_TIMEOUT, "the agent answers `status`", || {
            if let Some(status) = process.ended()? {
                anyhow::bail!("the agent ended ({status}); its log:\n{}", process.log_tail());
            }
            Ok(self.cli(["status"])?.is_success().then_some(()))
        })
        .with_context(|| format!("the agent's log:\n{}", process.log_tail()))?;
        self.process = Some(process);
        Ok(())
    }

    /// Asks the agent to stop, and waits until it has.
    ///
    /// # Errors
    /// When it does not, or not with success.
    pub fn terminate(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the agent is not running")?;
        process.signal(Signal::TERM)?;
        let status = process.wait(STOP_TIMEOUT)?;
        ensure!(status.success(), "SIGTERM ended the agent with {status}; its log:\n{}", process.log_tail());
        Ok(())
    }

    /// Kills the agent as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// When it is not running.
    pub fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the agent is not running")?;
        process.signal(Signal::KILL)?;
        process.wait(STOP_TIMEOUT).map(drop)
    }

    /// Sends the daemon a signal.
    ///
    /// # Errors
    /// When it is not running.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.as_ref().context("the agent is not running")?.signal(signal)
    }

    /// Whether the agent's process runs.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| matches!(process.ended(), Ok(None)))
    }

    /// The daemon's process.
    ///
    /// # Errors
    /// When it is not running.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("the agent is not running")?.pid())
    }

    /// Runs a command of the command line against this agent, with whatever outcome.
    ///
    /// # Errors
    /// When it cannot be run or hangs.
    pub fn cli<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Reply> {
        let mut command = self.command();
        command.arg("--socket").arg(self.socket()).args(arguments);
        Ok(process::run(command, COMMAND_TIMEOUT)?.into())
    }

    /// Runs a command that must succeed; returns what it printed.
    ///
    /// # Errors
    /// When it fails: with what it said and the agent's log.
    pub fn must<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<String> {
        let words: Vec<_> = arguments.into_iter().map(|word| word.as_ref().to_owned()).collect();
        let reply = self.cli(&words)?;
        let line = words.join(OsStr::new(" "));
        ensure!(
            reply.is_success(),
            "`lb-agent {}` failed ({}): {}\nthe agent's log:\n{}",
            line.display(),
            reply.status,
            reply.stderr.trim(),
            self.log_tail()
        );
        Ok(reply.stdout)
    }

    /// Runs a command that must succeed, with `-o json`; returns what it printed.
    ///
    /// # Errors
    /// When it fails or prints something else.
    pub fn json<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Value> {
        let mut words = vec!["-o".into(), "json".into()];
        words.extend(arguments.into_iter().map(|word| word.as_ref().to_owned()));
        let text = self.must(&words)?;
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }

    /// How often `status` has counted a reason or an event, over all services.
    ///
    /// # Errors
    /// When the command fails or there is no counter of that name.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let status = self.json(["status"])?;
        let find = |list: &str, kind: &str, count: &str| {
            let row = status[list].as_array()?.iter().find(|row| row[kind] == name)?;
            row[count].as_u64()
        };
        find("reasons", "reason", "packets")
            .or_else(|| find("events", "event", "count"))
            .with_context(|| format!("no counter {name} in {status}"))
    }

    /// One row of `backend list`, as JSON; none when there is no such backend.
    ///
    /// # Errors
    /// When the command fails.
    pub fn backend(&self, service: &str, address: &str) -> Result<Option<Value>> {
        let list = self.json(["backend", "list", service])?;
        let rows = list.as_array().context("`backend list` did not print an array")?;
        Ok(rows.iter().find(|row| row["address"] == address).cloned())
    }

    /// Waits until a field of a backend has a value, such as `health` `unhealthy`.
    ///
    /// # Errors
    /// When it does not within `timeout`.
    pub fn await_backend(
        &self,
        service: &str,
        address: &str,
        field: &str,
        value: &str,
        timeout: Duration,
    ) -> Result<()> {
        let mut last = Value::Null;
        let what = format!("{field} of backend {address} of {service} is {value}");
        wait::until(timeout, &what, || {
            last = self.backend(service, address)?.map_or(Value::Null, |row| row[field].clone());
            Ok((last == value).then_some(()))
        })
        .with_context(|| format!("the agent's log:\n{}", self.log_tail()))
    }

    /// Waits until the backend is no longer listed.
    ///
    /// # Errors
    /// When it still is after `timeout`.
    pub fn await_removed(&self, service: &str, address: &str, timeout: Duration) -> Result<()> {
        let what = format!("backend {address} of {service} is removed");
        wait::until(timeout, &what, || Ok(self.backend(service, address)?.is_none().then_some(())))
    }

    /// Takes programs, links and maps down, as `lb-agent detach` does.
    ///
    /// # Errors
    /// When the command fails.
    pub fn detach(&self) -> Result<()> {
        let mut command = self.command();
        command.arg("detach").arg("--config").arg(self.config());
        process::must(command, COMMAND_TIMEOUT).map(drop)
    }

    /// A command with this agent's binary, in the balancer's namespace.
    #[must_use]
    pub fn command(&self) -> Command {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(&self.settings.binary);
        let namespace = self.namespace.clone();
        // SAFETY: between fork and exec the closure makes one system call on a descriptor that it owns; it neither
        // allocates nor takes a lock.
        unsafe { command.pre_exec(move || namespace.enter().map_err(Into::into)) };
        command.env("NO_COLOR", "1");
        command
    }

    /// Where the programs, links and maps are pinned.
    #[must_use]
    pub fn pin_dir(&self) -> &Path {
        &self.pin_dir
    }

    /// The agent's API socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("agent.sock")
    }

    /// The agent's configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.directory.join("config.toml")
    }

    /// A directory of this agent's own, removed with it, for a test's files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The end of the agent's log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        process::log_tail(&self.log())
    }

    fn log(&self) -> PathBuf {
        self.directory.join("agent.log")
    }

    fn config_text(&self, interfaces: &[&str]) -> String {
        let Settings { flows, manage_vips, source_ports, .. } = self.settings;
        let source_ports =
            source_ports.map(|range| format!("source_ports = {range:?}\n")).unwrap_or_default();
        format!(
            "interfaces = {interfaces:?}\nstate_dir = {:?}\nsocket = {:?}\npin_dir = {:?}\nmanage_vips = {manage_vips}\n\n\
             [limits]\nflows = {flows}\n{source_ports}",
            self.directory.join("state"),
            self.socket(),
            self.pin_dir
        )
    }

    fn take_down(&mut self) {
        self.process = None;
        if let Err(error) = self.detach() {
            eprintln!("warning: {error:#}");
        }
        for leftover in [&self.pin_dir, &self.directory] {
            if leftover.exists() && std::fs::remove_dir_all(leftover).is_err() {
                eprintln!("warning: cannot remove {}", leftover.display());
            }
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the agent's log:\n{}", self.log_tail());
        }
        self.take_down();
    }
}

impl Reply {
    /// Whether the exit status is 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.status == 0
    }
}

impl From<Output> for Reply {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let signal = || 128 + output.status.signal().unwrap_or(0);
        Self {
            status: output.status.code().unwrap_or_else(signal),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The agent to test when none is named: that of `LB_AGENT`, or what `cargo xtask build` leaves in this workspace.
#[must_use]
pub fn default_binary() -> PathBuf {
    match std::env::var_os("LB_AGENT") {
        Some(path) => path.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/lb-agent"),
    }
}
