//! Waiting in tests for what other threads do: a look again and again until a deadline.

use std::time::{Duration, Instant};

/// Far longer than anything takes that is waited for.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(20);

/// Returns once it holds.
///
/// # Panics
/// When it still does not at the deadline, saying `what`.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "still not so: {what}");
        std::thread::sleep(INTERVAL);
    }
}
