//! A length of time as people write it: `500ms`, `2s`, `5m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::quote::Quoted;
use super::text::as_text;

/// Whole milliseconds, written as a number and a unit: `ms`, `s`, `m` or `h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(u64);

/// A text that is no length of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid duration {}: write a number with its unit, such as 500ms, 2s, 5m or 1h; at most {}", Quoted(.0), Period::MAX)]
pub struct InvalidPeriod(String);

/// Units with their milliseconds, largest first.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl Period {
    /// A week: longer than any drain or interval that makes sense, and far from overflowing any clock.
    pub const MAX: Self = Self(7 * 24 * 3_600_000);

    /// That many milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(milliseconds)
    }

    /// That many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds * 1000)
    }

    /// As the standard library has it.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl fmt::Display for Period {
    /// In the largest unit that it is a whole number of, so that equal periods print alike.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, unit)| self.0 != 0 && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "0s"),
        }
    }
}

impl FromStr for Period {
    type Err = InvalidPeriod;

    fn from_str(text: &str) -> Result<Self, InvalidPeriod> {
        let invalid = || InvalidPeriod(text.to_owned());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let (_, milliseconds) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(invalid)?;
        let number: u64 = number.parse().map_err(|_| invalid())?;
        let period = Self(number.checked_mul(*milliseconds).ok_or_else(invalid)?);
        if period <= Self::MAX { Ok(period) } else { Err(invalid()) }
    }
}

as_text!(Period);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_periods_print_alike() {
        for (typed, printed) in [
            ("500ms", "500ms"),
            ("2000ms", "2s"),
            ("60s", "1m"),
            ("90s", "90s"),
            ("120m", "2h"),
            ("0ms", "0s"),
        ] {
            assert_eq!(typed.parse::<Period>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "5", "s", "1.5s", "-1s", "5 s", "5S", "99999999999999999999s", "169h", "5µs"] {
            assert!(text.parse::<Period>().is_err(), "{text:?}");
        }
        assert_eq!(
            "5".parse::<Period>().unwrap_err().to_string(),
            "invalid duration `5`: write a number with its unit, such as 500ms, 2s, 5m or 1h; at most 168h"
        );
    }

    proptest! {
        #[test]
        fn every_period_survives_printing(milliseconds in 0..=Period::MAX.0) {
            let period = Period(milliseconds);
            prop_assert_eq!(period.to_string().parse::<Period>(), Ok(period));
        }
    }
}
