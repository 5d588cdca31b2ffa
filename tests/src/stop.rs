//! Asking threads to end, and a pause that ends when they are asked.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A request to end that threads share.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    requested: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Asks everybody to end.
    pub(crate) fn request(&self) {
        *self.requested() = true;
        self.changed.notify_all();
    }

    /// Pauses up to a moment. True where nobody asked to end until then, false as soon as somebody does.
    pub(crate) fn pause_until(&self, moment: Instant) -> bool {
        let left = moment.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(self.requested(), left, |requested| !*requested);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn requested(&self) -> MutexGuard<'_, bool> {
        self.requested.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_pause_lasts_until_its_moment_or_until_it_is_asked_to_end() {
        let stop = Stop::default();
        let moment = Instant::now() + Duration::from_millis(30);
        assert!(stop.pause_until(moment));
        assert!(Instant::now() >= moment);
        let far = Instant::now() + Duration::from_secs(60);
        std::thread::scope(|scope| {
            let paused = scope.spawn(|| stop.pause_until(far));
            stop.request();
            assert!(!paused.join().unwrap());
        });
        assert!(Instant::now() < far);
    }
}
