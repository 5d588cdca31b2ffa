//! A prefix of addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::quote::Quoted;
use super::text::as_text;

/// The addresses that begin alike: a network, and how many bits of it count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    network: IpAddr,
    length: u8,
}

/// A text that is no prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid prefix {}: {reason}", Quoted(text))]
pub struct InvalidPrefix {
    text: String,
    reason: String,
}

impl Prefix {
    /// The address with which all of them begin.
    pub const fn network(self) -> IpAddr {
        self.network
    }

    /// How many bits count.
    pub const fn length(self) -> u8 {
        self.length
    }

    /// `IPv4` or `IPv6`, for messages.
    pub const fn family(self) -> &'static str {
        match self.network {
            IpAddr::V4(_) => "IPv4",
            IpAddr::V6(_) => "IPv6",
        }
    }
}

/// The first bits of an address, the rest zero.
fn network(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

impl FromStr for Prefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        let invalid = |reason: String| InvalidPrefix { text: text.to_owned(), reason };
        let (address, length) =
            text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let Ok(address) = address.parse::<IpAddr>() else {
            return Err(invalid("write ADDR/LENGTH, or an address alone, and not a host name".to_owned()));
        };
        let (bits, family) = if address.is_ipv4() { (32, "IPv4") } else { (128, "IPv6") };
        let length = match length.map(str::parse::<u8>) {
            None => bits,
            Some(Ok(length)) if length <= bits => length,
            Some(_) => {
                return Err(invalid(format!(
                    "the length of an {family} prefix is a number from 0 to {bits}"
                )));
            }
        };
        let prefix = Self { network: network(address, length), length };
        if prefix.network != address {
            return Err(invalid(format!(
                "bits are set behind the first {length}: write {prefix}, or {address}/{bits}"
            )));
        }
        Ok(prefix)
    }
}

as_text!(Prefix);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_read_and_printed() {
        for (text, printed) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fd00:0:0::/48", "fd00::/48"),
            ("::/0", "::/0"),
            ("fd00::1", "fd00::1/128"),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn each_bad_prefix_has_its_message() {
        for (text, message) in [
            ("web", "invalid prefix `web`: write ADDR/LENGTH, or an address alone, and not a host name"),
            (
                "10.0.0.0/33",
                "invalid prefix `10.0.0.0/33`: the length of an IPv4 prefix is a number from 0 to 32",
            ),
            (
                "fd00::/129",
                "invalid prefix `fd00::/129`: the length of an IPv6 prefix is a number from 0 to 128",
            ),
            (
                "10.0.0.0/",
                "invalid prefix `10.0.0.0/`: the length of an IPv4 prefix is a number from 0 to 32",
            ),
            (
                "10.1.0.0/8",
                "invalid prefix `10.1.0.0/8`: bits are set behind the first 8: write 10.0.0.0/8, or 10.1.0.0/32",
            ),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap_err().to_string(), message);
        }
    }
}
