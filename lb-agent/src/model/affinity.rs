//! For how long a client's flows follow those before them.

use std::fmt;
use std::str::FromStr;

use super::period::Period;
use super::quote::Quoted;
use super::text::as_text;

/// Since the client's last new flow; `off` where each is balanced by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Affinity(Option<Period>);

/// A text that is no affinity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid affinity {}: write `off`, or a time from {} to {}, such as 10m", Quoted(.0), Affinity::LEAST, Affinity::MOST)]
pub struct InvalidAffinity(String);

impl Affinity {
    /// The data plane counts in seconds.
    const LEAST: Period = Period::from_secs(1);
    /// Further than a day, an entry's age is not worth its room.
    const MOST: Period = Period::from_secs(24 * 3600);

    /// How long it holds.
    pub const fn period(self) -> Option<Period> {
        self.0
    }
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(period) => period.fmt(f),
            None => f.write_str("off"),
        }
    }
}

impl FromStr for Affinity {
    type Err = InvalidAffinity;

    fn from_str(text: &str) -> Result<Self, InvalidAffinity> {
        if text == "off" {
            return Ok(Self(None));
        }
        let period = text.parse().ok().filter(|period| (Self::LEAST..=Self::MOST).contains(period));
        period.map(|period| Self(Some(period))).ok_or_else(|| InvalidAffinity(text.to_owned()))
    }
}

as_text!(Affinity);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_off_or_a_time_of_a_day_at_most() {
        for (typed, printed) in [("off", "off"), ("600s", "10m"), ("24h", "24h"), ("1s", "1s")] {
            assert_eq!(typed.parse::<Affinity>().unwrap().to_string(), printed);
        }
        for text in ["", "on", "0s", "999ms", "25h", "10"] {
            assert_eq!(
                text.parse::<Affinity>().unwrap_err().to_string(),
                format!("invalid affinity `{text}`: write `off`, or a time from 1s to 24h, such as 10m")
            );
        }
    }
}
