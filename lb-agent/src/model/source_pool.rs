//! The addresses that stand for a full-NAT service's clients.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::quote::Quoted;
use super::text::as_text;

/// Unicast addresses, each once, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct SourcePool(BTreeSet<IpAddr>);

/// An address of a source pool: a host's, without a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolAddress(IpAddr);

/// A text that is no such address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid source address {}: {reason}", Quoted(text))]
pub struct InvalidPoolAddress {
    text: String,
    reason: &'static str,
}

impl SourcePool {
    /// Addresses that one service can have.
    pub const MAX: usize = lb_common::port::ENTRIES as usize;

    /// The addresses, in their order.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        self.0.iter().copied()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<PoolAddress> for SourcePool {
    fn from_iter<I: IntoIterator<Item = PoolAddress>>(addresses: I) -> Self {
        Self(addresses.into_iter().map(|PoolAddress(address)| address).collect())
    }
}

/// As a state file has it: `["10.0.1.5", "10.0.1.6"]`.
impl fmt::Display for SourcePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<_> = self.0.iter().map(|address| format!("\"{address}\"")).collect();
        write!(f, "[{}]", addresses.join(", "))
    }
}

impl FromStr for PoolAddress {
    type Err = InvalidPoolAddress;

    fn from_str(text: &str) -> Result<Self, InvalidPoolAddress> {
        let invalid = |reason| InvalidPoolAddress { text: text.to_owned(), reason };
        if text.parse::<std::net::SocketAddr>().is_ok() {
            return Err(invalid("it has a port: ports are taken from `[limits] source_ports`"));
        }
        let address: IpAddr = text.parse().map_err(|_| invalid("it is no IPv4 or IPv6 address"))?;
        let unusable = address.is_unspecified()
            || address.is_loopback()
            || address.is_multicast()
            || matches!(address, IpAddr::V4(v4) if v4.is_broadcast() || v4.is_link_local() || v4.octets()[0] == 0)
            || matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some());
        if unusable {
            Err(invalid("it is not the address of one host that backends can answer to"))
        } else {
            Ok(Self(address))
        }
    }
}

impl fmt::Display for PoolAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

as_text!(PoolAddress);

impl<'de> Deserialize<'de> for SourcePool {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<PoolAddress>::deserialize(deserializer).map(Self::from_iter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bad_address_has_its_message() {
        let error = |text: &str| text.parse::<PoolAddress>().unwrap_err().to_string();
        assert_eq!(
            error("10.0.1.5:80"),
            "invalid source address `10.0.1.5:80`: it has a port: ports are taken from `[limits] source_ports`"
        );
        assert_eq!(error("web"), "invalid source address `web`: it is no IPv4 or IPv6 address");
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "169.254.0.1",
            "::",
            "::1",
            "ff02::1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ] {
            let reason = "it is not the address of one host that backends can answer to";
            assert_eq!(error(text), format!("invalid source address `{text}`: {reason}"));
        }
    }

    #[test]
    fn a_pool_is_printed_in_the_order_of_its_addresses() {
        let pool: SourcePool =
            ["10.0.1.6", "10.0.1.5", "10.0.1.6"].iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(pool.to_string(), "[\"10.0.1.5\", \"10.0.1.6\"]");
    }
}
