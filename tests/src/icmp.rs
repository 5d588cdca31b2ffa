//! Listening for ICMP errors, as traceroute does.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SocketType, ipproto, recvfrom, socket};

use crate::address::Family;

/// A raw ICMP or ICMPv6 socket: it sees all ICMP that reaches the namespace in which it was opened.
#[derive(Debug)]
pub struct IcmpListener {
    socket: OwnedFd,
    family: Family,
    timeout: Duration,
}

/// A "time exceeded" and the packet that it quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeExceeded {
    /// Who sent it.
    pub from: IpAddr,
    /// Where the quoted packet was going.
    pub quoted_destination: IpAddr,
    /// The quoted packet's source and destination port.
    pub quoted_ports: (u16, u16),
}

impl IcmpListener {
    /// Opens the socket; each wait takes `timeout` at most.
    ///
    /// # Errors
    /// Without CAP_NET_RAW.
    pub fn open(family: Family, timeout: Duration) -> io::Result<Self> {
        let (domain, protocol) = match family {
            Family::V4 => (AddressFamily::INET, ipproto::ICMP),
            Family::V6 => (AddressFamily::INET6, ipproto::ICMPV6),
        };
        let socket = socket(domain, SocketType::RAW, Some(protocol))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(timeout))?;
        Ok(Self { socket, family, timeout })
    }

    /// Waits for a "time exceeded"; other ICMP, such as neighbour discovery, is passed over.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn time_exceeded(&self) -> io::Result<TimeExceeded> {
        let deadline = Instant::now() + self.timeout;
        let mut packet = [0_u8; 2048];
        while Instant::now() < deadline {
            let (length, _, from) = recvfrom(&self.socket, &mut packet[..], RecvFlags::empty())?;
            let from =
                from.and_then(|from| SocketAddr::try_from(from).ok()).ok_or(ErrorKind::InvalidData)?.ip();
            let parsed = match self.family {
                Family::V4 => parse_v4(&packet[..length], from),
                Family::V6 => parse_v6(&packet[..length], from),
            };
            if let Some(answer) = parsed {
                return Ok(answer);
            }
        }
        Err(ErrorKind::TimedOut.into())
    }
}

/// A raw IPv4 socket yields the IP header too. RFC 792: type 11, code 0 is "time to live exceeded in transit"; the
/// quote begins after 8 bytes.
fn parse_v4(packet: &[u8], from: IpAddr) -> Option<TimeExceeded> {
    let icmp = packet.get(header_len_v4(packet)?..)?;
    if icmp.get(..2)? != [11, 0] {
        return None;
    }
    let quote = icmp.get(8..)?;
    let destination: [u8; 4] = quote.get(16..20)?.try_into().ok()?;
    let quoted_ports = ports(quote.get(header_len_v4(quote)?..)?)?;
    Some(TimeExceeded { from, quoted_destination: Ipv4Addr::from(destination).into(), quoted_ports })
}

/// A raw IPv6 socket begins with the ICMPv6 header. RFC 4443: type 3, code 0 is "hop limit exceeded in transit".
fn parse_v6(icmp: &[u8], from: IpAddr) -> Option<TimeExceeded> {
    if icmp.get(..2)? != [3, 0] {
        return None;
    }
    let quote = icmp.get(8..)?;
    let destination: [u8; 16] = quote.get(24..40)?.try_into().ok()?;
    let quoted_ports = ports(quote.get(40..)?)?;
    Some(TimeExceeded { from, quoted_destination: Ipv6Addr::from(destination).into(), quoted_ports })
}

/// RFC 791: the low four bits of the first byte count 32-bit words.
fn header_len_v4(packet: &[u8]) -> Option<usize> {
    Some(usize::from(packet.first()? & 0xf) * 4)
}

fn ports(transport: &[u8]) -> Option<(u16, u16)> {
    let port = |at| Some(u16::from_be_bytes(transport.get(at..at + 2)?.try_into().ok()?));
    Some((port(0)?, port(2)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn quoted_v4(options: usize) -> Vec<u8> {
        let mut quote = vec![0; 20 + options * 4];
        quote[0] = 0x45 + options as u8;
        quote[16..20].copy_from_slice(&[10, 0, 0, 100]);
        quote.extend([0x9c, 0x40, 0, 7]);
        quote
    }

    #[test]
    fn the_quote_is_found_behind_ip_options() {
        for options in 0..=10 {
            let mut packet = vec![0x45];
            packet.resize(20, 0);
            packet.extend([11, 0, 0, 0, 0, 0, 0, 0]);
            packet.extend(quoted_v4(options));
            let answer = parse_v4(&packet, FROM).unwrap();
            assert_eq!(answer.quoted_destination, IpAddr::from([10, 0, 0, 100]));
            assert_eq!(answer.quoted_ports, (40_000, 7));
        }
    }

    #[test]
    fn what_is_cut_short_or_something_else_is_passed_over() {
        let mut packet = vec![0x45];
        packet.resize(20, 0);
        packet.extend([11, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend(quoted_v4(0));
        for length in 0..packet.len() {
            assert_eq!(parse_v4(&packet[..length], FROM), None, "{length}");
        }
        packet[20] = 3;
        assert_eq!(parse_v4(&packet, FROM), None);
        assert_eq!(parse_v6(&[135, 0, 0, 0], FROM), None);
    }
}
