//! A service's name.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::quote::Quoted;

/// Names a service for people, in files, paths and metrics: letters, digits, `.`, `_` and `-`, at most 63.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ServiceName(String);

/// A name that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid service name {}: use 1 to {} of the characters A-Z a-z 0-9 . _ -", Quoted(.0), ServiceName::MAX)]
pub struct InvalidName(String);

impl ServiceName {
    /// As long as a DNS label.
    pub const MAX: usize = 63;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for ServiceName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        match (1..=Self::MAX).contains(&text.len()) && text.bytes().all(allowed) {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidName(text.to_owned())),
        }
    }
}

impl<'de> Deserialize<'de> for ServiceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_up_to_63_characters_of_the_set_are_taken() {
        for name in ["w", "web-1.example_A", &"n".repeat(63)] {
            assert_eq!(name.parse::<ServiceName>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn other_names_are_refused() {
        for name in ["", "a b", "a/b", "wéb", "web\n", &"n".repeat(64)] {
            assert!(name.parse::<ServiceName>().is_err(), "{name:?}");
        }
        assert_eq!(
            "a b".parse::<ServiceName>().unwrap_err().to_string(),
            "invalid service name `a b`: use 1 to 63 of the characters A-Z a-z 0-9 . _ -"
        );
        let long = "n".repeat(100_000).parse::<ServiceName>().unwrap_err().to_string();
        assert!(long.len() < 200, "{long}");
    }
}
