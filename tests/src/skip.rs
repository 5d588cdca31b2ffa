//! Skipping, aloud: a test that cannot run here says so and why.

/// Why a test that needs a lab cannot run here; none when it can.
#[must_use]
pub fn reason_without_root() -> Option<&'static str> {
    (!rustix::process::geteuid().is_root()).then_some("making network namespaces needs root")
}

/// Says that the calling test is skipped and why, in a form that a test runner can find in the output.
///
/// # Panics
/// When `LB_TEST_REQUIRE_ALL` is set, as in continuous integration, where a skipped level is a failure.
pub fn announce(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("?");
    assert!(std::env::var_os("LB_TEST_REQUIRE_ALL").is_none(), "{test} must not be skipped: {reason}");
    // Past the capture of the test harness, which hides what a passing test prints.
    let line = format!("SKIPPED {test}: {reason}\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}

/// Returns from the calling test, aloud, when it is not run as root.
#[macro_export]
macro_rules! needs_root {
    () => {
        if let Some(reason) = $crate::skip::reason_without_root() {
            return $crate::skip::announce(reason);
        }
    };
}

/// Returns from the calling test, aloud, when a program is not installed.
#[macro_export]
macro_rules! needs_program {
    ($program:expr) => {
        if !$crate::tools::is_installed($program) {
            return $crate::skip::announce(concat!(
                $program,
                " is not installed; `cargo xtask setup` brings it"
            ));
        }
    };
}
