//! A number as people say it: `250k`, `1.5M`, `10G`.

use std::fmt;
use std::str::FromStr;

use crate::model::Quoted;

/// A whole number that is not negative, written with a decimal suffix where it is large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(pub u64);

/// A text that is no such number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid number {}: write digits, or digits with k, M, G or T, such as 250k or 1.5M", Quoted(.0))]
pub struct InvalidQuantity(String);

/// Suffixes with what they stand for, largest first.
const SUFFIXES: [(char, u64); 4] =
    [('T', 1_000_000_000_000), ('G', 1_000_000_000), ('M', 1_000_000), ('k', 1000)];

impl FromStr for Quantity {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let invalid = || InvalidQuantity(text.to_owned());
        let suffix = SUFFIXES.iter().find(|(suffix, _)| text.ends_with(*suffix));
        let (digits, unit) = suffix.map_or((text, 1), |(_, unit)| (&text[..text.len() - 1], *unit));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let number = |digits: &str| -> Option<u64> {
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| digits.parse().ok()).flatten()
        };
        let (whole, fraction) = (number(whole).ok_or_else(invalid)?, (number(fraction), fraction.len()));
        let (Some(parts), digits @ 1..=12) = fraction else { return Err(invalid()) };
        // A part of a unit that is no whole number is none: half a packet.
        let scaled = parts.checked_mul(unit).ok_or_else(invalid)?;
        let of = 10_u64.pow(digits as u32);
        if !scaled.is_multiple_of(of) {
            return Err(invalid());
        }
        whole.checked_mul(unit).and_then(|whole| whole.checked_add(scaled / of)).map(Self).ok_or_else(invalid)
    }
}

impl fmt::Display for Quantity {
    /// With three digits that count: for people, not to be read back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((suffix, unit)) = SUFFIXES.iter().find(|(_, unit)| self.0 >= *unit) else {
            return self.0.fmt(f);
        };
        let value = self.0 as f64 / *unit as f64;
        let places = if self.0.is_multiple_of(*unit) || value >= 100.0 { 0 } else { 1 };
        write!(f, "{value:.places$}{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_say_them() {
        for (text, number) in
            [("0", 0), ("17", 17), ("250k", 250_000), ("1.5M", 1_500_000), ("10G", 10_000_000_000)]
        {
            assert_eq!(text.parse(), Ok(Quantity(number)), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused_with_its_text() {
        for text in ["", "k", "-1", "+1", "1.M", ".5k", "1.5", "1e6", "1 k", "1kk", "99999999999T", "1.0005k"]
        {
            assert!(text.parse::<Quantity>().is_err(), "{text:?}");
        }
        assert_eq!(
            "many".parse::<Quantity>().unwrap_err().to_string(),
            "invalid number `many`: write digits, or digits with k, M, G or T, such as 250k or 1.5M"
        );
    }

    #[test]
    fn large_numbers_are_printed_short() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1k"), (1_540_000, "1.5M"), (250_400, "250k")] {
            assert_eq!(Quantity(number).to_string(), text);
        }
    }
}
