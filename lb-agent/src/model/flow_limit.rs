//! A limit of new flows: `N/s[,burst=M][,prefix=L]`, or `none`.

use std::fmt;
use std::str::FromStr;

use lb_common::limit::{HORIZON, Limit};

use super::quote::Quoted;
use super::text::as_text;

/// How many new flows a second; nothing where there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowLimit(pub Option<Rate>);

/// A rate of new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Flows a second.
    pub flows: u32,
    /// Flows at once.
    pub burst: u32,
    /// Bits of its address by which a source is told apart; only of a limit by source, and there the family's default
    /// where nothing is said.
    pub prefix: Option<u8>,
}

/// A text that is no limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid limit {}: {reason}", Quoted(text))]
pub struct InvalidLimit {
    text: String,
    reason: String,
}

impl fmt::Display for FlowLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Rate { flows, burst, prefix }) = self.0 else { return f.pad("none") };
        write!(f, "{flows}/s,burst={burst}")?;
        prefix.map_or(Ok(()), |prefix| write!(f, ",prefix={prefix}"))
    }
}

impl FromStr for FlowLimit {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        if text == "none" {
            return Ok(Self(None));
        }
        parse(text)
            .map(|rate| Self(Some(rate)))
            .map_err(|reason| InvalidLimit { text: text.to_owned(), reason })
    }
}

fn parse(text: &str) -> Result<Rate, String> {
    let mut parts = text.split(',');
    let flows = parts.next().and_then(|rate| rate.strip_suffix("/s"));
    let Some(flows) =
        flows.and_then(|flows| flows.parse().ok()).filter(|flows| (1..=Limit::MAX_RATE).contains(flows))
    else {
        return Err(format!("write N/s[,burst=M] with N from 1 to {}, or none", Limit::MAX_RATE));
    };
    // A second's worth at once, unless something else is said.
    let mut rate = Rate { flows, burst: flows, prefix: None };
    let most = u64::from(Limit::MAX_BURST).min(u64::from(flows) * HORIZON);
    for part in parts {
        match part.split_once('=') {
            Some(("burst", burst)) => {
                let burst = burst.parse().ok().filter(|&burst| burst >= 1 && u64::from(burst) <= most);
                rate.burst = burst
                    .ok_or_else(|| format!("burst is a number from 1 to {most}, an hour's worth at most"))?;
            }
            Some(("prefix", prefix)) => {
                let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 128);
                rate.prefix = Some(prefix.ok_or("prefix is a number from 0 to 32, or to 128 for IPv6")?);
            }
            _ => return Err(format!("unknown part {}: valid are burst, prefix", Quoted(part))),
        }
    }
    Ok(rate)
}

as_text!(FlowLimit);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_read_and_printed() {
        for (text, printed) in [
            ("none", "none"),
            ("1000/s", "1000/s,burst=1000"),
            ("10/s,burst=50", "10/s,burst=50"),
            ("10/s,prefix=24,burst=7", "10/s,burst=7,prefix=24"),
            ("1/s,burst=3600", "1/s,burst=3600"),
        ] {
            assert_eq!(text.parse::<FlowLimit>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn each_bad_limit_has_its_message() {
        let rate = "write N/s[,burst=M] with N from 1 to 10000000, or none";
        for (text, reason) in [
            ("", rate),
            ("10", rate),
            ("0/s", rate),
            ("10000001/s", rate),
            ("10/m", rate),
            ("10/s,burst=0", "burst is a number from 1 to 36000, an hour's worth at most"),
            ("10/s,burst=36001", "burst is a number from 1 to 36000, an hour's worth at most"),
            ("10/s,prefix=129", "prefix is a number from 0 to 32, or to 128 for IPv6"),
            ("10/s,bursts=3", "unknown part `bursts=3`: valid are burst, prefix"),
        ] {
            let expected = format!("invalid limit `{text}`: {reason}");
            assert_eq!(text.parse::<FlowLimit>().unwrap_err().to_string(), expected);
        }
    }
}
