//! Frames by their fields: built, read back and judged, by code that shares nothing with the balancer's.
//!
//! ```
//! use lb_tests::packet::{Mac, packet};
//! let syn = packet().eth(Mac::local(1), Mac::local(2)).ipv4("10.1.0.7", "10.0.0.100").tcp(40_000, 80).syn();
//! assert_eq!(syn.bytes().len(), 54);
//! ```

mod checksum;
mod decode;
mod icmp;
mod network;
mod transport;
mod verify;

pub use decode::describe;
pub use network::Extension;
pub use verify::checksums_valid;

use network::{Network, V4, V6};
use transport::{Icmp, Tcp, Transport, Udp};

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// A link-layer address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// A locally administered address, told apart by its last byte.
    #[must_use]
    pub const fn local(number: u8) -> Self {
        Self([2, 0, 0, 0, 0, number])
    }
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A frame in the making. Lengths and checksums are filled in by [`bytes`](Packet::bytes) where nothing else was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    source: Mac,
    destination: Mac,
    /// EtherType and control field, the outermost first.
    tags: Vec<(u16, u16)>,
    network: Network,
    transport: Transport,
    payload: Vec<u8>,
    fragment: Option<Fragment>,
    padding: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Fragment {
    identification: u32,
    range: Range<usize>,
}

/// An empty frame.
#[must_use]
pub fn packet() -> Packet {
    Packet {
        source: Mac::default(),
        destination: Mac::default(),
        tags: Vec::new(),
        network: Network::Other(0),
        transport: Transport::Raw(0),
        payload: Vec::new(),
        fragment: None,
        padding: 0,
    }
}

impl Packet {
    /// From whom, to whom.
    #[must_use]
    pub fn eth(mut self, source: Mac, destination: Mac) -> Self {
        (self.source, self.destination) = (source, destination);
        self
    }

    /// A further 802.1Q tag, inside of those already there.
    #[must_use]
    pub fn vlan(self, identifier: u16) -> Self {
        self.tag(0x8100, identifier)
    }

    /// A further tag of any type, inside of those already there.
    #[must_use]
    pub fn tag(mut self, ethertype: u16, control: u16) -> Self {
        self.tags.push((ethertype, control));
        self
    }

    /// The same without its tags.
    #[must_use]
    pub fn untagged(mut self) -> Self {
        self.tags.clear();
        self
    }

    /// Something that is not IP.
    #[must_use]
    pub fn ethertype(mut self, ethertype: u16) -> Self {
        self.network = Network::Other(ethertype);
        self
    }

    /// An IPv4 header.
    ///
    /// # Panics
    /// When an address is none.
    #[must_use]
    pub fn ipv4(mut self, source: &str, destination: &str) -> Self {
        let address = |text: &str| text.parse::<Ipv4Addr>().expect("an IPv4 address");
        self.network = Network::V4(V4::new(address(source), address(destination)));
        self
    }

    /// An IPv6 header.
    ///
    /// # Panics
    /// When an address is none.
    #[must_use]
    pub fn ipv6(mut self, source: &str, destination: &str) -> Self {
        let address = |text: &str| text.parse::<Ipv6Addr>().expect("an IPv6 address");
        self.network = Network::V6(V6::new(address(source), address(destination)));
        self
    }

    /// A header of the addresses' family.
    ///
    /// # Panics
    /// When an address is none, or the families differ.
    #[must_use]
    pub fn ip(self, source: &str, destination: &str) -> Self {
        match source.parse::<IpAddr>().expect("an address") {
            IpAddr::V4(_) => self.ipv4(source, destination),
            IpAddr::V6(_) => self.ipv6(source, destination),
        }
    }

    /// TTL or hop limit; 64 where nothing is said.
    #[must_use]
    pub fn ttl(mut self, hops: u8) -> Self {
        match &mut self.network {
            Network::V4(header) => header.ttl = hops,
            Network::V6(header) => header.hop_limit = hops,
            Network::Other(_) => {}
        }
        self
    }

    /// Sets IPv4's "don't fragment".
    #[must_use]
    pub fn df(self) -> Self {
        self.v4(|header| header.dont_fragment = true)
    }

    /// IPv4 options, a multiple of four bytes.
    #[must_use]
    pub fn options(self, options: &[u8]) -> Self {
        self.v4(|header| header.options = options.to_vec())
    }

    /// IPv4's identification.
    #[must_use]
    pub fn identification(self, identification: u16) -> Self {
        self.v4(|header| header.identification = identification)
    }

    fn v4(mut self, change: impl FnOnce(&mut V4)) -> Self {
        if let Network::V4(header) = &mut self.network {
            change(header);
        }
        self
    }

    /// A further IPv6 extension header, behind those already there.
    #[must_use]
    pub fn extension(mut self, extension: Extension) -> Self {
        if let Network::V6(header) = &mut self.network {
            header.extensions.push(extension);
        }
        self
    }

    /// Another source address, of the same family.
    #[must_use]
    pub fn from(mut self, source: &str) -> Self {
        match &mut self.network {
            Network::V4(header) => header.source = source.parse().expect("an IPv4 address"),
            Network::V6(header) => header.source = source.parse().expect("an IPv6 address"),
            Network::Other(_) => {}
        }
        self
    }

    /// Another destination address, of the same family.
    #[must_use]
    pub fn to(mut self, destination: &str) -> Self {
        match &mut self.network {
            Network::V4(header) => header.destination = destination.parse().expect("an IPv4 address"),
            Network::V6(header) => header.destination = destination.parse().expect("an IPv6 address"),
            Network::Other(_) => {}
        }
        self
    }

    /// Any transport protocol; its bytes are the payload.
    #[must_use]
    pub fn protocol(mut self, number: u8) -> Self {
        self.transport = Transport::Raw(number);
        self
    }

    /// A TCP header, without flags.
    #[must_use]
    pub fn tcp(mut self, source: u16, destination: u16) -> Self {
        self.transport = Transport::Tcp(Tcp::new(source, destination));
        self
    }

    /// SYN.
    #[must_use]
    pub fn syn(self) -> Self {
        self.flags(0x02)
    }

    /// ACK with this acknowledgement number.
    #[must_use]
    pub fn ack(self, acknowledgement: u32) -> Self {
        self.segment(|header| header.acknowledgement = acknowledgement).flags(0x10)
    }

    /// FIN.
    #[must_use]
    pub fn fin(self) -> Self {
        self.flags(0x01)
    }

    /// RST.
    #[must_use]
    pub fn rst(self) -> Self {
        self.flags(0x04)
    }

    /// The sequence number.
    #[must_use]
    pub fn seq(self, sequence: u32) -> Self {
        self.segment(|header| header.sequence = sequence)
    }

    /// TCP's receive window.
    #[must_use]
    pub fn window(self, window: u16) -> Self {
        self.segment(|header| header.window = window)
    }

    fn flags(self, flags: u8) -> Self {
        self.segment(|header| header.flags |= flags)
    }

    fn segment(mut self, change: impl FnOnce(&mut Tcp)) -> Self {
        if let Transport::Tcp(header) = &mut self.transport {
            change(header);
        }
        self
    }

    /// A UDP header.
    #[must_use]
    pub fn udp(mut self, source: u16, destination: u16) -> Self {
        self.transport = Transport::Udp(Udp { source, destination, checksum: None });
        self
    }

    /// A UDP checksum field with this value, right or wrong; 0 says that there is none.
    #[must_use]
    pub fn udp_checksum(mut self, field: u16) -> Self {
        if let Transport::Udp(header) = &mut self.transport {
            header.checksum = Some(field);
        }
        self
    }

    /// An ICMP header of the IP header's family.
    #[must_use]
    pub fn icmp(mut self, kind: u8, code: u8, rest: u32) -> Self {
        self.transport = Transport::Icmp(Icmp { kind, code, rest });
        self
    }

    /// What the transport header carries.
    #[must_use]
    pub fn payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = payload.into();
        self
    }

    /// Bytes behind the IP packet, as short Ethernet frames have them.
    #[must_use]
    pub fn padded(mut self, bytes: usize) -> Self {
        self.padding = bytes;
        self
    }

    /// That part of the datagram alone: a range of the bytes behind the IP header, whose last is the datagram's
    /// unless more follows. An IPv6 packet gets a fragment header.
    #[must_use]
    pub fn fragment(mut self, identification: u32, range: Range<usize>) -> Self {
        self.fragment = Some(Fragment { identification, range });
        self
    }

    /// The frame.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        frame.extend(self.destination.0);
        frame.extend(self.source.0);
        for (ethertype, control) in &self.tags {
            frame.extend(ethertype.to_be_bytes());
            frame.extend(control.to_be_bytes());
        }
        frame.extend(self.network.ethertype().to_be_bytes());
        frame.extend(self.ip_bytes());
        frame.extend(std::iter::repeat_n(0, self.padding));
        frame
    }

    /// The IP packet, as ICMP errors quote it.
    #[must_use]
    pub fn ip_bytes(&self) -> Vec<u8> {
        let whole = self.transport.bytes(&self.network, &self.payload);
        let (part, fragment) = match &self.fragment {
            None => (&whole[..], None),
            Some(Fragment { identification, range }) => {
                let end = range.end.min(whole.len());
                let more = end < whole.len();
                (&whole[range.start.min(end)..end], Some((*identification, range.start, more)))
            }
        };
        let mut packet = self.network.header(self.transport.protocol(&self.network), part.len(), fragment);
        packet.extend(part);
        packet
    }
}
