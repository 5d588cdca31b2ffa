//! How long the agent's own work takes: counted here, by whoever does it, and read by whoever watches.

use std::time::Duration;

/// Durations by their magnitude, and all of them together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// One for each of [`BOUNDS`](Self::BOUNDS), and the last for what took longer.
    counts: [u64; Self::BOUNDS.len() + 1],
    sum: Duration,
}

impl Durations {
    /// Seconds: what took this long or less counts there.
    pub const BOUNDS: [f64; 14] =
        [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

    /// Counts one.
    pub fn count(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = Self::BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(Self::BOUNDS.len());
        self.counts[bucket] += 1;
        self.sum += duration;
    }

    /// How many took how long: for each bound, and without one.
    pub const fn counts(&self) -> &[u64; Self::BOUNDS.len() + 1] {
        &self.counts
    }

    /// All of them together.
    pub const fn sum(&self) -> Duration {
        self.sum
    }
}

/// What is timed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Changes that were asked for, until they were on disk and in the kernel or refused.
    pub changes: Durations,
    /// Comparisons of the data plane with what is wanted, with what that took to put right.
    pub reconciles: Durations,
    /// Looks of a second's length: flows expired, counts put right.
    pub housekeeping: Durations,
    /// Health checks that passed.
    pub passed_checks: Durations,
    /// Those that did not.
    pub failed_checks: Durations,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_once_in_the_first_bucket_that_takes_it() {
        let mut durations = Durations::default();
        for micros in [0, 100, 101, 1_000_000, 5_000_001, 60_000_000] {
            durations.count(Duration::from_micros(micros));
        }
        let counts = durations.counts();
        assert_eq!((counts[0], counts[1], counts[12], counts[13], counts[14]), (2, 1, 1, 0, 2));
        assert_eq!(counts.iter().sum::<u64>(), 6);
        assert_eq!(durations.sum(), Duration::from_micros(66_000_202));
    }
}
