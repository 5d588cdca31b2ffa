//! Which checks decide whether a backend is fit.

mod action;
mod comma;
mod datagram;
mod invalid;
mod raw;

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::keyword::{HealthType, Protocol};
use super::period::Period;
pub use action::{CheckAction, HttpRequest, OptionValue, TlsPolicy};
pub use datagram::Datagram;
pub use invalid::InvalidHealth;
use raw::RawSpec;

/// One health check, with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HealthSpec {
    /// What it does.
    pub action: Arc<CheckAction>,
    /// From the start of one check to the start of the next.
    pub interval: Period,
    /// When a check that got no answer has failed.
    pub timeout: Period,
    /// How much earlier than that the next may start, at random.
    pub jitter: Period,
    /// Passed checks in a row that make an unhealthy backend healthy.
    pub rise: u8,
    /// Failed checks in a row that make a backend unhealthy.
    pub fall: u8,
    /// Port to check; the backend's own where none is named.
    pub port: Option<NonZeroU16>,
}

impl HealthSpec {
    /// The word for what it does.
    pub fn kind(&self) -> HealthType {
        self.action.kind()
    }
}

impl fmt::Display for HealthSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, interval, timeout, jitter, rise, fall, port } = self;
        write!(f, "{},interval={interval},timeout={timeout}", action.kind())?;
        if !jitter.duration().is_zero() {
            write!(f, ",jitter={jitter}")?;
        }
        write!(f, ",rise={rise},fall={fall}")?;
        port.map_or(Ok(()), |port| write!(f, ",port={port}"))?;
        action.options().iter().try_for_each(|(key, value)| write!(f, ",{key}={value}"))
    }
}

impl FromStr for HealthSpec {
    type Err = InvalidHealth;

    fn from_str(text: &str) -> Result<Self, InvalidHealth> {
        text.parse().and_then(RawSpec::validate)
    }
}

/// What `--health` takes: a check, or `none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthArgument {
    /// No check at all.
    None,
    /// One check.
    Check(HealthSpec),
}

impl FromStr for HealthArgument {
    type Err = InvalidHealth;

    fn from_str(text: &str) -> Result<Self, InvalidHealth> {
        match text {
            "none" => Ok(Self::None),
            options if options.starts_with("none,") => Err(InvalidHealth::NoneBeside),
            check => check.parse().map(Self::Check),
        }
    }
}

/// The checks of a service's backends. A backend is healthy while every one passes; without any, nobody knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checks(Vec<HealthSpec>);

impl Checks {
    /// Checks of one service at most.
    pub const MAX: usize = 8;

    /// What a service has that says nothing: TCP services are checked by connecting, UDP services are not.
    pub fn default_of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self("tcp".parse().into_iter().collect()),
            Protocol::Udp => Self::default(),
        }
    }

    /// The checks, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = &HealthSpec> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As many as were typed, sorted, so that equal sets are equal.
    pub fn new(arguments: impl IntoIterator<Item = HealthArgument>) -> Result<Self, InvalidHealth> {
        let arguments: Vec<_> = arguments.into_iter().collect();
        let mut checks: Vec<_> = arguments
            .iter()
            .filter_map(|argument| match argument {
                HealthArgument::Check(spec) => Some(spec.clone()),
                HealthArgument::None => None,
            })
            .collect();
        checks.sort();
        if checks.len() != arguments.len() && arguments.len() > 1 {
            return Err(InvalidHealth::NoneBeside);
        }
        if let Some(pair) = checks.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(InvalidHealth::Duplicate(pair[0].clone()));
        }
        if checks.len() > Self::MAX {
            return Err(InvalidHealth::TooMany(checks.len()));
        }
        Ok(Self(checks))
    }
}

impl fmt::Display for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [] => write!(f, "none"),
            checks => write!(f, "{}", checks.iter().map(HealthSpec::to_string).collect::<Vec<_>>().join(" ")),
        }
    }
}

impl Serialize for Checks {
    /// As the strings that `--health` takes.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(HealthSpec::to_string))
    }
}

impl<'de> Deserialize<'de> for Checks {
    /// From a table, a string as `--health` takes it, or an array of either.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ChecksVisitor)
    }
}

struct ChecksVisitor;

impl<'de> Visitor<'de> for ChecksVisitor {
    type Value = Checks;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a health check")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Checks, E> {
        Checks::new([text.parse().map_err(E::custom)?]).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Checks, A::Error> {
        let raw = RawSpec::deserialize(MapAccessDeserializer::new(map))?;
        Checks::new([raw.argument().map_err(A::Error::custom)?]).map_err(A::Error::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Checks, A::Error> {
        let mut arguments = Vec::new();
        while let Some(Checks(checks)) = sequence.next_element()? {
            match checks.is_empty() {
                true => arguments.push(HealthArgument::None),
                false => arguments.extend(checks.into_iter().map(HealthArgument::Check)),
            }
        }
        Checks::new(arguments).map_err(A::Error::custom)
    }
}

#[cfg(test)]
pub(crate) mod tests;
