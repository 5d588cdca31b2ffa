//! Frame to packet: which headers there are, where they start, what they say.
//!
//! Two parsers, one result. [`Plain::plain`] takes what nearly every packet is, with every offset a constant: no tags, no
//! options, no extension headers, no fragments, all of it there. What it does not take goes to the slow stage, whose
//! [`Plain::headers`] takes everything and says what is wrong with the rest.

use lb_common::address::{Address, Be16, Be32, Protocol};
use lb_common::fragment::Ports;
use lb_common::reason::Reason;

use crate::family::{Family, Ipv4, Ipv6};
use crate::frame::{Fields, Frame};
use crate::link;
use crate::tcp::Segment;
use crate::verdict::{Stage, Step, Verdict};

/// An IP header, and where things are.
#[derive(Clone, Copy, Debug)]
pub struct Headers<A: Family> {
    /// Sender.
    pub source: A::Address,
    /// Receiver.
    pub destination: A::Address,
    /// What the packet carries.
    pub protocol: Protocol,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// Whether routers must not fragment it: IPv4's DF, and always in IPv6.
    pub dont_fragment: bool,
    /// Where the IP header starts in the frame.
    pub l3: usize,
    /// Where the header of `protocol` starts.
    pub l4: usize,
    /// Bytes of the IP packet, headers included; the frame may be longer by its padding.
    pub length: u16,
    /// Which part of its datagram it is.
    pub part: Part,
    /// Which datagram, as on the wire; 0 for a whole one.
    pub identification: u32,
}

/// A datagram, or a part of one.
///
/// No `enum`: an integer can be [forgotten](Frame::forget), and the paths of the verifier that differ in it joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part(u8);

impl Part {
    /// Not fragmented.
    pub const WHOLE: Self = Self(0);
    /// The first fragment, which carries the ports.
    pub const FIRST: Self = Self(1);
    /// A later one, which does not.
    pub const LATER: Self = Self(2);

    /// The same part; to the verifier it may be any.
    #[inline(always)]
    fn forgotten<F: Frame>(self, frame: &F) -> Self {
        Self(frame.forget(self.0 as usize) as u8)
    }
}

/// A TCP or UDP packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<A: Family> {
    /// Its IP header.
    pub ip: Headers<A>,
    /// Sender's port.
    pub source_port: Be16,
    /// Receiver's port.
    pub destination_port: Be16,
    /// What a TCP header says; nothing for UDP and for later fragments.
    pub segment: Segment,
    /// Whether a transport header is here: not in later fragments.
    pub has_transport: bool,
    /// UDP without a checksum.
    pub unchecked: bool,
}

/// A packet that cannot be read further.
#[derive(Clone, Copy, Debug)]
pub struct Broken<A: Family> {
    /// Where it goes, as far as that can be read.
    pub destination: Option<A::Address>,
    /// What it is dropped as, should it be ours.
    pub reason: Reason,
}

const MORE_FRAGMENTS_OR_OFFSET: u16 = 0x3fff;
const FRAGMENT_OFFSET: u16 = 0x1fff;
const DONT_FRAGMENT: u16 = 0x4000;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// The common case of a family.
pub trait Plain: Family + Sized {
    /// Parses an untagged packet whose transport header follows the plain IP header, or says which stage can.
    fn plain<F: Frame>(frame: &F) -> Step<Headers<Self>>;

    /// Parses the IP header at `l3`, with everything that may come before the transport header.
    ///
    /// # Errors
    ///
    /// [`Broken`] where lengths contradict each other or the frame ends too soon.
    fn headers<F: Frame>(frame: &F, l3: usize) -> Result<Headers<Self>, Broken<Self>>;
}

impl Plain for Ipv4 {
    #[inline(always)]
    fn plain<F: Frame>(frame: &F) -> Step<Headers<Self>> {
        let l3 = link::HEADER;
        let Some(header) = frame.fields::<20>(l3) else { return Err(Verdict::Defer(Stage::Slow)) };
        let fragment = u16::from_be_bytes(header.get::<6, 2>());
        let length = u16::from_be_bytes(header.get::<2, 2>());
        if header.get::<0, 1>() != [0x45]
            || fragment & MORE_FRAGMENTS_OR_OFFSET != 0
            || l3 + length as usize > frame.length()
        {
            return Err(Verdict::Defer(Stage::Slow));
        }
        Ok(Headers {
            source: Be32::from_wire(header.get::<12, 4>()),
            destination: Be32::from_wire(header.get::<16, 4>()),
            protocol: Protocol(header.get::<9, 1>()[0]),
            hop_limit: header.get::<8, 1>()[0],
            dont_fragment: fragment & DONT_FRAGMENT != 0,
            l3,
            l4: l3 + 20,
            length,
            part: Part::WHOLE,
            identification: 0,
        })
    }

    #[inline(always)]
    fn headers<F: Frame>(frame: &F, l3: usize) -> Result<Headers<Self>, Broken<Self>> {
        let Some(header) = frame.read::<20>(l3) else {
            return Err(Broken { destination: None, reason: Reason::DropTruncated });
        };
        let destination = Be32::from_wire(header.get::<16, 4>());
        let broken = |reason| Broken { destination: Some(destination), reason };
        let length = u16::from_be_bytes(header.get::<2, 2>());
        let [version] = header.get::<0, 1>();
        let header_length = (version & 0xf) as usize * 4;
        if version >> 4 != 4 || header_length < 20 || header_length > length as usize {
            return Err(broken(Reason::DropMalformed));
        }
        if l3 + length as usize > frame.length() {
            return Err(broken(Reason::DropTruncated));
        }
        let offset = u16::from_be_bytes(header.get::<6, 2>());
        let part = if offset & MORE_FRAGMENTS_OR_OFFSET == 0 {
            Part::WHOLE
        } else if offset & FRAGMENT_OFFSET == 0 {
            Part::FIRST
        } else {
            Part::LATER
        };
        Ok(Headers {
            source: Be32::from_wire(header.get::<12, 4>()),
            destination,
            protocol: Protocol(header.get::<9, 1>()[0]),
            hop_limit: header.get::<8, 1>()[0],
            dont_fragment: offset & DONT_FRAGMENT != 0,
            l3,
            l4: frame.forget(l3 + header_length),
            length,
            part: part.forgotten(frame),
            identification: u16::from_ne_bytes(header.get::<4, 2>()) as u32,
        })
    }
}

impl Plain for Ipv6 {
    #[inline(always)]
    fn plain<F: Frame>(frame: &F) -> Step<Headers<Self>> {
        let l3 = link::HEADER;
        let Some(header) = frame.fields::<40>(l3) else { return Err(Verdict::Defer(Stage::Slow)) };
        let payload = u16::from_be_bytes(header.get::<4, 2>());
        if header.get::<0, 1>()[0] >> 4 != 6
            || l3 + 40 + payload as usize > frame.length()
            || payload > u16::MAX - 40
        {
            return Err(Verdict::Defer(Stage::Slow));
        }
        Ok(fixed_header(&header, l3, payload))
    }

    #[inline(always)]
    fn headers<F: Frame>(frame: &F, l3: usize) -> Result<Headers<Self>, Broken<Self>> {
        let Some(header) = frame.read::<40>(l3) else {
            return Err(Broken { destination: None, reason: Reason::DropTruncated });
        };
        let payload = u16::from_be_bytes(header.get::<4, 2>());
        // A payload length of 0 announces a jumbogram (RFC 2675), which no link here carries.
        let malformed = header.get::<0, 1>()[0] >> 4 != 6 || payload == 0 || payload > u16::MAX - 40;
        let mut headers = fixed_header(&header, l3, payload);
        let broken = |reason| Broken { destination: Some(headers.destination), reason };
        if malformed {
            return Err(broken(Reason::DropMalformed));
        }
        if l3 + 40 + payload as usize > frame.length() {
            return Err(broken(Reason::DropTruncated));
        }
        match extensions(frame, l3 + 40, headers.protocol) {
            Ok(end) => {
                headers.protocol = end.protocol;
                headers.l4 = end.at;
                headers.part = end.part.forgotten(frame);
                headers.identification = end.identification;
                if headers.l4 > l3 + headers.length as usize {
                    return Err(broken(Reason::DropMalformed));
                }
                Ok(headers)
            }
            Err(reason) => Err(broken(reason)),
        }
    }
}

#[inline(always)]
fn fixed_header(header: &impl Fields<40>, l3: usize, payload: u16) -> Headers<Ipv6> {
    Headers {
        source: Address::from_wire(header.get::<8, 16>()),
        destination: Address::from_wire(header.get::<24, 16>()),
        protocol: Protocol(header.get::<6, 1>()[0]),
        hop_limit: header.get::<7, 1>()[0],
        dont_fragment: true,
        l3,
        l4: l3 + 40,
        length: payload.wrapping_add(40),
        part: Part::WHOLE,
        identification: 0,
    }
}

/// Where a chain of extension headers ends.
pub struct ChainEnd {
    /// What the last header announces.
    pub protocol: Protocol,
    /// Where that starts in the frame.
    pub at: usize,
    /// Which part of its datagram the packet is.
    pub part: Part,
    /// Which datagram, as on the wire; 0 for a whole one.
    pub identification: u32,
}

/// Extension headers that are walked at most. RFC 8200 section 4.1 recommends an order in which each comes once: five.
pub const MAX_EXTENSIONS: usize = 6;

/// Walks hop-by-hop options, routing, fragment and destination options headers (RFC 8200 section 4).
///
/// # Errors
///
/// [`Reason::DropTruncated`] where the frame ends within them, [`Reason::DropMalformed`] where there are more than
/// [`MAX_EXTENSIONS`].
#[inline(always)]
pub fn extensions<F: Frame>(frame: &F, at: usize, first: Protocol) -> Result<ChainEnd, Reason> {
    let mut end = ChainEnd { protocol: first, at, part: Part::WHOLE, identification: 0 };
    for _ in 0..MAX_EXTENSIONS {
        let is_fragment = match end.protocol.0 {
            0 | 43 | 60 => false,
            44 => true,
            _ => return Ok(end),
        };
        let Some([next, length, o0, o1, i0, i1, i2, i3]) = frame.read::<8>(end.at) else {
            return Err(Reason::DropTruncated);
        };
        end.protocol = Protocol(next);
        if is_fragment {
            let offset = u16::from_be_bytes([o0, o1]);
            end.at += 8;
            end.identification = u32::from_ne_bytes([i0, i1, i2, i3]);
            if offset & 0xfff8 != 0 {
                end.part = Part::LATER;
                return Ok(end);
            }
            // Neither an offset nor more to come: an "atomic" fragment is whole (RFC 6946).
            end.part = if offset & 1 != 0 { Part::FIRST } else { Part::WHOLE };
        } else {
            end.at += (length as usize + 1) * 8;
        }
        end.at = frame.forget(end.at);
    }
    match end.protocol.0 {
        0 | 43 | 44 | 60 => Err(Reason::DropMalformed),
        _ => Ok(end),
    }
}

impl<A: Family> Packet<A> {
    /// Reads the transport header behind an IP header. `None` where it is not all there.
    #[inline(always)]
    pub fn read<F: Frame>(frame: &F, ip: Headers<A>) -> Option<Self> {
        let room = (ip.l3 + ip.length as usize).wrapping_sub(ip.l4);
        if ip.protocol == Protocol::TCP {
            let header = frame.fields::<TCP_HEADER>(ip.l4)?;
            (room >= TCP_HEADER).then_some(Self {
                ip,
                source_port: Be16::from_wire(header.get::<0, 2>()),
                destination_port: Be16::from_wire(header.get::<2, 2>()),
                segment: Segment {
                    flags: header.get::<13, 1>()[0],
                    sequence: u32::from_be_bytes(header.get::<4, 4>()),
                    acknowledgement: u32::from_be_bytes(header.get::<8, 4>()),
                },
                has_transport: true,
                unchecked: false,
            })
        } else {
            let header = frame.fields::<UDP_HEADER>(ip.l4)?;
            (room >= UDP_HEADER).then_some(Self {
                ip,
                source_port: Be16::from_wire(header.get::<0, 2>()),
                destination_port: Be16::from_wire(header.get::<2, 2>()),
                segment: Segment::NONE,
                has_transport: true,
                unchecked: header.get::<6, 2>() == [0, 0],
            })
        }
    }

    /// A later fragment of a datagram whose first carried these ports.
    #[inline(always)]
    pub fn later_fragment(ip: Headers<A>, ports: Ports) -> Self {
        Self {
            ip,
            source_port: ports.source,
            destination_port: ports.destination,
            segment: Segment::NONE,
            has_transport: false,
            unchecked: false,
        }
    }
}

/// Whether the pipeline balances this protocol.
#[inline(always)]
pub fn is_balanced(protocol: Protocol) -> bool {
    protocol == Protocol::TCP || protocol == Protocol::UDP
}

#[cfg(test)]
mod tests;
