//! What each health check found last, and how long it took: for whoever asks which backend is slow, and which refuses.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::health::Check;

/// What a backend's checks found last: the one that failed, or else the slowest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CheckNow {
    /// Whether it passed.
    pub passed: bool,
    /// How long it took: of the last three, the one in the middle.
    pub took_microseconds: u64,
    /// Why it failed, if it did.
    pub reason: Option<String>,
}

/// The last result of every check.
#[derive(Debug, Default)]
pub(super) struct Checked(BTreeMap<Check, Last>);

#[derive(Debug)]
struct Last {
    reason: Option<String>,
    /// The latest last.
    took: VecDeque<Duration>,
}

impl Last {
    /// Results of which the one in the middle counts: a single one that a busy machine held up is none.
    const KEPT: usize = 3;

    /// The lower one of two.
    fn typical(&self) -> Duration {
        let mut took: Vec<_> = self.took.iter().copied().collect();
        took.sort_unstable();
        took.get(took.len().saturating_sub(1) / 2).copied().unwrap_or_default()
    }

    fn now(&self) -> CheckNow {
        let took_microseconds = self.typical().as_micros().try_into().unwrap_or(u64::MAX);
        CheckNow { passed: self.reason.is_none(), took_microseconds, reason: self.reason.clone() }
    }
}

impl Checked {
    /// Keeps a result.
    pub(super) fn take(&mut self, check: &Check, outcome: &Result<(), String>, took: Duration) {
        let reason = outcome.as_ref().err().cloned();
        if !self.0.contains_key(check) {
            self.0.insert(check.clone(), Last { reason: None, took: VecDeque::new() });
        }
        let Some(last) = self.0.get_mut(check) else { return };
        // How long it takes to fail says nothing of how long it takes to pass.
        if reason.is_some() != last.reason.is_some() {
            last.took.clear();
        }
        last.reason = reason;
        if last.took.len() == Last::KEPT {
            last.took.pop_front();
        }
        last.took.push_back(took);
    }

    /// Forgets what is not checked any more.
    pub(super) fn retain(&mut self, checks: &BTreeSet<Check>) {
        self.0.retain(|check, _| checks.contains(check));
    }

    /// What these found, if one of them has ended.
    pub(super) fn worst(&self, checks: impl Iterator<Item = Check>) -> Option<CheckNow> {
        let found = checks.filter_map(|check| self.0.get(&check)).map(Last::now);
        found.max_by_key(|found| (!found.passed, found.took_microseconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_was_held_up_does_not_count_but_two_do() {
        let check = Check::of(([10, 0, 1, 1], 80).into(), &"tcp".parse().unwrap());
        let mut checked = Checked::default();
        let mut took = |millis| {
            checked.take(&check, &Ok(()), Duration::from_millis(millis));
            checked.worst([check.clone()].into_iter()).unwrap().took_microseconds / 1000
        };
        assert_eq!([1, 1, 90, 1, 90, 90].map(&mut took), [1, 1, 1, 1, 90, 90]);
    }

    #[test]
    fn one_that_failed_counts_before_the_slowest() {
        let spec = "tcp".parse().unwrap();
        let check = |host: u8| Check::of(([10, 0, 1, host], 80).into(), &spec);
        let mut checked = Checked::default();
        let checks = || [1, 2, 3].map(check).into_iter();
        assert_eq!(checked.worst(checks()), None);
        checked.take(&check(1), &Ok(()), Duration::from_millis(7));
        checked.take(&check(2), &Ok(()), Duration::from_millis(9));
        let slowest = CheckNow { passed: true, took_microseconds: 9000, reason: None };
        assert_eq!(checked.worst(checks()), Some(slowest.clone()));
        checked.take(&check(3), &Err("refused".to_owned()), Duration::from_millis(1));
        let failed = CheckNow { passed: false, took_microseconds: 1000, reason: Some("refused".to_owned()) };
        assert_eq!(checked.worst(checks()), Some(failed));
        checked.retain(&[check(1), check(2)].into());
        assert_eq!(checked.worst(checks()), Some(slowest));
    }
}
