//! What is sent: one frame for each kind of packet, and where in it the flows differ.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[cfg(test)]
use lb_common::checksum::fold;

use super::crowd;

/// Address families, by their numbers in the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// Both, in the order of the report.
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// 4 or 6.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }

    /// The virtual address.
    pub(super) const fn vip(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(10, 200, 0, 1)),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0xfd00, 0x200, 0, 0, 0, 0, 0, 1)),
        }
    }

    /// The first backend's address; the others' follow.
    pub(super) const fn first_backend(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(10, 0, 1, 10)),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, 10)),
        }
    }

    /// Somebody who is neither a service nor a backend.
    pub(super) const fn stranger(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(10, 0, 9, 9)),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 9, 9)),
        }
    }

    /// Flow 0's client. Clients that come again and clients that come once are in different networks.
    pub(super) const fn first_client(self, comes_again: bool) -> IpAddr {
        let (net4, net6) = if comes_again { (100, 0x100) } else { (128, 0x101) };
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(10, net4, 0, 0)),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0xfd00, net6, 0, 0, 0, 0, 0, 0)),
        }
    }

    /// Bytes of the IP header.
    pub(super) const fn header(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }

    /// Offsets of the last four bytes of source and destination address in the frame: where flows differ.
    const fn last_words(self) -> (usize, usize) {
        match self {
            Self::V4 => (ETHERNET + 12, ETHERNET + 16),
            Self::V6 => (ETHERNET + 8 + 12, ETHERNET + 24 + 12),
        }
    }

    /// Offset of the TCP header in the frame.
    pub(super) const fn tcp(self) -> usize {
        ETHERNET + self.header()
    }
}

/// Bytes of an Ethernet header.
pub(super) const ETHERNET: usize = 14;
const TCP_HEADER: usize = 20;
/// Offset of the checksum in a TCP header.
const TCP_CHECKSUM: usize = 16;
/// Offset of the checksum in an IPv4 header.
const IP_CHECKSUM: usize = 10;
/// Brings an IPv4 frame to the 64 bytes that Ethernet asks for at least, its checksum included.
const PAYLOAD: usize = 6;
/// Port of services and of backends; of the stranger too.
pub(super) const SERVICE_PORT: u16 = 80;
/// Port of backends.
pub(super) const BACKEND_PORT: u16 = 8080;
/// Sequence number of every SYN-ACK: what makes the client's ACK acknowledge it.
const SERVER_SEQUENCE: u32 = 1;

/// Low bits of a flow's number that go to the client's port, the next one of which is always set; the rest go to its
/// address.
pub(super) const PORT_BITS: u32 = 14;

/// Who talks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Path {
    /// A client to the virtual address.
    Request,
    /// A backend to a client.
    Reply,
    /// A client to the stranger.
    Foreign,
    /// A client to one of many services.
    CrowdRequest,
    /// One of their backends to a client.
    CrowdReply,
}

impl Path {
    /// Whether the client is who receives.
    const fn is_reply(self) -> bool {
        matches!(self, Self::Reply | Self::CrowdReply)
    }

    /// Bits of an entry of the list that number the flow; those above number the other end.
    pub(super) const fn flow_bits(self) -> u32 {
        match self {
            Self::Request | Self::Reply | Self::Foreign => 24,
            // Of these there are more ends, and fewer flows.
            Self::CrowdRequest | Self::CrowdReply => 16,
        }
    }
}

/// The segment of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Syn,
    SynAck,
    Ack,
}

impl Segment {
    const fn flags(self) -> u8 {
        match self {
            Self::Syn => 0x02,
            Self::SynAck => 0x12,
            Self::Ack => 0x10,
        }
    }
}

/// One kind of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) family: Family,
    pub(super) path: Path,
    pub(super) segment: Segment,
    /// Whether the flows are a list that packets are drawn from; otherwise each packet is the first of its flow.
    pub(super) comes_again: bool,
}

/// Where in a frame a flow's own values stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Places {
    /// The last word of the client's address.
    pub(super) client: usize,
    /// The client's port.
    pub(super) client_port: usize,
    /// The last word of the other end's address.
    pub(super) peer: usize,
    /// The IPv4 header's checksum.
    pub(super) ip_checksum: Option<usize>,
    /// The TCP checksum.
    pub(super) tcp_checksum: usize,
    /// Where the headers end.
    pub(super) end: usize,
    /// Not a place: see [`Path::flow_bits`].
    pub(super) flow_bits: u32,
}

/// A frame without its flow's values, and the sums of what its checksums cover without them.
#[derive(Clone, Debug)]
pub(super) struct Template {
    /// The frame, payload included; zeros where flows differ.
    pub(super) frame: Vec<u8>,
    /// Last word of the first client's address.
    pub(super) first_client: u32,
    /// Last word of the first other end's address.
    pub(super) first_peer: u32,
    /// Sum of the IPv4 header, in 16-bit words as loaded.
    pub(super) ip_sum: u32,
    /// Sum of the pseudo-header, TCP header and payload, likewise.
    pub(super) tcp_sum: u32,
}

impl Traffic {
    /// Where flows differ.
    pub(super) const fn places(&self) -> Places {
        let (source, destination) = self.family.last_words();
        let tcp = self.family.tcp();
        let (client, client_port, peer) =
            if self.path.is_reply() { (destination, tcp + 2, source) } else { (source, tcp, destination) };
        let ip_checksum = match self.family {
            Family::V4 => Some(ETHERNET + IP_CHECKSUM),
            Family::V6 => None,
        };
        Places {
            client,
            client_port,
            peer,
            ip_checksum,
            tcp_checksum: tcp + TCP_CHECKSUM,
            end: tcp + TCP_HEADER,
            flow_bits: self.path.flow_bits(),
        }
    }

    /// Flow 0's client.
    const fn first_client(&self) -> IpAddr {
        match self.path {
            Path::CrowdRequest | Path::CrowdReply => crowd::FIRST_CLIENT,
            _ => self.family.first_client(self.comes_again),
        }
    }

    /// What all packets of this kind have in common.
    pub(super) fn template(&self) -> Template {
        let client = self.first_client();
        let (peer, peer_port) = match self.path {
            Path::Request => (self.family.vip(), SERVICE_PORT),
            Path::Foreign => (self.family.stranger(), SERVICE_PORT),
            Path::Reply => (self.family.first_backend(), BACKEND_PORT),
            Path::CrowdRequest => (crowd::FIRST_VIP, SERVICE_PORT),
            Path::CrowdReply => (crowd::FIRST_BACKEND, BACKEND_PORT),
        };
        let mut frame = if self.path.is_reply() {
            headers(peer, client, (peer_port, 0), self.segment)
        } else {
            headers(client, peer, (0, peer_port), self.segment)
        };
        let places = self.places();
        for word in [places.client, places.peer] {
            frame[word..word + 4].fill(0);
        }
        let (ip, tcp) = (ETHERNET, self.family.tcp());
        let ip_sum = if places.ip_checksum.is_some() { sum(&frame[ip..tcp]) } else { 0 };
        let addresses = match self.family {
            Family::V4 => &frame[ip + 12..ip + 20],
            Family::V6 => &frame[ip + 8..ip + 40],
        };
        let length = u16::try_from(frame.len() - tcp).unwrap_or(u16::MAX);
        let tcp_sum =
            sum(addresses) + u32::from(length.to_be()) + u32::from(6_u16.to_be()) + sum(&frame[tcp..]);
        Template { first_client: last_word(client), first_peer: last_word(peer), frame, ip_sum, tcp_sum }
    }
}

/// A flow's client: address and port. The source program does the same sum.
pub(super) fn client(first: IpAddr, flow: u32) -> (IpAddr, u16) {
    let word = last_word(first).wrapping_add(flow >> PORT_BITS);
    let port = 1 << PORT_BITS | (flow & ((1 << PORT_BITS) - 1)) as u16;
    (with_last_word(first, word), port)
}

/// The address `number` further on.
pub(super) fn following(first: IpAddr, number: u32) -> IpAddr {
    with_last_word(first, last_word(first).wrapping_add(number))
}

fn last_word(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => u128::from(address) as u32,
    }
}

fn with_last_word(address: IpAddr, word: u32) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(word.into()),
        IpAddr::V6(address) => {
            IpAddr::V6((u128::from(address) & !u128::from(u32::MAX) | u128::from(word)).into())
        }
    }
}

/// A frame without checksums.
fn headers(source: IpAddr, destination: IpAddr, ports: (u16, u16), segment: Segment) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let transport = (TCP_HEADER + PAYLOAD) as u16;
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((20 + transport).to_be_bytes());
            frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        (source, destination) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(transport.to_be_bytes());
            frame.extend([6, 64]);
            frame.extend(octets6(source));
            frame.extend(octets6(destination));
        }
    }
    frame.extend(ports.0.to_be_bytes());
    frame.extend(ports.1.to_be_bytes());
    let (sequence, acknowledgement) = match segment {
        Segment::Syn => (1, 0),
        Segment::SynAck => (SERVER_SEQUENCE, 2),
        Segment::Ack => (2, SERVER_SEQUENCE + 1),
    };
    frame.extend(sequence.to_be_bytes());
    frame.extend(acknowledgement.to_be_bytes());
    frame.extend([0x50, segment.flags(), 0xff, 0xff, 0, 0, 0, 0]);
    frame.extend([0; PAYLOAD]);
    frame
}

fn octets6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Sum of 16-bit words as loaded (RFC 1071 section 2 (B): the byte order does not matter to the result).
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(u16::from_ne_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum()
}

/// The whole frame of one flow with one peer, as the source program writes it.
#[cfg(test)]
fn frame(traffic: &Traffic, flow: u32, peer: u32) -> Vec<u8> {
    let template = traffic.template();
    let places = traffic.places();
    let mut frame = template.frame;
    let (address, port) = client(traffic.first_client(), flow);
    let client = last_word(address).to_be_bytes();
    let peer = template.first_peer.wrapping_add(peer).to_be_bytes();
    frame[places.client..places.client + 4].copy_from_slice(&client);
    frame[places.peer..places.peer + 4].copy_from_slice(&peer);
    frame[places.client_port..places.client_port + 2].copy_from_slice(&port.to_be_bytes());
    let addresses = sum(&client) + sum(&peer);
    let checksum = |sum: u32| (!fold(u64::from(sum))).to_ne_bytes();
    if let Some(at) = places.ip_checksum {
        frame[at..at + 2].copy_from_slice(&checksum(template.ip_sum + addresses));
    }
    let tcp = template.tcp_sum + addresses + u32::from(port.to_be());
    frame[places.tcp_checksum..places.tcp_checksum + 2].copy_from_slice(&checksum(tcp));
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_kind() -> impl Iterator<Item = Traffic> {
        let is_of = |family, path: &Path| family == Family::V4 || path.flow_bits() == 24;
        Family::ALL.into_iter().flat_map(move |family| {
            [
                (Path::Request, Segment::Syn, false),
                (Path::Request, Segment::Ack, true),
                (Path::Reply, Segment::SynAck, true),
                (Path::Foreign, Segment::Ack, true),
                (Path::CrowdRequest, Segment::Ack, true),
                (Path::CrowdReply, Segment::Ack, true),
            ]
            .into_iter()
            .filter(move |(path, ..)| is_of(family, path))
            .map(move |(path, segment, comes_again)| Traffic {
                family,
                path,
                segment,
                comes_again,
            })
        })
    }

    #[test]
    fn checksums_are_right() {
        for traffic in every_kind() {
            let frame = frame(&traffic, 0x12_3456, 2);
            let tcp = traffic.family.tcp();
            // A sum that includes its own checksum is all ones (RFC 1071 section 1 (3)).
            if traffic.family == Family::V4 {
                assert_eq!(fold(sum(&frame[ETHERNET..tcp]).into()), 0xffff, "{traffic:?}");
            }
            let addresses = if traffic.family == Family::V4 { 26..34 } else { 22..54 };
            let length = (frame.len() - tcp) as u16;
            let pseudo = sum(&frame[addresses]) + u32::from(length.to_be()) + u32::from(6_u16.to_be());
            assert_eq!(fold((pseudo + sum(&frame[tcp..])).into()), 0xffff, "{traffic:?}");
        }
    }

    #[test]
    fn a_reply_goes_to_whom_the_request_came_from() {
        for family in Family::ALL {
            let kind = |path, segment| Traffic { family, path, segment, comes_again: true };
            let request = frame(&kind(Path::Request, Segment::Ack), 70_001, 0);
            let reply = frame(&kind(Path::Reply, Segment::Ack), 70_001, 1);
            let (ip, tcp) = (ETHERNET, family.tcp());
            let (source, destination) = match family {
                Family::V4 => (ip + 12..ip + 16, ip + 16..ip + 20),
                Family::V6 => (ip + 8..ip + 24, ip + 24..ip + 40),
            };
            assert_eq!(request[source.clone()], reply[destination]);
            assert_eq!(request[tcp..tcp + 2], reply[tcp + 2..tcp + 4]);
            let backend = following(family.first_backend(), 1);
            let octets = match backend {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            assert_eq!(reply[source], octets);
        }
    }

    #[test]
    fn flows_have_clients_of_their_own() {
        let first = Family::V4.first_client(true);
        let clients: std::collections::HashSet<_> = (0..100_000).map(|flow| client(first, flow)).collect();
        assert_eq!(clients.len(), 100_000);
    }
}
