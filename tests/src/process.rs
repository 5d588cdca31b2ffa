//! Child processes that end with their guard, and commands that cannot hang.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};

/// How long a process may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// A running child process; dropping it ends it and its process group.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command` in a process group of its own, so that Ctrl-C on the terminal reaches only us and the
    /// guards decide the order in which things end. Output goes to the end of the file `log`.
    ///
    /// # Errors
    /// When the log cannot be written or the program cannot be started.
    pub fn spawn(mut command: Command, log: &Path) -> Result<Self> {
        let name = describe(&command);
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("cannot write the log {}", log.display()))?;
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start `{name}`"))?;
        Ok(Self { child, name, log: log.to_owned() })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process alone, not to its children.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("cannot signal `{}` (pid {})", self.name, self.pid()))
    }

    /// The exit status, if the process has ended.
    ///
    /// # Errors
    /// When the kernel will not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for the process to end by itself.
    ///
    /// # Errors
    /// When it still runs after `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        match wait_child(&mut self.child, timeout)? {
            Some(status) => Ok(status),
            None => {
                bail!("`{}` still runs after {:.0} s\n{}", self.name, timeout.as_secs_f64(), self.log_tail())
            }
        }
    }

    /// The last lines of what the process wrote.
    #[must_use]
    pub fn log_tail(&self) -> String {
        log_tail(&self.log)
    }

    fn end(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // The group, because programs such as nginx leave the work to children.
        let group = Pid::from_child(&self.child);
        let _ = kill_process_group(group, Signal::TERM);
        if !matches!(wait_child(&mut self.child, GRACE), Ok(Some(_))) {
            let _ = kill_process_group(group, Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The last 40 lines of a log file, indented; empty when there is none.
#[must_use]
pub fn log_tail(log: &Path) -> String {
    let text =
        std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].iter().map(|line| format!("    {line}\n")).collect()
}

/// Runs a command to its end, collecting what it writes; kills it at the timeout.
///
/// # Errors
/// When it cannot be started or does not end in time. A non-zero exit status is not an error here.
pub fn run(command: Command, timeout: Duration) -> Result<Output> {
    run_with_input(command, &[], timeout)
}

/// [`run`] with bytes for the command's standard input.
///
/// # Errors
/// As [`run`].
pub fn run_with_input(mut command: Command, input: &[u8], timeout: Duration) -> Result<Output> {
    let name = describe(&command);
    let mut child = command
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{name}`; is it installed?"))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A command that ends without reading its input is its own affair: the exit status tells.
            let _ = stdin.map(|mut pipe| pipe.write_all(input));
        });
        let stdout = scope.spawn(move || drain(stdout));
        let stderr = scope.spawn(move || drain(stderr));
        let status = wait_child(&mut child, timeout);
        if !matches!(status, Ok(Some(_))) {
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            let _ = child.wait();
        }
        let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
        match status? {
            Some(status) => Ok(Output { status, stdout, stderr }),
            None => bail!("`{name}` did not end within {:.0} s", timeout.as_secs_f64()),
        }
    })
}

/// Runs a command that must succeed and returns its standard output.
///
/// # Errors
/// As [`run`], and when the exit status is not zero: with what the command said.
pub fn must(command: Command, timeout: Duration) -> Result<String> {
    let name = describe(&command);
    let output = run(command, timeout)?;
    ensure!(
        output.status.success(),
        "`{name}` failed ({}): {}{}",
        explain(output.status),
        String::from_utf8_lossy(&output.stdout).trim(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn drain(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = pipe.read_to_end(&mut bytes);
    }
    bytes
}

/// The status with which it ends, unless the time is up before. Its process descriptor is readable from then on.
fn wait_child(child: &mut Child, timeout: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + timeout;
    while let (None, remaining) = (child.try_wait()?, deadline.saturating_duration_since(Instant::now())) {
        if remaining.is_zero() {
            return Ok(None);
        }
        // Not reaped yet, so the number is still this child's.
        let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&remaining.try_into()?)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(child.try_wait()?)
}

fn explain(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words
        .map(OsString::from)
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ");
    match line.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_command_that_hangs_is_killed_at_the_timeout() {
        let error = run(shell("sleep 600"), Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
    }

    #[test]
    fn a_failed_command_is_quoted_with_what_it_said() {
        let error = must(shell("echo no such device >&2; exit 3"), Duration::from_secs(5)).unwrap_err();
        assert!(error.to_string().ends_with("failed (exit status 3): no such device"), "{error}");
    }

    #[test]
    fn input_reaches_the_command() {
        let output = run_with_input(Command::new("cat"), b"both ways", Duration::from_secs(5)).unwrap();
        assert_eq!(output.stdout, b"both ways");
    }

    #[test]
    fn dropping_the_guard_ends_the_process_and_its_children() {
        let log = std::env::temp_dir().join(format!("lbt-{}-process-test", std::process::id()));
        let process = Process::spawn(shell("sleep 600 & echo $!; wait"), &log).unwrap();
        let child = crate::wait::until(Duration::from_secs(5), "the shell named its child", || {
            Ok(process.log_tail().trim().parse::<u32>().ok())
        });
        let (parent, child) = (process.pid(), child.unwrap());
        drop(process);
        std::fs::remove_file(&log).unwrap();
        assert!(!Path::new(&format!("/proc/{parent}")).exists());
        let ended = || {
            std::fs::read_to_string(format!("/proc/{child}/stat")).map_or(true, |stat| stat.contains(") Z "))
        };
        crate::wait::until_true(Duration::from_secs(5), "the grandchild ended", ended).unwrap();
    }
}
