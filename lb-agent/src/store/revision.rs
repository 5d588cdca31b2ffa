//! A state with its number, and what it takes to make the next one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::model::{Desired, ServiceName, Timestamp, differences};

/// A state that was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    /// Which one it is, and what made it.
    pub info: RevisionInfo,
    /// The state.
    pub desired: Arc<Desired>,
    /// For each service, the revision that changed it last.
    pub services: BTreeMap<ServiceName, u64>,
}

/// What is told of a revision without its state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RevisionInfo {
    /// Grows with every change, not always by one.
    pub revision: u64,
    /// When it was made.
    pub time: Timestamp,
    /// What differs from the one before, a line each; the last line says how many more there were.
    pub changes: Vec<String>,
}

/// A state that shall be kept.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The state.
    pub desired: Arc<Desired>,
    /// When this was decided.
    pub time: Timestamp,
    /// Why, where the differences alone do not say.
    pub reason: Option<String>,
}

/// Lines that a revision keeps of what changed: a whole state that was declared would be told twice.
const MAX_CHANGES: usize = 20;

impl Revision {
    /// The revision that a draft becomes under a number.
    pub fn succeeded_by(&self, number: u64, draft: Draft) -> Self {
        let Draft { desired, time, reason } = draft;
        let mut changes: Vec<_> = reason.into_iter().chain(differences(&self.desired, &desired)).collect();
        if changes.len() > MAX_CHANGES {
            let more = changes.len() - MAX_CHANGES + 1;
            changes.truncate(MAX_CHANGES - 1);
            changes.push(format!("... and {more} more"));
        }
        let number_of = |name: &ServiceName| match self.services.get(name) {
            Some(&before) if self.desired.services.get(name) == desired.services.get(name) => before,
            _ => number,
        };
        let services = desired.services.keys().map(|name| (name.clone(), number_of(name))).collect();
        Self { info: RevisionInfo { revision: number, time, changes }, desired, services }
    }
}

impl Draft {
    /// A state, decided now.
    pub fn new(desired: Desired) -> Self {
        Self { desired: Arc::new(desired), time: Timestamp::from_system(SystemTime::now()), reason: None }
    }

    /// With a line that says why.
    pub fn because(self, reason: String) -> Self {
        Self { reason: Some(reason), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::file;

    fn state(services: std::ops::Range<u16>, weight: u16) -> Desired {
        let text: String = services
            .map(|n| {
                format!(
                    "[[service]]\nname = \"s{n}\"\nvip = \"10.0.0.1:{n}\"\n[[service.backend]]\naddress = \"10.0.1.1:{n}\"\nweight = {}\n",
                    if n == 1 { weight } else { 1 }
                )
            })
            .collect();
        file::parse(&text, "state").unwrap()
    }

    #[test]
    fn each_service_has_the_revision_that_changed_it_last() {
        let first = Revision::default().succeeded_by(3, Draft::new(state(1..3, 1)));
        let second = first.succeeded_by(7, Draft::new(state(1..3, 2)));
        let numbers: Vec<_> = second.services.values().copied().collect();
        assert_eq!(numbers, [7, 3]);
        assert_eq!(
            second.info.changes,
            ["set backend s1 10.0.1.1:1: weight 1, enabled -> weight 2, enabled"]
        );
    }

    #[test]
    fn a_long_list_of_changes_is_cut_and_says_so() {
        let draft = Draft::new(state(1..41, 1)).because("rollback to revision 2".to_owned());
        let changes = Revision::default().succeeded_by(1, draft).info.changes;
        assert_eq!(changes.len(), MAX_CHANGES);
        assert_eq!((&*changes[0], &*changes[19]), ("rollback to revision 2", "... and 62 more"));
    }
}
