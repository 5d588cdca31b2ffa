//! How much a backend gets that has just come, come back, or does not stay; and what happens when too few are left.

use std::fmt;
use std::str::FromStr;

use super::period::Period;
use super::quote::Quoted;
use super::span::span;
use super::text::as_text;

/// What of a service's backends takes new flows, and how fast they come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FitnessPolicy {
    /// Below which share of fit backends all are used.
    pub panic_threshold: PanicThreshold,
    /// How long a backend takes to grow into its weight.
    pub slow_start: SlowStart,
    /// How long a backend that does not stay is held out at most.
    pub damping: Damping,
}

span! {
    /// How long a backend that is new or has recovered takes to grow into its weight.
    ///
    /// A shorter one would be over before a check could tell that it is too much; a longer one is no start.
    SlowStart, InvalidSlowStart, "slow-start", Period::from_secs(2), Period::from_secs(3600), "30s"
}

span! {
    /// How long a backend that falls again and again is held out at most.
    ///
    /// The first time that it is held out is a sixteenth of that.
    Damping, InvalidDamping, "damping", Period::from_secs(4), Period::from_secs(3600), "2m"
}

span! {
    /// How long a backend that has registered itself is fit after it was last heard of; `off` where nothing is to be heard.
    Lease, InvalidLease, "lease", Period::from_secs(1), Period::from_secs(3600), "10s"
}

/// The percentage of fit backends below which all of them take traffic, fit or not; `off` where unfit ones never do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PanicThreshold(Option<u8>);

/// A text that is no threshold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid panic-threshold {}: write `off`, or a percentage from 1% to 100%, such as 50%", Quoted(.0))]
pub struct InvalidPanicThreshold(String);

impl PanicThreshold {
    /// Whether that many fit ones are too few.
    pub fn is_crossed(self, fit: usize, all: usize) -> bool {
        self.0.is_some_and(|percent| fit * 100 < all * usize::from(percent))
    }
}

impl fmt::Display for PanicThreshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(percent) => write!(f, "{percent}%"),
            None => f.write_str("off"),
        }
    }
}

impl FromStr for PanicThreshold {
    type Err = InvalidPanicThreshold;

    fn from_str(text: &str) -> Result<Self, InvalidPanicThreshold> {
        if text == "off" {
            return Ok(Self(None));
        }
        let digits = text.strip_suffix('%').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let percent =
            digits.and_then(|digits| digits.parse().ok()).filter(|percent| (1..=100).contains(percent));
        percent.map(|percent| Self(Some(percent))).ok_or_else(|| InvalidPanicThreshold(text.to_owned()))
    }
}

as_text!(PanicThreshold);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_off_or_a_percentage() {
        for text in ["off", "1%", "50%", "100%"] {
            assert_eq!(text.parse::<PanicThreshold>().unwrap().to_string(), text);
        }
        for text in ["", "50", "0%", "101%", "+5%", "5.5%", "%", "300%"] {
            assert_eq!(
                text.parse::<PanicThreshold>().unwrap_err().to_string(),
                format!(
                    "invalid panic-threshold `{text}`: write `off`, or a percentage from 1% to 100%, such as 50%"
                )
            );
        }
    }

    #[test]
    fn it_is_crossed_below_its_share_and_not_at_it() {
        let crossed = |text: &str, fit, all| text.parse::<PanicThreshold>().unwrap().is_crossed(fit, all);
        assert!(crossed("50%", 4, 10) && crossed("1%", 0, 1) && crossed("100%", 9, 10));
        assert!(!crossed("50%", 5, 10) && !crossed("1%", 1, 100) && !crossed("50%", 0, 0));
        assert!(!crossed("off", 0, 10));
    }

    #[test]
    fn times_have_bounds() {
        assert_eq!("30s".parse::<SlowStart>().unwrap().to_string(), "30s");
        assert_eq!(
            "1s".parse::<SlowStart>().unwrap_err().to_string(),
            "invalid slow-start `1s`: write `off`, or a time from 2s to 1h, such as 30s"
        );
        assert_eq!(
            "2h".parse::<Damping>().unwrap_err().to_string(),
            "invalid damping `2h`: write `off`, or a time from 4s to 1h, such as 2m"
        );
    }
}
