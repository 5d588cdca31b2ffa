//! A network namespace that nobody has to remove: it has no name, and ends with the last descriptor.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, LinkNameSpaceType, UnshareFlags};

/// What the namespace forwards, and no waiting for addresses.
const SYSCTLS: &[(&str, &str)] = &[
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
];

pub(super) struct Anonymous(File);

impl Anonymous {
    /// Makes one, and runs `ip` commands in it.
    pub(super) fn create(script: &str) -> Result<Self> {
        // On a thread that does nothing else afterwards: it stays where it is.
        std::thread::scope(|scope| scope.spawn(|| Self::create_here(script)).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn create_here(script: &str) -> Result<Self> {
        // SAFETY: this thread shares no descriptor table or file system state that leaving the namespace touches.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
            .context("making a network namespace")?;
        let file = File::open("/proc/thread-self/ns/net").context("the namespace of this thread")?;
        for (key, value) in SYSCTLS {
            let path = format!("/proc/sys/net/{key}");
            std::fs::write(&path, value).with_context(|| path.clone())?;
        }
        ip(script)?;
        Ok(Self(file))
    }

    /// Moves the calling thread there, for good.
    pub(super) fn enter(&self) -> Result<()> {
        rustix::thread::move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
            .context("entering the namespace")
    }
}

fn ip(script: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("running `ip`")?;
    child.stdin.take().context("the standard input of `ip`")?.write_all(script.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "`ip -batch` refused: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Keeps the calling thread on one of the CPUs that it may use: a budget for ICMP errors is a CPU's own.
pub(super) fn stay_on_one_cpu() -> Result<()> {
    let allowed = rustix::thread::sched_getaffinity(None).context("asking for the thread's CPUs")?;
    let first = (0..CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu)).context("a thread without a CPU")?;
    let mut one = CpuSet::new();
    one.set(first);
    rustix::thread::sched_setaffinity(None, &one).context("keeping the thread on one CPU")
}
