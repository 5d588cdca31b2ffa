//! Ctrl-C and other requests to end as an event that every wait ends with.
//!
//! Ending in the signal handler would skip every destructor and leave namespaces, pins and processes behind. The
//! handler only signals; whoever waits sees it, returns an error or panics, and the guards clean up on the way.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Once, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

/// Readable once the user asked to stop, and for ever after: nobody reads it.
static REQUESTED: OnceLock<OwnedFd> = OnceLock::new();
static INSTALLED: Once = Once::new();

/// The user asked to stop before the work was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Makes SIGINT, SIGTERM and SIGHUP (the terminal was closed) end the waits here; later calls do nothing.
///
/// # Panics
/// When the process has no descriptor left.
pub fn install() {
    INSTALLED.call_once(|| {
        REQUESTED.get_or_init(|| {
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("a descriptor")
        });
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            // SAFETY: the handler only loads a pointer and makes one write(2), both async-signal-safe, and has the
            // signature that signal(2) expects.
            unsafe { libc::signal(signal, on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t) };
        }
    });
}

/// An error once the user asked to stop.
///
/// # Errors
/// [`Interrupted`] after one of the signals.
pub fn check() -> Result<(), Interrupted> {
    pause(Duration::ZERO)
}

/// Does nothing for a while.
///
/// # Errors
/// [`Interrupted`] after one of the signals, at once.
pub fn pause(duration: Duration) -> Result<(), Interrupted> {
    if is_requested_within(Some(duration)) { Err(Interrupted) } else { Ok(()) }
}

/// Waits until the user asks to stop.
pub fn wait() {
    is_requested_within(None);
}

fn is_requested_within(limit: Option<Duration>) -> bool {
    let end = limit.map(|limit| Instant::now() + limit);
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let timeout = left.map(|left| Timespec::try_from(left).expect("no pause is that long"));
        // Without the handlers there is nothing to see, and only the time passes.
        let mut watched: Vec<_> =
            REQUESTED.get().into_iter().map(|requested| PollFd::new(requested, PollFlags::IN)).collect();
        match poll(&mut watched, timeout.as_ref()) {
            // Any signal ends the call, also one that is none of these.
            Err(Errno::INTR) => {}
            outcome => return outcome.expect("poll(2) on an eventfd") > 0,
        }
    }
}

extern "C" fn on_signal(_signal: libc::c_int) {
    if let Some(requested) = REQUESTED.get() {
        // It fails only where 2^64 signals have been counted already.
        let _ = rustix::io::write(requested, &1_u64.to_ne_bytes());
    }
}
