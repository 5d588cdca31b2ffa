//! A frame for people: a line for each header, then the bytes.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::Mac;

/// Describes a frame, as far as it can be read.
#[must_use]
pub fn describe(frame: &[u8]) -> String {
    let mut text = format!("{} bytes\n", frame.len());
    link(&mut text, frame);
    for (row, bytes) in frame.chunks(16).enumerate() {
        let _ = write!(text, "  {:04x} ", row * 16);
        for byte in bytes {
            let _ = write!(text, " {byte:02x}");
        }
        text.push('\n');
    }
    text
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(half(bytes, at)?) << 16 | u32::from(half(bytes, at + 2)?))
}

fn link(text: &mut String, frame: &[u8]) {
    let Some((destination, rest)) = frame.split_first_chunk::<6>() else { return };
    let Some(source) = rest.first_chunk::<6>() else { return };
    let _ = write!(text, "  eth {} > {}", Mac(*source), Mac(*destination));
    let mut at = 12;
    while let Some(tag @ (0x8100 | 0x88a8)) = half(frame, at) {
        let _ = write!(text, " tag {tag:04x}/{}", half(frame, at + 2).unwrap_or(0));
        at += 4;
    }
    let Some(ethertype) = half(frame, at) else { return };
    let _ = writeln!(text, " {ethertype:04x}");
    match ethertype {
        0x0800 => ipv4(text, &frame[at + 2..]),
        0x86dd => ipv6(text, &frame[at + 2..]),
        _ => {}
    }
}

fn ipv4(text: &mut String, packet: &[u8]) {
    let Some(header) = packet.first_chunk::<20>() else { return };
    let address = |at: usize| Ipv4Addr::from([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let length = usize::from(header[0] & 0xf) * 4;
    let offset = u16::from_be_bytes([header[6], header[7]]);
    let _ = writeln!(
        text,
        "  ipv4 {} > {} proto {} ttl {} len {} ihl {length} id {:#x} frag {offset:#06x} csum {:02x}{:02x}",
        address(12),
        address(16),
        header[9],
        header[8],
        u16::from_be_bytes([header[2], header[3]]),
        u16::from_be_bytes([header[4], header[5]]),
        header[10],
        header[11],
    );
    if offset & 0x1fff == 0 && length >= 20 {
        transport(text, header[9], packet.get(length..).unwrap_or_default());
    }
}

fn ipv6(text: &mut String, packet: &[u8]) {
    let Some(header) = packet.first_chunk::<40>() else { return };
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&header[at..at + 16]).unwrap_or_default());
    let payload = u16::from_be_bytes([header[4], header[5]]);
    let (from, to, next, hops) = (address(8), address(24), header[6], header[7]);
    let _ = writeln!(text, "  ipv6 {from} > {to} next {next} hops {hops} payload {payload}");
    let (mut next, mut at) = (next, 40);
    while let (0 | 43 | 44 | 60, Some(&[following, length])) =
        (next, packet.get(at..).and_then(|rest| rest.first_chunk()))
    {
        let _ = writeln!(text, "  extension {next}: {:#010x}", word(packet, at + 4).unwrap_or(0));
        let is_later = next == 44 && half(packet, at + 2).is_some_and(|offset| offset & 0xfff8 != 0);
        at += if next == 44 { 8 } else { (usize::from(length) + 1) * 8 };
        next = following;
        if is_later {
            return;
        }
    }
    transport(text, next, packet.get(at..).unwrap_or_default());
}

fn transport(text: &mut String, protocol: u8, bytes: &[u8]) {
    let field = |at| half(bytes, at).unwrap_or(0);
    let _ = match protocol {
        6 => writeln!(
            text,
            "  tcp {} > {} seq {} ack {} flags {:#04x} csum {:04x}",
            field(0),
            field(2),
            word(bytes, 4).unwrap_or(0),
            word(bytes, 8).unwrap_or(0),
            bytes.get(13).unwrap_or(&0),
            field(16)
        ),
        17 => {
            writeln!(text, "  udp {} > {} len {} csum {:04x}", field(0), field(2), field(4), field(6))
        }
        1 | 58 => {
            let kind = bytes.first().unwrap_or(&0);
            let rest = word(bytes, 4).unwrap_or(0);
            let _ = writeln!(
                text,
                "  icmp type {kind} code {} rest {rest:#x} csum {:04x}",
                bytes.get(1).unwrap_or(&0),
                field(2)
            );
            let quote = bytes.get(8..).unwrap_or_default();
            match (protocol, kind) {
                (1, 3 | 11 | 12) => ipv4(text, quote),
                (58, 1..=4) => ipv6(text, quote),
                _ => {}
            }
            Ok(())
        }
        _ => Ok(()),
    };
}
