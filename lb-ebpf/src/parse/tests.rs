use super::*;
use crate::memory::MemoryFrame;

const L3: usize = link::HEADER;
const TCP: u8 = 6;

fn frame(bytes: Vec<u8>) -> MemoryFrame {
    MemoryFrame { bytes, ingress: 1 }
}

/// An IPv6 packet with this behind its fixed header, whose first is of this kind.
fn ipv6(first: u8, rest: &[u8]) -> MemoryFrame {
    let mut bytes = vec![0; L3];
    bytes.extend([0x60, 0, 0, 0]);
    bytes.extend((rest.len() as u16).to_be_bytes());
    bytes.extend([first, 64]);
    bytes.extend([0xfd; 32]);
    bytes.extend(rest);
    frame(bytes)
}

/// An extension header of so many bytes.
fn extension(next: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    bytes[0] = next;
    bytes[1] = (length / 8 - 1) as u8;
    bytes
}

fn fragment(next: u8, offset_and_flags: u16) -> Vec<u8> {
    let mut bytes = vec![next, 0];
    bytes.extend(offset_and_flags.to_be_bytes());
    bytes.extend([1, 2, 3, 4]);
    bytes
}

fn parsed(frame: &MemoryFrame) -> Result<Headers<Ipv6>, Reason> {
    Ipv6::headers(frame, L3).map_err(|broken| broken.reason)
}

#[test]
fn a_chain_of_extension_headers_is_walked_to_its_end() {
    let chain = [extension(60, 8), extension(43, 24), extension(TCP, 16), vec![0; 20]].concat();
    let headers = parsed(&ipv6(0, &chain)).unwrap();
    assert_eq!((headers.protocol, headers.l4), (Protocol::TCP, L3 + 40 + 48));
    assert_eq!((headers.part, headers.length), (Part::WHOLE, 40 + 68));
}

#[test]
fn a_chain_has_six_links_at_most() {
    let chain = |links: usize| {
        let mut bytes = extension(60, 8).repeat(links - 1);
        bytes.extend(extension(TCP, 8));
        bytes.extend([0; 20]);
        ipv6(60, &bytes)
    };
    assert!(parsed(&chain(6)).is_ok());
    assert!(matches!(parsed(&chain(7)), Err(Reason::DropMalformed)));
}

#[test]
fn fragment_headers_tell_whole_first_and_later_apart() {
    for (offset_and_flags, part) in
        [(0, Part::WHOLE), (1, Part::FIRST), (8, Part::LATER), (0xfff9, Part::LATER), (0b110, Part::WHOLE)]
    {
        let packet = [fragment(TCP, offset_and_flags), vec![0; 20]].concat();
        let headers = parsed(&ipv6(44, &packet)).unwrap();
        assert_eq!(headers.part, part, "{offset_and_flags:#x}");
        assert_eq!(headers.identification, u32::from_ne_bytes([1, 2, 3, 4]));
    }
}

#[test]
fn what_follows_a_later_fragment_is_not_walked() {
    // The bytes after it are the middle of a datagram, whatever they look like.
    let packet = [fragment(0, 0x50), vec![0xff; 20]].concat();
    let headers = parsed(&ipv6(44, &packet)).unwrap();
    assert_eq!((headers.part, headers.protocol), (Part::LATER, Protocol(0)));
}

#[test]
fn a_chain_that_leaves_its_packet_or_the_frame_is_broken() {
    let mut beyond = ipv6(0, &extension(TCP, 8));
    beyond.bytes[L3 + 41] = 3;
    beyond.bytes.extend([0; 64]);
    assert!(matches!(parsed(&beyond), Err(Reason::DropMalformed)));
    let cut = ipv6(0, &[60, 0, 0, 0]);
    assert!(matches!(parsed(&cut), Err(Reason::DropTruncated)));
}

#[test]
fn every_prefix_of_a_packet_is_truncated_and_names_its_destination_once_that_is_there() {
    let chain = [extension(43, 8), extension(TCP, 8), vec![0; 20]].concat();
    let whole = ipv6(0, &chain);
    for length in L3..whole.bytes.len() {
        let broken = Ipv6::headers(&frame(whole.bytes[..length].to_vec()), L3).unwrap_err();
        assert_eq!(broken.reason, Reason::DropTruncated);
        assert_eq!(broken.destination.is_some(), length >= L3 + 40);
    }
}

#[test]
fn the_common_case_and_the_general_one_read_the_same() {
    let mut bytes = vec![0; L3];
    bytes.extend([0x45, 0, 0, 40, 0xab, 0xcd, 0x40, 0, 9, TCP, 0, 0, 10, 1, 0, 7, 10, 0, 0, 100]);
    bytes.extend([0; 20]);
    let frame = frame(bytes);
    let (plain, general) = (Ipv4::plain(&frame).unwrap(), Ipv4::headers(&frame, L3).unwrap());
    assert_eq!((plain.source, plain.destination), (general.source, general.destination));
    assert_eq!((plain.hop_limit, plain.dont_fragment), (9, true));
    assert_eq!((plain.l3, plain.l4, plain.length), (general.l3, general.l4, general.length));
    assert_eq!((plain.protocol, plain.part), (general.protocol, general.part));
    assert_eq!((general.hop_limit, general.dont_fragment), (9, true));
}

#[test]
fn the_common_case_leaves_options_fragments_and_cut_frames_to_the_general_one() {
    let packet = |first: u8, offset: [u8; 2], length: u8| {
        let mut bytes = vec![0; L3];
        let [o0, o1] = offset;
        bytes.extend([first, 0, 0, length, 0, 1, o0, o1, 9, TCP, 0, 0, 10, 1, 0, 7, 10, 0, 0, 100]);
        bytes.extend([0; 20]);
        frame(bytes)
    };
    assert!(Ipv4::plain(&packet(0x45, [0, 0], 40)).is_ok());
    for other in [
        packet(0x46, [0, 0], 40),
        packet(0x45, [0x20, 0], 40),
        packet(0x45, [0, 1], 40),
        packet(0x45, [0, 0], 41),
    ] {
        assert!(matches!(Ipv4::plain(&other), Err(Verdict::Defer(Stage::Slow))));
    }
}

#[test]
fn a_transport_header_must_lie_within_its_packet() {
    // The frame has the bytes, but the packet ends before: they are padding.
    let mut padded = ipv6(TCP, &[0; 19]);
    padded.bytes.push(0);
    let headers = parsed(&padded).unwrap();
    assert!(Packet::read(&padded, headers).is_none());
    let whole = ipv6(TCP, &[0; 20]);
    assert!(Packet::read(&whole, parsed(&whole).unwrap()).is_some());
}
