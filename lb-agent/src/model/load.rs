//! How loaded a backend says it is.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::quote::Quoted;

/// From 0, idle, to 1, full. What is reported beyond is full too: a load average may be.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Load(f64);

/// A load that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid load {}: it is a number from 0, idle, to 1, full", Quoted(.0))]
pub struct InvalidLoad(String);

impl Load {
    /// As a number from 0 to 1.
    pub const fn get(self) -> f64 {
        self.0
    }

    fn checked(number: f64, text: &str) -> Result<Self, InvalidLoad> {
        match number.is_finite() && number >= 0.0 {
            true => Ok(Self(number.min(1.0))),
            false => Err(InvalidLoad(text.to_owned())),
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Load {
    type Err = InvalidLoad;

    fn from_str(text: &str) -> Result<Self, InvalidLoad> {
        Self::checked(text.parse().map_err(|_| InvalidLoad(text.to_owned()))?, text)
    }
}

impl<'de> Deserialize<'de> for Load {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        Self::checked(number, &number.to_string()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_numbers_from_0_on() {
        for (text, load) in [("0", 0.0), ("0.35", 0.35), ("1", 1.0), ("17.5", 1.0)] {
            assert_eq!(text.parse::<Load>().unwrap().get(), load);
            assert_eq!(serde_json::from_str::<Load>(text).unwrap().get(), load);
        }
        for text in ["", "-0.1", "nan", "inf", "half"] {
            assert!(text.parse::<Load>().is_err(), "{text:?}");
        }
        assert_eq!(
            serde_json::from_str::<Load>("-1").unwrap_err().to_string(),
            "invalid load `-1`: it is a number from 0, idle, to 1, full"
        );
    }
}
