//! Why a check cannot be one.

use super::{Checks, HealthSpec};
use crate::model::keyword::{HealthType, UnknownKeyword};
use crate::model::period::{InvalidPeriod, Period};
use crate::model::quote::Quoted;

pub(super) const MIN_INTERVAL: Period = Period::from_millis(100);
pub(super) const MAX_INTERVAL: Period = Period::from_secs(3600);
pub(super) const MIN_TIMEOUT: Period = Period::from_millis(10);

/// A check that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHealth {
    /// The type is none that there is.
    #[error(transparent)]
    Type(UnknownKeyword),
    /// Neither a key nor its value.
    #[error("invalid health option {}: it is KEY=VALUE, and a comma within a value is written `\\,`", Quoted(.0))]
    Option(String),
    /// A key that checks of this type do not have.
    #[error("health type `{0}` has no option {key}: it has {options}", key = Quoted(.1), options = .0.options().join(", "))]
    NotOf(HealthType, String),
    /// A key that checks of this type must have.
    #[error("health type `{0}` needs the option `{1}`")]
    Missing(HealthType, &'static str),
    /// A key that stands there twice.
    #[error("health option `{0}` is given twice")]
    Twice(&'static str),
    /// A value that cannot be.
    #[error("invalid health {key} {}: it is {expected}", Quoted(value))]
    Value {
        /// Of which option.
        key: &'static str,
        /// What stands there.
        value: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// A time that is none.
    #[error("health {0}: {1}")]
    Period(&'static str, InvalidPeriod),
    /// A number that is none, or too large, or too small.
    #[error("invalid health {0} {value}: it is a whole number from {1} to {2}", value = Quoted(.3))]
    Number(&'static str, u16, u16, String),
    /// Checks that would be too frequent or too rare.
    #[error("invalid health interval `{0}`: it is from {MIN_INTERVAL} to {MAX_INTERVAL}")]
    Interval(Period),
    /// A check that would still wait when the next is due.
    #[error("invalid health timeout `{0}`: it is from {MIN_TIMEOUT} to the interval, `{1}`")]
    Timeout(Period, Period),
    /// Checks that would follow upon each other at once.
    #[error("invalid health jitter `{0}`: it is at most half of the interval, `{1}`")]
    Jitter(Period, Period),
    /// More checks than make sense.
    #[error("{0} health checks for one service: at most {max} are possible", max = Checks::MAX)]
    TooMany(usize),
    /// The same check twice.
    #[error("health check `{0}` is given twice")]
    Duplicate(HealthSpec),
    /// `none` beside a check.
    #[error("health `none` stands alone: leave out the rest")]
    NoneBeside,
}
