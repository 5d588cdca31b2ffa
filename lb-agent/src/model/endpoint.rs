//! An address and port that packets can be sent to: a VIP's or a backend's.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::quote::Quoted;

/// A unicast address of one host, with a port from 1 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Endpoint(SocketAddr);

/// A text that is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid address {}: {reason}", Quoted(text))]
pub struct InvalidEndpoint {
    text: String,
    reason: &'static str,
}

impl Endpoint {
    /// Address and port.
    pub const fn socket(self) -> SocketAddr {
        self.0
    }

    /// The address alone.
    pub const fn ip(self) -> IpAddr {
        self.0.ip()
    }

    /// `IPv4` or `IPv6`, for messages.
    pub const fn family(self) -> &'static str {
        match self.0 {
            SocketAddr::V4(_) => "IPv4",
            SocketAddr::V6(_) => "IPv6",
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let invalid = |reason| InvalidEndpoint { text: text.to_owned(), reason };
        let socket: SocketAddr = text.parse().map_err(|_| invalid(malformed(text)))?;
        match unusable(socket) {
            Some(reason) => Err(invalid(reason)),
            None => Ok(Self(socket)),
        }
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Why a text is not an address and a port at all.
fn malformed(text: &str) -> &'static str {
    if text.parse::<IpAddr>().is_ok() {
        return "it has no port: write ADDR:PORT, or [ADDR]:PORT for IPv6";
    }
    match text.rsplit_once(':') {
        Some((host, _)) if host.parse::<std::net::Ipv4Addr>().is_ok() || host.ends_with(']') => {
            "the port must be a number from 1 to 65535"
        }
        _ => "write ADDR:PORT, or [ADDR]:PORT for IPv6, with an address and not a host name",
    }
}

/// Why no service or backend can have this address.
fn unusable(socket: SocketAddr) -> Option<&'static str> {
    if socket.port() == 0 {
        return Some("the port must be a number from 1 to 65535");
    }
    let ip = socket.ip();
    if ip.is_unspecified() {
        return Some("it is the unspecified address, not a host's");
    }
    if ip.is_loopback() {
        return Some("a loopback address never leaves this machine");
    }
    if ip.is_multicast() {
        return Some("a multicast address is not one host's");
    }
    match socket {
        SocketAddr::V4(v4) if v4.ip().is_broadcast() => Some("the broadcast address is not one host's"),
        // RFC 1122 section 3.2.1.3: network zero is this host on this network, never a destination.
        SocketAddr::V4(v4) if v4.ip().octets()[0] == 0 => Some("addresses of 0.0.0.0/8 are not a host's"),
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => {
            Some("an IPv4-mapped address never is on the wire: write it as IPv4")
        }
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() || v6.scope_id() != 0 => {
            Some("a link-local address is valid on one link only: use a routable one")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(text: &str) -> String {
        text.parse::<Endpoint>().unwrap_err().to_string()
    }

    #[test]
    fn endpoints_print_as_they_are_typed() {
        for text in ["10.0.0.100:80", "[fd00::1]:65535", "192.0.2.1:1"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn each_bad_address_has_its_reason() {
        let cases = [
            (
                "10.0.0.1",
                "invalid address `10.0.0.1`: it has no port: write ADDR:PORT, or [ADDR]:PORT for IPv6",
            ),
            (
                "fd00::1",
                "invalid address `fd00::1`: it has no port: write ADDR:PORT, or [ADDR]:PORT for IPv6",
            ),
            ("10.0.0.1:0", "invalid address `10.0.0.1:0`: the port must be a number from 1 to 65535"),
            ("10.0.0.1:65536", "invalid address `10.0.0.1:65536`: the port must be a number from 1 to 65535"),
            ("[fd00::1]:x", "invalid address `[fd00::1]:x`: the port must be a number from 1 to 65535"),
            (
                "10.0.0.999:80",
                "invalid address `10.0.0.999:80`: write ADDR:PORT, or [ADDR]:PORT for IPv6, with an address and not a host name",
            ),
            (
                "",
                "invalid address ``: write ADDR:PORT, or [ADDR]:PORT for IPv6, with an address and not a host name",
            ),
            ("0.0.0.0:80", "invalid address `0.0.0.0:80`: it is the unspecified address, not a host's"),
            ("[::]:80", "invalid address `[::]:80`: it is the unspecified address, not a host's"),
            ("127.0.0.1:80", "invalid address `127.0.0.1:80`: a loopback address never leaves this machine"),
            ("[::1]:80", "invalid address `[::1]:80`: a loopback address never leaves this machine"),
            ("224.0.0.1:80", "invalid address `224.0.0.1:80`: a multicast address is not one host's"),
            ("[ff02::1]:80", "invalid address `[ff02::1]:80`: a multicast address is not one host's"),
            (
                "255.255.255.255:80",
                "invalid address `255.255.255.255:80`: the broadcast address is not one host's",
            ),
            ("0.1.2.3:80", "invalid address `0.1.2.3:80`: addresses of 0.0.0.0/8 are not a host's"),
            (
                "[::ffff:10.0.0.1]:80",
                "invalid address `[::ffff:10.0.0.1]:80`: an IPv4-mapped address never is on the wire: write it as IPv4",
            ),
            (
                "[fe80::1]:80",
                "invalid address `[fe80::1]:80`: a link-local address is valid on one link only: use a routable one",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(refusal(text), message);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_what_parses_prints_and_parses_again(text in ".{0,40}") {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                prop_assert_eq!(endpoint.to_string().parse::<Endpoint>(), Ok(endpoint));
            }
        }
    }
}
