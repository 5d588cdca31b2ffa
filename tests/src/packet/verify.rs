//! Whether every checksum in a frame is right, as a receiver would see it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum;

/// Checks the IPv4 header, TCP, UDP, ICMP and ICMPv6, and the IPv4 header that an ICMP error quotes.
///
/// # Errors
///
/// Which checksum is wrong, or what cannot be read. A frame that is not IP has none and is right.
pub fn checksums_valid(frame: &[u8]) -> Result<(), String> {
    let mut at = 12;
    let mut ethertype = half(frame, at)?;
    while matches!(ethertype, 0x8100 | 0x88a8) {
        at += 4;
        ethertype = half(frame, at)?;
    }
    match ethertype {
        0x0800 => ipv4(&frame[at + 2..], Extent::Whole),
        0x86dd => ipv6(&frame[at + 2..], Extent::Whole),
        _ => Ok(()),
    }
}

/// How much of a packet there must be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    /// Quotes are cut off: what lies beyond cannot be judged.
    Quoted,
}

fn half(bytes: &[u8], at: usize) -> Result<u16, String> {
    match bytes.get(at..at + 2) {
        Some(pair) => Ok(u16::from_be_bytes([pair[0], pair[1]])),
        None => Err(format!("ends before byte {}", at + 2)),
    }
}

fn ipv4(packet: &[u8], extent: Extent) -> Result<(), String> {
    let header: &[u8; 20] = packet.first_chunk().ok_or("no whole IPv4 header")?;
    let length = usize::from(header[0] & 0xf) * 4;
    let whole = packet.get(..length).ok_or("IPv4 header cut off")?;
    if header[0] >> 4 != 4 || length < 20 {
        return Err(format!("first byte {:#04x} of an IPv4 header", header[0]));
    }
    if checksum::sum(whole) != 0xffff {
        return Err("wrong IPv4 header checksum".into());
    }
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return Ok(()); // A fragment: its datagram's checksum takes all of them.
    }
    let end = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let Some(payload) = packet.get(length..end) else {
        return if extent == Extent::Quoted { Ok(()) } else { Err("IPv4 packet cut off".into()) };
    };
    let address = |at: usize| Ipv4Addr::from([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    transport(header[9], payload, address(12).into(), address(16).into())
}

fn ipv6(packet: &[u8], extent: Extent) -> Result<(), String> {
    let header: &[u8; 40] = packet.first_chunk().ok_or("no whole IPv6 header")?;
    let end = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    let Some(packet) = packet.get(..end) else {
        return if extent == Extent::Quoted { Ok(()) } else { Err("IPv6 packet cut off".into()) };
    };
    let (mut next, mut at) = (header[6], 40);
    while matches!(next, 0 | 43 | 44 | 60) {
        let extension = packet.get(at..at + 8).ok_or("extension header cut off")?;
        if next == 44 && u16::from_be_bytes([extension[2], extension[3]]) & 0xfff9 != 0 {
            return Ok(()); // As in IPv4.
        }
        at += if next == 44 { 8 } else { (usize::from(extension[1]) + 1) * 8 };
        next = extension[0];
    }
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&header[at..at + 16]).unwrap_or_default());
    let payload = packet.get(at..).ok_or("extension headers beyond the packet's end")?;
    transport(next, payload, address(8).into(), address(24).into())
}

fn transport(protocol: u8, bytes: &[u8], source: IpAddr, destination: IpAddr) -> Result<(), String> {
    let over_addresses = |name: &str, bytes: &[u8]| {
        let mut covered = checksum::pseudo_header(source, destination, protocol, bytes.len());
        covered.extend(bytes);
        if checksum::sum(&covered) == 0xffff { Ok(()) } else { Err(format!("wrong {name} checksum")) }
    };
    match protocol {
        6 => over_addresses("TCP", bytes),
        17 if half(bytes, 6)? == 0 && source.is_ipv4() => Ok(()),
        17 if half(bytes, 6)? == 0 => Err("UDP over IPv6 without a checksum".into()),
        17 => {
            // What follows the datagram's own length is the IP packet's surplus (RFC 768).
            let length = usize::from(half(bytes, 4)?);
            over_addresses("UDP", bytes.get(..length).ok_or("UDP length beyond the packet's end")?)
        }
        1 if checksum::sum(bytes) != 0xffff => Err("wrong ICMP checksum".into()),
        1 => match (bytes.first(), bytes.get(8..)) {
            (Some(3 | 11 | 12), Some(quote)) => ipv4(quote, Extent::Quoted).map_err(quoted),
            _ => Ok(()),
        },
        58 => {
            over_addresses("ICMPv6", bytes)?;
            match (bytes.first(), bytes.get(8..)) {
                (Some(1..=4), Some(quote)) => ipv6(quote, Extent::Quoted).map_err(quoted),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn quoted(error: String) -> String {
    format!("in the quote: {error}")
}

#[cfg(test)]
mod tests {
    use super::checksums_valid;
    use crate::packet::{Extension, Packet, packet};

    /// Packets, and where their transport headers start.
    fn samples() -> Vec<(usize, Packet)> {
        let four = packet().ipv4("10.1.0.7", "10.0.0.100").options(&[1, 1, 1, 0]);
        let six = packet().ipv6("fd00::7", "fd00::100").extension(Extension::HopByHop(1));
        [(14 + 24, four), (14 + 40 + 16, six)]
            .into_iter()
            .flat_map(|(l4, ip)| {
                let tcp = ip.clone().tcp(1, 2).syn().payload("odd");
                let udp = ip.clone().udp(1, 2).payload("even");
                let error = ip.clone().too_big(1280).quoting(&tcp, 999);
                [error, ip.echo_request(1, 2), tcp, udp].map(|packet| (l4, packet))
            })
            .collect()
    }

    #[test]
    fn what_the_builder_makes_is_right() {
        for (_, sample) in samples() {
            assert_eq!(checksums_valid(&sample.bytes()), Ok(()), "{sample:?}");
        }
    }

    #[test]
    fn any_flipped_bit_behind_the_ip_header_is_seen() {
        for (l4, sample) in samples() {
            let bytes = sample.bytes();
            for at in l4..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                assert!(checksums_valid(&changed).is_err(), "byte {at} of {sample:?}");
            }
        }
    }
}
