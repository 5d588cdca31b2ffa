//! The program run by several threads at once, each on a CPU of its own.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use rustix::thread::CpuSet;

use super::namespace::Anonymous;

/// `BPF_PROG_TEST_RUN`.
const TEST_RUN: libc::c_long = 10;

/// The part of `union bpf_attr` that the command reads and writes.
#[repr(C)]
struct TestRun {
    program: u32,
    verdict: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context: [u64; 3],
}

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
        let length = frame.len() as u32;
        let mut attributes = TestRun {
            program: self.program.as_raw_fd().cast_unsigned(),
            verdict: 0,
            size_in: length,
            size_out: length,
            data_in: frame.as_ptr() as u64,
            data_out: frame.as_mut_ptr() as u64,
            repeat: 1,
            duration: 0,
            context: [0; 3],
        };
        // SAFETY: the kernel reads and writes the block, whose size it is told, and the frame, whose size is in it; it has
        // read the frame before it writes it.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, TEST_RUN, std::ptr::from_mut(&mut attributes), size_of::<TestRun>())
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(attributes.verdict)
    }
}
