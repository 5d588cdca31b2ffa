//! TCP, UDP and ICMP headers, with their checksums.

use super::checksum;
use super::network::Network;

/// What the IP packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp(Tcp),
    Udp(Udp),
    Icmp(Icmp),
    /// A protocol without a header of ours.
    Raw(u8),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tcp {
    pub(super) source: u16,
    pub(super) destination: u16,
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Udp {
    pub(super) source: u16,
    pub(super) destination: u16,
    pub(super) checksum: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Icmp {
    pub(super) kind: u8,
    pub(super) code: u8,
    pub(super) rest: u32,
}

impl Tcp {
    pub(super) fn new(source: u16, destination: u16) -> Self {
        Self { source, destination, sequence: 0, acknowledgement: 0, flags: 0, window: 0xfaf0 }
    }
}

impl Transport {
    /// The IP protocol number.
    pub(super) fn protocol(&self, network: &Network) -> u8 {
        match self {
            Self::Tcp(_) => 6,
            Self::Udp(_) => 17,
            Self::Icmp(_) if matches!(network, Network::V6(_)) => 58,
            Self::Icmp(_) => 1,
            Self::Raw(number) => *number,
        }
    }

    /// Header and payload.
    pub(super) fn bytes(&self, network: &Network, payload: &[u8]) -> Vec<u8> {
        let (mut bytes, field_at) = self.header(payload.len());
        bytes.extend(payload);
        let Some(at) = field_at else { return bytes };
        let field = match self {
            Self::Udp(Udp { checksum: Some(field), .. }) => *field,
            _ => self.checksum(network, &bytes),
        };
        bytes[at..at + 2].copy_from_slice(&field.to_be_bytes());
        bytes
    }

    /// The header with a zero checksum, and where that field is.
    fn header(&self, payload: usize) -> (Vec<u8>, Option<usize>) {
        let mut bytes = Vec::new();
        match self {
            Self::Tcp(header) => {
                bytes.extend(header.source.to_be_bytes());
                bytes.extend(header.destination.to_be_bytes());
                bytes.extend(header.sequence.to_be_bytes());
                bytes.extend(header.acknowledgement.to_be_bytes());
                bytes.extend([0x50, header.flags]);
                bytes.extend(header.window.to_be_bytes());
                bytes.extend([0; 4]);
                (bytes, Some(16))
            }
            Self::Udp(header) => {
                bytes.extend(header.source.to_be_bytes());
                bytes.extend(header.destination.to_be_bytes());
                bytes.extend(((8 + payload) as u16).to_be_bytes());
                bytes.extend([0; 2]);
                (bytes, Some(6))
            }
            Self::Icmp(header) => {
                bytes.extend([header.kind, header.code, 0, 0]);
                bytes.extend(header.rest.to_be_bytes());
                (bytes, Some(2))
            }
            Self::Raw(_) => (bytes, None),
        }
    }

    fn checksum(&self, network: &Network, bytes: &[u8]) -> u16 {
        let covers_addresses = !matches!((self, network), (Self::Icmp(_), Network::V4(_)));
        let mut covered = match network.ends().filter(|_| covers_addresses) {
            Some((source, destination)) => {
                checksum::pseudo_header(source, destination, self.protocol(network), bytes.len())
            }
            None => Vec::new(),
        };
        covered.extend(bytes);
        match (self, checksum::field(&covered)) {
            // RFC 768: zero is for "no checksum".
            (Self::Udp(_), 0) => 0xffff,
            (_, field) => field,
        }
    }
}
