//! What happened to the requests: how many, how many failed and why, and who answered.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::AddAssign;
use std::time::Instant;

/// Counts of requests by outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that ended, well or not.
    pub requests: u64,
    /// Those that failed.
    pub failed: u64,
    /// Answers by backend.
    pub spread: BTreeMap<String, u64>,
}

impl Tally {
    /// Counts one answer.
    pub fn answered(&mut self, backend: &str) {
        self.requests += 1;
        match self.spread.get_mut(backend) {
            Some(count) => *count += 1,
            None => drop(self.spread.insert(backend.to_owned(), 1)),
        }
    }

    /// Counts one failure.
    pub fn failed(&mut self) {
        self.requests += 1;
        self.failed += 1;
    }

    /// What came after `earlier`, a state of the same count. Backends without an answer since are left out.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |name: &String| earlier.spread.get(name).copied().unwrap_or(0);
        let spread = self.spread.iter().map(|(name, count)| (name.clone(), count - before(name)));
        Self {
            requests: self.requests - earlier.requests,
            failed: self.failed - earlier.failed,
            spread: spread.filter(|&(_, count)| count > 0).collect(),
        }
    }

    /// Answers by this backend.
    #[must_use]
    pub fn of(&self, backend: &str) -> u64 {
        self.spread.get(backend).copied().unwrap_or(0)
    }

    /// The backend's part of all answers, 0 to 1.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of a test run are far below 2^52")]
    pub fn share(&self, backend: &str) -> f64 {
        let answers: u64 = self.spread.values().sum();
        if answers == 0 { 0.0 } else { self.of(backend) as f64 / answers as f64 }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        for (name, count) in other.spread {
            *self.spread.entry(name).or_default() += count;
        }
    }
}

/// One failed request. There is no retry anywhere: each is counted.
#[derive(Debug, Clone)]
pub struct Failure {
    /// When the request was begun.
    pub started: Instant,
    /// When it failed.
    pub ended: Instant,
    /// The client's endpoint, where the request got that far.
    pub client: Option<SocketAddr>,
    /// Where it was sent.
    pub target: SocketAddr,
    /// What the client saw.
    pub reason: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = self.ended.duration_since(self.started).as_millis();
        match self.client {
            Some(client) => write!(f, "{client} -> {}: {} after {after} ms", self.target, self.reason),
            None => write!(f, "{}: {} after {after} ms", self.target, self.reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(answers: &[&str], failed: u64) -> Tally {
        let mut tally = Tally::default();
        answers.iter().for_each(|backend| tally.answered(backend));
        (0..failed).for_each(|_| tally.failed());
        tally
    }

    #[test]
    fn a_difference_has_only_what_came_since() {
        let before = tally(&["b1", "b2"], 1);
        let mut after = before.clone();
        after += tally(&["b2", "b3", "b3"], 2);
        assert_eq!(after.since(&before), tally(&["b2", "b3", "b3"], 2));
        assert_eq!(after.since(&after), Tally::default());
    }

    #[test]
    fn failed_requests_count_as_requests_but_not_in_the_shares() {
        let tally = tally(&["b1", "b1", "b1", "b2"], 4);
        assert_eq!(tally.requests, 8);
        assert!((tally.share("b1") - 0.75).abs() < 1e-9);
        assert!(Tally::default().share("b1").abs() < 1e-9);
    }
}
