//! The program run by several threads at once, each on a CPU of its own.

use std::io;
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use rustix::thread::CpuSet;

use super::namespace::Anonymous;
use crate::bpf;

/// The entry program, for threads that share nothing else.
pub struct Runner<'a> {
    pub(super) program: OwnedFd,
    pub(super) namespace: &'a Anonymous,
}

impl Runner<'_> {
    /// Keeps the calling thread on that CPU of those that it may use, counted around, and in the program's namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(&self, cpu: usize) -> Result<()> {
        self.namespace.enter()?;
        // Asked of the process: the test's own thread, whose choice this one has inherited, stays on one.
        let pid = rustix::process::getpid();
        let allowed =
            rustix::thread::sched_getaffinity(Some(pid)).context("asking for the process's CPUs")?;
        let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect();
        let mut one = CpuSet::new();
        one.set(cpus[cpu % cpus.len()]);
        rustix::thread::sched_setaffinity(None, &one).context("keeping the thread on one CPU")
    }

    /// Runs a frame through; it is overwritten by what comes out. Returns what the program returned.
    ///
    /// # Errors
    /// When the kernel does not take the frame, or its length changes.
    pub fn run(&self, frame: &mut [u8]) -> io::Result<u32> {
        bpf::test_run_in_place(&self.program, frame)
    }
}
