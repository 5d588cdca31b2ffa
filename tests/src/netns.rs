//! Network namespaces as guards.
//!
//! Only the *network* namespace is entered, by setns(2), never with `ip netns exec`: that command also makes a mount
//! namespace with a fresh `/sys`, in which the pins under `/sys/fs/bpf` are not to be seen. The price is that
//! `/sys/class/net` goes on showing the namespace in which `/sys` was mounted, so nothing here reads it.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use crate::process;

/// What the name of everything that the fixtures leave in a shared place begins with.
pub const PREFIX: &str = "lbt-";

/// Where iproute2 keeps named namespaces.
pub(crate) const NETNS_DIR: &str = "/run/netns";

/// Limit for one `ip` invocation: generous, they take milliseconds.
const IP_TIMEOUT: Duration = Duration::from_secs(20);

/// A name that no other fixture on this machine has: `lbt-<pid>-<n>-<role>`.
#[must_use]
pub fn unique_name(role: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}{}-{}-{role}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A network namespace; dropping it kills what still runs in it and deletes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: Handle,
}

/// A way into a namespace that can be sent to other threads and outlives nobody's patience: it keeps the namespace's
/// inode open, not its name.
#[derive(Debug, Clone)]
pub struct Handle(Arc<File>);

impl Namespace {
    /// Creates a namespace with its loopback up and IPv6 ready to use at once.
    ///
    /// # Errors
    /// Without root, or when `ip` is missing.
    pub fn create(role: &str) -> Result<Self> {
        let name = unique_name(role);
        ip(&["netns", "add", &name])?;
        let path = Path::new(NETNS_DIR).join(&name);
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let namespace = Self { name, handle: Handle(Arc::new(file)) };
        // Duplicate address detection holds a new address back for a second or more, during which nothing can bind
        // to it: here all addresses are ours. For `default` too, which interfaces made later inherit.
        for scope in ["all", "default"] {
            namespace.sysctl(&format!("net.ipv6.conf.{scope}.accept_dad"), "0")?;
            namespace.sysctl(&format!("net.ipv6.conf.{scope}.accept_ra"), "0")?;
        }
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The name under which `ip netns` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A way into the namespace for a thread that outlives this borrow.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs `ip` commands in the namespace, one a line, as `ip -batch` reads them.
    ///
    /// # Errors
    /// With the line that `ip` refused and why.
    pub fn ip(&self, script: &str) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name, "-batch", "-"]);
        let output = process::run_with_input(command, script.as_bytes(), IP_TIMEOUT)?;
        ensure!(
            output.status.success(),
            "`ip -n {}` refused: {}\nof the script:\n{script}",
            self.name,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    /// Sets a network sysctl of this namespace. `/proc/sys/net` follows the thread's network namespace, unlike `/sys`.
    ///
    /// # Errors
    /// When there is no such key or the kernel refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = PathBuf::from("/proc/sys").join(key.replace('.', "/"));
        self.run(|| std::fs::write(&path, value))
            .with_context(|| format!("cannot set {key} = {value} in namespace {}", self.name))
    }

    /// Reads a network sysctl of this namespace.
    ///
    /// # Errors
    /// When there is no such key.
    pub fn read_sysctl(&self, key: &str) -> Result<String> {
        let path = PathBuf::from("/proc/sys").join(key.replace('.', "/"));
        let text = self.run(|| std::fs::read_to_string(&path));
        let text = text.with_context(|| format!("cannot read {key} in namespace {}", self.name))?;
        Ok(text.trim().to_owned())
    }

    /// The identifier of the XDP program on an interface, if there is one; by netlink: `ip` prints it with the link.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn xdp_program(&self, interface: &str) -> Result<Option<u32>> {
        let link = self.must(&["ip", "-j", "link", "show", "dev", interface], IP_TIMEOUT)?;
        let link: Value = serde_json::from_str(&link).with_context(|| format!("not JSON: {link}"))?;
        Ok(link[0]["xdp"]["prog"]["id"].as_u64().map(|id| id as u32))
    }

    /// Runs `work` on a thread inside the namespace and returns its result.
    ///
    /// # Panics
    /// When `work` does, or the namespace cannot be entered, which root always may.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let handle = &self.handle;
        let inside = || {
            handle.enter().expect("entering a namespace of our own");
            work()
        };
        std::thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A command that will run inside the namespace.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let handle = self.handle();
        // SAFETY: between fork and exec the closure makes one system call on a descriptor that it owns; it neither
        // allocates nor takes a lock.
        unsafe { command.pre_exec(move || handle.enter().map_err(Into::into)) };
        command
    }

    /// Runs a command line in the namespace that must succeed; returns its standard output.
    ///
    /// # Errors
    /// When it cannot be run, fails, or takes longer than `timeout`.
    pub fn must(&self, line: &[&str], timeout: Duration) -> Result<String> {
        let (program, arguments) = line.split_first().context("an empty command line")?;
        let mut command = self.command(program);
        command.args(arguments);
        process::must(command, timeout).with_context(|| format!("in namespace {}", self.name))
    }
}

impl Handle {
    /// Moves the calling thread into the namespace, for good.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN.
    pub fn enter(&self) -> rustix::io::Result<()> {
        move_into_link_name_space(self.as_fd(), Some(LinkNameSpaceType::Network))
    }

    /// Starts a named thread inside the namespace.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::io::Result<JoinHandle<T>> {
        let handle = self.clone();
        Builder::new().name(name.to_owned()).spawn(move || {
            handle.enter().expect("entering a namespace of our own");
            work()
        })
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        for pid in processes_inside(&Path::new(NETNS_DIR).join(&self.name)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        if let Err(error) = ip(&["netns", "del", &self.name]) {
            eprintln!("warning: {error:#}");
        }
    }
}

/// Processes whose network namespace is the one at `path`. A thread of ours inside it does not count: `/proc/<pid>`
/// shows the first thread's namespace.
pub(crate) fn processes_inside(path: &Path) -> Vec<Pid> {
    let Ok(wanted) = std::fs::metadata(path) else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let is_inside = |pid: &i32| {
        std::fs::metadata(format!("/proc/{pid}/ns/net"))
            .is_ok_and(|found| found.ino() == wanted.ino() && found.dev() == wanted.dev())
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(is_inside)
        .filter_map(Pid::from_raw)
        .collect()
}

/// Runs one `ip` command in the caller's namespace.
pub(crate) fn ip(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("ip");
    command.args(arguments);
    process::must(command, IP_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_recognisable_and_never_repeat() {
        let (first, second) = (unique_name("client"), unique_name("client"));
        assert_ne!(first, second);
        assert!(first.starts_with(&format!("{PREFIX}{}-", std::process::id())) && first.ends_with("-client"));
    }
}
