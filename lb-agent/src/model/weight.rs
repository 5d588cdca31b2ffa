//! A backend's weight.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::quote::Quoted;

/// Share of new flows relative to the other backends of the service; 0 takes none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Weight(u16);

/// A weight that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid weight {}: it is a whole number from 0 to 65535", Quoted(.0))]
pub struct InvalidWeight(String);

impl Weight {
    /// As a number.
    pub const fn get(self) -> u32 {
        self.0 as u32
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(1)
    }
}

impl From<u16> for Weight {
    fn from(weight: u16) -> Self {
        Self(weight)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Weight {
    type Err = InvalidWeight;

    fn from_str(text: &str) -> Result<Self, InvalidWeight> {
        match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse().map(Self).map_err(|_| InvalidWeight(text.to_owned())),
            false => Err(InvalidWeight(text.to_owned())),
        }
    }
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i64::deserialize(deserializer)?.to_string().parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_16_bit_numbers() {
        assert_eq!("65535".parse(), Ok(Weight(65535)));
        for text in ["", "-1", "+1", "1.0", "65536", "one"] {
            assert!(text.parse::<Weight>().is_err(), "{text:?}");
        }
        assert_eq!(
            "65536".parse::<Weight>().unwrap_err().to_string(),
            "invalid weight `65536`: it is a whole number from 0 to 65535"
        );
    }
}
