//! What each health check found last, and how long it took: for whoever asks which backend is slow, and which refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::health::Check;

/// What a backend's checks found last: the one that failed, or else the slowest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CheckNow {
    /// Whether it passed.
    pub passed: bool,
    /// How long it took.
    pub took_microseconds: u64,
    /// Why it failed, if it did.
    pub reason: Option<String>,
}

/// The last result of every check.
#[derive(Debug, Default)]
pub(super) struct Checked(BTreeMap<Check, CheckNow>);

impl Checked {
    /// Keeps a result.
    pub(super) fn take(&mut self, check: Check, outcome: &Result<(), String>, took: Duration) {
        let took_microseconds = took.as_micros().try_into().unwrap_or(u64::MAX);
        let reason = outcome.as_ref().err().cloned();
        self.0.insert(check, CheckNow { passed: reason.is_none(), took_microseconds, reason });
    }

    /// Forgets what is not checked any more.
    pub(super) fn retain(&mut self, checks: &BTreeSet<Check>) {
        self.0.retain(|check, _| checks.contains(check));
    }

    /// What these found, if one of them has ended.
    pub(super) fn worst(&self, checks: impl Iterator<Item = Check>) -> Option<CheckNow> {
        let found = checks.filter_map(|check| self.0.get(&check));
        found.max_by_key(|found| (!found.passed, found.took_microseconds)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_failed_counts_before_the_slowest() {
        let spec = "tcp".parse().unwrap();
        let check = |host: u8| Check::of(([10, 0, 1, host], 80).into(), spec);
        let mut checked = Checked::default();
        let checks = || [1, 2, 3].map(check).into_iter();
        assert_eq!(checked.worst(checks()), None);
        checked.take(check(1), &Ok(()), Duration::from_millis(7));
        checked.take(check(2), &Ok(()), Duration::from_millis(9));
        let slowest = CheckNow { passed: true, took_microseconds: 9000, reason: None };
        assert_eq!(checked.worst(checks()), Some(slowest.clone()));
        checked.take(check(3), &Err("refused".to_owned()), Duration::from_millis(1));
        let failed = CheckNow { passed: false, took_microseconds: 1000, reason: Some("refused".to_owned()) };
        assert_eq!(checked.worst(checks()), Some(failed));
        checked.retain(&[check(1), check(2)].into());
        assert_eq!(checked.worst(checks()), Some(slowest));
    }
}
