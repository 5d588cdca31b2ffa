use super::*;
use crate::family::{Ipv4, Ipv6};
use crate::memory::MemoryFrame;
use crate::parse::Plain;
use lb_common::address::Address;
use proptest::prelude::*;
use std::net::IpAddr;

const L3: usize = crate::link::HEADER;

/// RFC 1071 over everything, in network order: the other way to a checksum.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0_u64;
    for pair in parts.concat().chunks(2) {
        total += u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u64::from(low));
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

struct Sample {
    addresses: Vec<u8>,
    header: usize,
    protocol: u8,
}

impl Sample {
    /// The checksum over a whole transport packet and its pseudo-header.
    fn transport_sum(&self, bytes: &[u8], addresses: &[u8]) -> u16 {
        let length = (bytes.len() as u32).to_be_bytes();
        sum(&[addresses, &length, &[0, 0, 0, self.protocol], bytes])
    }

    fn addresses_in(&self, frame: &[u8]) -> Vec<u8> {
        let start = L3 + if self.header == 20 { 12 } else { 8 };
        frame[start..start + self.addresses.len()].to_vec()
    }

    /// A frame with right checksums around a transport packet.
    fn frame(&self, mut transport: Vec<u8>) -> Vec<u8> {
        let at = if self.protocol == 6 { TCP_CHECKSUM } else { UDP_CHECKSUM };
        transport[at..at + 2].fill(0);
        let field = match !self.transport_sum(&transport, &self.addresses) {
            0 if self.protocol == 17 => 0xffff,
            field => field,
        };
        transport[at..at + 2].copy_from_slice(&field.to_be_bytes());
        let mut frame = vec![0; L3];
        if self.header == 20 {
            let length = (20 + transport.len() as u16).to_be_bytes();
            frame.extend([0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, self.protocol, 0, 0]);
            frame.extend(&self.addresses);
            let field = !sum(&[&frame[L3..]]);
            frame[L3 + 10..L3 + 12].copy_from_slice(&field.to_be_bytes());
        } else {
            let length = (transport.len() as u16).to_be_bytes();
            frame.extend([0x60, 0, 0, 0, length[0], length[1], self.protocol, 64]);
            frame.extend(&self.addresses);
        }
        frame.extend(transport);
        frame
    }

    fn assert_valid(&self, frame: &[u8]) {
        if self.header == 20 {
            assert_eq!(sum(&[&frame[L3..L3 + 20]]), 0xffff, "header checksum");
        }
        let transport = &frame[L3 + self.header..];
        assert_eq!(self.transport_sum(transport, &self.addresses_in(frame)), 0xffff, "transport checksum");
        if self.protocol == 17 {
            assert_ne!(transport[UDP_CHECKSUM..UDP_CHECKSUM + 2], [0, 0]);
        }
    }
}

/// Translates there and back again.
fn check<A: Plain>(sample: &Sample, transport: Vec<u8>, backend: &Backend) {
    let original = sample.frame(transport);
    let mut frame = MemoryFrame { bytes: original.clone(), ingress: 1 };
    for translation in [
        Translation::<A>::to_backend(backend),
        Translation { side: Side::Destination, ..Translation::<A>::from_backend(backend) },
    ] {
        let ip = A::plain(&frame).unwrap();
        let packet = Packet::read(&frame, ip).unwrap();
        translation.apply(&mut frame, &packet, Forwarder::Here).unwrap();
        sample.assert_valid(&frame.bytes);
    }
    // Two hops less; everything else as it was, so nothing but addresses, ports and checksums was touched.
    let hops = L3 + if sample.header == 20 { 8 } else { 7 };
    assert_eq!(frame.bytes[hops], 62);
    let transport = L3 + sample.header;
    assert_eq!(frame.bytes[transport..], original[transport..]);
}

fn backend(vip: IpAddr, address: IpAddr, ports: (u16, u16), protocol: Protocol) -> Backend {
    let end = |address: IpAddr, port| (Address::from(address), Be16::new(port));
    Backend::new(1, end(vip, ports.0), end(address, ports.1), protocol)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn updated_checksums_equal_recomputed_ones_in_ipv4(
        client: [u8; 4],
        vip: [u8; 4],
        address: [u8; 4],
        ports: (u16, u16),
        tcp: bool,
        payload in prop::collection::vec(any::<u8>(), 20..60),
    ) {
        let protocol = if tcp { Protocol::TCP } else { Protocol::UDP };
        let mut transport = payload;
        transport[2..4].copy_from_slice(&ports.0.to_be_bytes());
        let sample = Sample { addresses: [client, vip].concat(), header: 20, protocol: protocol.0 };
        check::<Ipv4>(&sample, transport, &backend(vip.into(), address.into(), ports, protocol));
    }

    #[test]
    fn updated_checksums_equal_recomputed_ones_in_ipv6(
        client: [u8; 16],
        vip: [u8; 16],
        address: [u8; 16],
        ports: (u16, u16),
        tcp: bool,
        payload in prop::collection::vec(any::<u8>(), 20..60),
    ) {
        let protocol = if tcp { Protocol::TCP } else { Protocol::UDP };
        let mut transport = payload;
        transport[2..4].copy_from_slice(&ports.0.to_be_bytes());
        let sample = Sample { addresses: [client, vip].concat(), header: 40, protocol: protocol.0 };
        check::<Ipv6>(&sample, transport, &backend(vip.into(), address.into(), ports, protocol));
    }
}

#[test]
fn udp_without_a_checksum_stays_without_one() {
    let backend = backend([10, 0, 0, 100].into(), [10, 2, 0, 1].into(), (80, 8080), Protocol::UDP);
    let sample = Sample { addresses: vec![10, 1, 0, 7, 10, 0, 0, 100], header: 20, protocol: 17 };
    let mut bytes = sample.frame(vec![0x9c, 0x40, 0, 80, 0, 8, 0, 0]);
    bytes[L3 + 26..L3 + 28].fill(0);
    let mut frame = MemoryFrame { bytes, ingress: 1 };
    let packet = Packet::read(&frame, Ipv4::plain(&frame).unwrap()).unwrap();
    Translation::<Ipv4>::to_backend(&backend).apply(&mut frame, &packet, Forwarder::Kernel).unwrap();
    assert_eq!(frame.bytes[L3 + 20..], [0x9c, 0x40, 0x1f, 0x90, 0, 8, 0, 0]);
    assert_eq!(frame.bytes[L3 + 8], 64, "the kernel counts the hop");
}
