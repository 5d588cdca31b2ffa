//! Which checks decide whether a backend is fit.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::keyword::{HealthType, Protocol, UnknownKeyword};
use super::period::{InvalidPeriod, Period};
use super::quote::Quoted;

/// One health check, with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HealthSpec {
    /// What it does.
    pub kind: HealthType,
    /// From the start of one check to the start of the next.
    pub interval: Period,
    /// When a check that got no answer has failed.
    pub timeout: Period,
    /// Passed checks in a row that make an unhealthy backend healthy.
    pub rise: u8,
    /// Failed checks in a row that make a backend unhealthy.
    pub fall: u8,
    /// Port to check; the backend's own where none is named.
    pub port: Option<NonZeroU16>,
}

/// A check that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHealth {
    /// The type is none that there is.
    #[error(transparent)]
    Type(UnknownKeyword),
    /// Neither a key nor its value.
    #[error("invalid health option {}: valid are interval=, timeout=, rise=, fall= and port=", Quoted(.0))]
    Option(String),
    /// A key that stands there twice.
    #[error("health option `{0}` is given twice")]
    Twice(&'static str),
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

const MIN_INTERVAL: Period = Period::from_millis(100);
const MAX_INTERVAL: Period = Period::from_secs(3600);
const MIN_TIMEOUT: Period = Period::from_millis(10);
const DEFAULT_TIMEOUT: Period = Period::from_secs(1);

/// A check as it was typed: what is absent takes its default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSpec {
    #[serde(rename = "type")]
    kind: String,
    interval: Option<Period>,
    timeout: Option<Period>,
    rise: Option<i64>,
    fall: Option<i64>,
    port: Option<i64>,
}

impl RawSpec {
    fn validate(&self) -> Result<HealthSpec, InvalidHealth> {
        let kind = kind(&self.kind)?;
        let interval = self.interval.unwrap_or(Period::from_secs(2));
        if !(MIN_INTERVAL..=MAX_INTERVAL).contains(&interval) {
            return Err(InvalidHealth::Interval(interval));
        }
        // A shorter interval than the default timeout shortens that: only a timeout that was asked for can be wrong.
        let timeout = self.timeout.unwrap_or(DEFAULT_TIMEOUT.min(interval));
        if !(MIN_TIMEOUT..=interval).contains(&timeout) {
            return Err(InvalidHealth::Timeout(timeout, interval));
        }
        Ok(HealthSpec {
            kind,
            interval,
            timeout,
            rise: count("rise", self.rise.unwrap_or(2))?,
            fall: count("fall", self.fall.unwrap_or(3))?,
            port: self.port.map(port).transpose()?,
        })
    }
}

fn kind(word: &str) -> Result<HealthType, InvalidHealth> {
    word.parse().map_err(|error: UnknownKeyword| InvalidHealth::Type(error.or("none")))
}

fn count(key: &'static str, value: i64) -> Result<u8, InvalidHealth> {
    let valid = u8::try_from(value).ok().filter(|count| (1..=100).contains(count));
    valid.ok_or_else(|| InvalidHealth::Number(key, 1, 100, value.to_string()))
}

fn port(value: i64) -> Result<NonZeroU16, InvalidHealth> {
    let valid = u16::try_from(value).ok().and_then(NonZeroU16::new);
    valid.ok_or_else(|| InvalidHealth::Number("port", 1, 65535, value.to_string()))
}

impl fmt::Display for HealthSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, interval, timeout, rise, fall, port } = self;
        write!(f, "{kind},interval={interval},timeout={timeout},rise={rise},fall={fall}")?;
        port.map_or(Ok(()), |port| write!(f, ",port={port}"))
    }
}

impl FromStr for HealthSpec {
    type Err = InvalidHealth;

    fn from_str(text: &str) -> Result<Self, InvalidHealth> {
        let mut parts = text.split(',');
        let mut raw = RawSpec { kind: parts.next().unwrap_or_default().to_owned(), ..RawSpec::default() };
        // The type first: a check of another type may have options that this one has not.
        kind(&raw.kind)?;
        parts.try_for_each(|option| raw.set(option))?;
        raw.validate()
    }
}

impl RawSpec {
    /// Takes one `key=value`.
    fn set(&mut self, option: &str) -> Result<(), InvalidHealth> {
        let unknown = || InvalidHealth::Option(option.to_owned());
        let (key, value) = option.split_once('=').ok_or_else(unknown)?;
        match key {
            "interval" => fill(&mut self.interval, "interval", period("interval", value)?),
            "timeout" => fill(&mut self.timeout, "timeout", period("timeout", value)?),
            "rise" => fill(&mut self.rise, "rise", number("rise", 100, value)?),
            "fall" => fill(&mut self.fall, "fall", number("fall", 100, value)?),
            "port" => fill(&mut self.port, "port", number("port", 65535, value)?),
            _ => Err(unknown()),
        }
    }
}

fn fill<T>(place: &mut Option<T>, key: &'static str, value: T) -> Result<(), InvalidHealth> {
    match place.replace(value) {
        Some(_) => Err(InvalidHealth::Twice(key)),
        None => Ok(()),
    }
}

fn period(key: &'static str, value: &str) -> Result<Period, InvalidHealth> {
    value.parse().map_err(|error| InvalidHealth::Period(key, error))
}

fn number(key: &'static str, max: u16, value: &str) -> Result<i64, InvalidHealth> {
    value.parse().map_err(|_| InvalidHealth::Number(key, 1, max, value.to_owned()))
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
            Protocol::Tcp => {
                Self(RawSpec { kind: "tcp".into(), ..RawSpec::default() }.validate().into_iter().collect())
            }
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

impl RawSpec {
    /// As `--health` would have said it: `type = "none"` is no check.
    fn argument(&self) -> Result<HealthArgument, InvalidHealth> {
        match self.kind.as_str() {
            "none" => Ok(HealthArgument::None),
            _ => self.validate().map(HealthArgument::Check),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any check that can be.
    pub(crate) fn any_spec() -> impl Strategy<Value = HealthSpec> {
        (100..=3_600_000_u64, 0.0..=1.0_f64, 1..=100_u8, 1..=100_u8, any::<Option<NonZeroU16>>()).prop_map(
            |(interval, share, rise, fall, port)| HealthSpec {
                kind: HealthType::Tcp,
                interval: Period::from_millis(interval),
                timeout: Period::from_millis(10 + ((interval - 10) as f64 * share) as u64),
                rise,
                fall,
                port,
            },
        )
    }

    #[test]
    fn absent_options_take_their_defaults() {
        let spec: HealthSpec = "tcp".parse().unwrap();
        assert_eq!(spec.to_string(), "tcp,interval=2s,timeout=1s,rise=2,fall=3");
        assert_eq!(Checks::default_of(Protocol::Tcp).to_string(), spec.to_string());
        assert_eq!(Checks::default_of(Protocol::Udp).to_string(), "none");
        let frequent: HealthSpec = "tcp,interval=500ms,port=81".parse().unwrap();
        assert_eq!(frequent.to_string(), "tcp,interval=500ms,timeout=500ms,rise=2,fall=3,port=81");
    }

    #[test]
    fn each_bad_check_has_its_message() {
        let cases = [
            ("http", "unknown health type `http`: valid are tcp, none"),
            ("", "unknown health type ``: valid are tcp, none"),
            ("none,rise=2", "health `none` stands alone: leave out the rest"),
            (
                "tcp,path=/x",
                "invalid health option `path=/x`: valid are interval=, timeout=, rise=, fall= and port=",
            ),
            ("tcp,", "invalid health option ``: valid are interval=, timeout=, rise=, fall= and port="),
            ("tcp,rise=0", "invalid health rise `0`: it is a whole number from 1 to 100"),
            ("tcp,fall=x", "invalid health fall `x`: it is a whole number from 1 to 100"),
            ("tcp,port=65536", "invalid health port `65536`: it is a whole number from 1 to 65535"),
            ("tcp,rise=2,rise=2", "health option `rise` is given twice"),
            (
                "tcp,interval=5",
                "health interval: invalid duration `5`: write a number with its unit, such as 500ms, 2s, 5m or 1h; at most 168h",
            ),
            ("tcp,interval=10ms", "invalid health interval `10ms`: it is from 100ms to 1h"),
            ("tcp,timeout=3s", "invalid health timeout `3s`: it is from 10ms to the interval, `2s`"),
        ];
        for (text, message) in cases {
            let error = text.parse::<HealthArgument>().map(|argument| panic!("{argument:?}")).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn none_stands_alone_and_no_check_twice() {
        let tcp = HealthArgument::Check("tcp".parse().unwrap());
        assert_eq!(Checks::new([tcp.clone(), HealthArgument::None]), Err(InvalidHealth::NoneBeside));
        assert_eq!(
            Checks::new([tcp.clone(), tcp]).unwrap_err().to_string(),
            "health check `tcp,interval=2s,timeout=1s,rise=2,fall=3` is given twice"
        );
    }

    proptest! {
        #[test]
        fn every_check_survives_printing(spec in any_spec()) {
            prop_assert_eq!(spec.to_string().parse::<HealthSpec>(), Ok(spec));
        }

        #[test]
        fn no_text_makes_it_panic(text in "(tcp|none|.{0,5})(,[a-z]{0,8}=?[0-9a-z]{0,6}){0,4}") {
            drop(text.parse::<HealthArgument>());
        }
    }
}
