//! Ctrl-C and other requests to end as a flag that every wait looks at.
//!
//! Ending in the signal handler would skip every destructor and leave namespaces, pins and processes behind. The
//! handler only sets a flag; whoever waits sees it, returns an error or panics, and the guards clean up on the way.

use std::fmt;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);
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

/// Makes SIGINT, SIGTERM and SIGHUP (the terminal was closed) set the flag that [`check`] reads; later calls do nothing.
pub fn install() {
    INSTALLED.call_once(|| {
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            // SAFETY: the handler only stores to an atomic, which is async-signal-safe, and has the signature that
            // signal(2) expects.
            unsafe { libc::signal(signal, on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t) };
        }
    });
}

/// An error once the user asked to stop.
///
/// # Errors
/// [`Interrupted`] after one of the signals.
pub fn check() -> Result<(), Interrupted> {
    if REQUESTED.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
}

extern "C" fn on_signal(_signal: libc::c_int) {
    REQUESTED.store(true, Ordering::Relaxed);
}
