//! How a change is asked for: on which condition, and whether it is only tried.

use super::{Control, ControlError};
use crate::model::ServiceName;

/// What comes with a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Whether nothing is done.
    pub dry_run: bool,
    /// What must hold when it is made.
    pub precondition: Option<Precondition>,
    /// Why, where the change alone does not say.
    pub reason: Option<String>,
}

/// The object that a change was decided upon is still what it was then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Precondition {
    /// Which object.
    pub target: Target,
    /// What it was.
    pub tags: Tags,
}

/// What a precondition is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The whole state.
    State,
    /// A service with its backends.
    Service(ServiceName),
}

/// Revisions that an object may be at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tags {
    /// Any, if it is there.
    Any,
    /// One of these.
    Revisions(Vec<u64>),
}

impl Control {
    /// Refuses where an object is not what it was any more. One that is not there is the change's own to refuse.
    pub(super) fn check(&self, precondition: Option<&Precondition>) -> Result<(), ControlError> {
        let Some(Precondition { target, tags }) = precondition else { return Ok(()) };
        let (object, now) = match target {
            Target::State => ("the state".to_owned(), Some(self.revision)),
            Target::Service(name) => (format!("service `{name}`"), self.modified.get(name).copied()),
        };
        match (tags, now) {
            (Tags::Revisions(seen), Some(now)) if !seen.contains(&now) => {
                Err(ControlError::Stale { object, now })
            }
            _ => Ok(()),
        }
    }
}
