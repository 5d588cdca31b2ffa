//! Waiting for a condition with a deadline, never for a fixed time.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::interrupt;

/// Time between two looks at a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Asks `condition` until it answers with a value, at most `timeout` long.
///
/// # Errors
/// When the time is up (`what` says what did not happen), when the condition itself fails, or on Ctrl-C.
pub fn until<T>(
    timeout: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(value) = condition().with_context(|| format!("while waiting until {what}"))? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("after {:.1} s it still does not hold that {what}", timeout.as_secs_f64());
        }
        interrupt::pause(POLL_INTERVAL)?;
    }
}

/// [`until`] for a condition that is only true or false.
///
/// # Errors
/// As [`until`].
pub fn until_true(timeout: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    until(timeout, what, || Ok(condition().then_some(())))
}

/// Lets the load run for a while: time that is to be observed, not a guess at when something will be ready.
///
/// # Errors
/// On Ctrl-C, at once.
pub fn observe(duration: Duration) -> Result<()> {
    Ok(interrupt::pause(duration)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_returned_as_soon_as_there_is_one() {
        let mut looks = 0;
        let found = until(Duration::from_secs(5), "the third look is taken", || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn a_missed_deadline_says_what_did_not_happen() {
        let error = until_true(Duration::ZERO, "pigs fly", || false).unwrap_err();
        assert!(error.to_string().contains("pigs fly"), "{error}");
    }

    #[test]
    fn a_failing_condition_ends_the_wait() {
        let error = until::<()>(Duration::from_secs(60), "it answers", || bail!("no route")).unwrap_err();
        assert_eq!(format!("{error:#}"), "while waiting until it answers: no route");
    }
}
