//! IP headers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum;

/// What the Ethernet header announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Network {
    V4(V4),
    V6(V6),
    /// Any other EtherType.
    Other(u16),
}

/// The fields of an IPv4 header that a packet chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct V4 {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) ttl: u8,
    pub(super) identification: u16,
    pub(super) dont_fragment: bool,
    pub(super) options: Vec<u8>,
}

/// The fields of an IPv6 header that a packet chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct V6 {
    pub(super) source: Ipv6Addr,
    pub(super) destination: Ipv6Addr,
    pub(super) hop_limit: u8,
    pub(super) extensions: Vec<Extension>,
}

/// An IPv6 extension header (RFC 8200 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Hop-by-hop options: that many times 8 bytes of padding behind the first 8.
    HopByHop(u8),
    /// A routing header without segments left, of that many 8 bytes more.
    Routing(u8),
    /// Destination options.
    DestinationOptions(u8),
    /// A fragment header of a packet that is whole (RFC 6946).
    AtomicFragment(u32),
}

impl Extension {
    fn number(self) -> u8 {
        match self {
            Self::HopByHop(_) => 0,
            Self::Routing(_) => 43,
            Self::DestinationOptions(_) => 60,
            Self::AtomicFragment(_) => 44,
        }
    }

    fn bytes(self, next: u8) -> Vec<u8> {
        match self {
            // A PadN option over everything that is left, as far as its length byte goes.
            Self::HopByHop(more) | Self::DestinationOptions(more) => {
                let length = (usize::from(more) + 1) * 8;
                let mut bytes = vec![next, more, 1, (length - 4).min(255) as u8];
                bytes.resize(length, 0);
                bytes
            }
            Self::Routing(more) => {
                let mut bytes = vec![next, more, 4, 0];
                bytes.resize((usize::from(more) + 1) * 8, 0);
                bytes
            }
            Self::AtomicFragment(identification) => fragment_header(next, identification, 0, false),
        }
    }
}

fn fragment_header(next: u8, identification: u32, offset: usize, more: bool) -> Vec<u8> {
    let mut bytes = vec![next, 0];
    bytes.extend((offset as u16 | u16::from(more)).to_be_bytes());
    bytes.extend(identification.to_be_bytes());
    bytes
}

impl V4 {
    pub(super) fn new(source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        Self { source, destination, ttl: 64, identification: 0, dont_fragment: false, options: Vec::new() }
    }

    fn header(&self, protocol: u8, payload: usize, fragment: Option<(u32, usize, bool)>) -> Vec<u8> {
        let length = 20 + self.options.len();
        let (identification, offset, more) = match fragment {
            Some((identification, offset, more)) => (identification as u16, offset / 8, more),
            None => (self.identification, 0, false),
        };
        let flags = u16::from(self.dont_fragment) << 14 | u16::from(more) << 13 | offset as u16;
        let mut bytes = vec![0x40 | (length / 4) as u8, 0];
        bytes.extend(((length + payload) as u16).to_be_bytes());
        bytes.extend(identification.to_be_bytes());
        bytes.extend(flags.to_be_bytes());
        bytes.extend([self.ttl, protocol, 0, 0]);
        bytes.extend(self.source.octets());
        bytes.extend(self.destination.octets());
        bytes.extend(&self.options);
        let field = checksum::field(&bytes);
        bytes[10..12].copy_from_slice(&field.to_be_bytes());
        bytes
    }
}

impl V6 {
    pub(super) fn new(source: Ipv6Addr, destination: Ipv6Addr) -> Self {
        Self { source, destination, hop_limit: 64, extensions: Vec::new() }
    }

    fn header(&self, protocol: u8, payload: usize, fragment: Option<(u32, usize, bool)>) -> Vec<u8> {
        let fragment_number = fragment.map(|_| 44);
        let numbers: Vec<u8> = self
            .extensions
            .iter()
            .map(|extension| extension.number())
            .chain(fragment_number)
            .chain([protocol])
            .collect();
        let mut chain = Vec::new();
        for (extension, &next) in self.extensions.iter().zip(&numbers[1..]) {
            chain.extend(extension.bytes(next));
        }
        if let Some((identification, offset, more)) = fragment {
            chain.extend(fragment_header(protocol, identification, offset, more));
        }
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend(((chain.len() + payload) as u16).to_be_bytes());
        bytes.extend([numbers[0], self.hop_limit]);
        bytes.extend(self.source.octets());
        bytes.extend(self.destination.octets());
        bytes.extend(chain);
        bytes
    }
}

impl Network {
    pub(super) fn ethertype(&self) -> u16 {
        match self {
            Self::V4(_) => 0x0800,
            Self::V6(_) => 0x86dd,
            Self::Other(ethertype) => *ethertype,
        }
    }

    /// Source and destination.
    pub(super) fn ends(&self) -> Option<(IpAddr, IpAddr)> {
        match self {
            Self::V4(header) => Some((header.source.into(), header.destination.into())),
            Self::V6(header) => Some((header.source.into(), header.destination.into())),
            Self::Other(_) => None,
        }
    }

    /// The header before `payload` bytes. A fragment: identification, offset in bytes, whether more follow.
    pub(super) fn header(
        &self,
        protocol: u8,
        payload: usize,
        fragment: Option<(u32, usize, bool)>,
    ) -> Vec<u8> {
        match self {
            Self::V4(header) => header.header(protocol, payload, fragment),
            Self::V6(header) => header.header(protocol, payload, fragment),
            Self::Other(_) => Vec::new(),
        }
    }
}
