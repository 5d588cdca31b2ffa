//! Answers of our own: a reset, or an ICMP error that quotes what came in.
//!
//! A virtual address is local to the balancer's host, so what cannot be forwarded must be answered here: the
//! kernel's stack knows nothing of the flow. Answers come from the virtual address and go back the way the packet
//! came, to the neighbour that sent it. Whoever finds that an answer is due leaves a note ([`with`]) and the frame as
//! it is; the stage starts from the frame again.

use lb_common::address::{Address, Be32, Protocol};
use lb_common::checksum::fold;
use lb_common::reason::Reason;

use crate::classify;
use crate::family::{Family, Ipv4, Ipv6};
use crate::frame::Frame;
use crate::link::LinkHeader;
use crate::nat;
use crate::parse::{Headers, Packet, Part};
use crate::tables::Tables;
use crate::verdict::{Stage, Step, Verdict};

/// Why a packet is answered instead of forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Its TTL or hop limit would reach zero here.
    TimeExceeded,
    /// It is larger than the next link takes: that many bytes.
    TooBig(u16),
    /// No backend takes traffic.
    NoBackend,
    /// The flow's backend is gone, and its service ends such flows.
    BackendDown,
    /// It is of a flow that nobody knows, whose backend cannot be computed.
    UnknownFlow,
    /// A backend accepts a connection that has left it for another.
    StaleSynAck,
}

impl Rejection {
    const fn to_word(self) -> u64 {
        match self {
            Self::TimeExceeded => 0,
            Self::NoBackend => 1,
            Self::TooBig(mtu) => 2 | (mtu as u64) << 8,
            Self::BackendDown => 3,
            Self::UnknownFlow => 4,
            Self::StaleSynAck => 5,
        }
    }

    const fn from_word(word: u64) -> Self {
        match word & 0xff {
            0 => Self::TimeExceeded,
            1 => Self::NoBackend,
            3 => Self::BackendDown,
            4 => Self::UnknownFlow,
            5 => Self::StaleSynAck,
            _ => Self::TooBig((word >> 8) as u16),
        }
    }

    /// How it is answered: the one table of all answers.
    const fn answer(self) -> Answer {
        match self {
            Self::TimeExceeded => Answer {
                icmp: (11, 0),
                icmpv6: (3, 0),
                error: (Reason::TimeExceeded, Reason::DropTimeExceeded),
                reset: None,
            },
            Self::TooBig(_) => Answer {
                icmp: (3, 4),
                icmpv6: (2, 0),
                error: (Reason::TooBig, Reason::DropTooBig),
                reset: None,
            },
            Self::NoBackend => Answer {
                icmp: (3, 3),
                icmpv6: (1, 4),
                error: (Reason::UnreachableNoBackend, Reason::DropUnreachable),
                reset: Some((Reason::ResetNoBackend, Reason::DropNoBackend)),
            },
            Self::BackendDown => Answer {
                icmp: (3, 3),
                icmpv6: (1, 4),
                error: (Reason::UnreachableBackendDown, Reason::DropBackendDown),
                reset: Some((Reason::ResetBackendDown, Reason::DropBackendDown)),
            },
            // Only TCP has a middle of a stream, and is answered with a reset.
            Self::UnknownFlow => Answer {
                icmp: (3, 3),
                icmpv6: (1, 4),
                error: (Reason::ResetUnknownFlow, Reason::DropUnknownFlow),
                reset: Some((Reason::ResetUnknownFlow, Reason::DropUnknownFlow)),
            },
            // So has it.
            Self::StaleSynAck => Answer {
                icmp: (3, 3),
                icmpv6: (1, 4),
                error: (Reason::ResetSynAckStale, Reason::DropResetStale),
                reset: Some((Reason::ResetSynAckStale, Reason::DropResetStale)),
            },
        }
    }

    /// The second word of the error: the MTU in "too big" (RFC 1191 section 4, RFC 4443 section 3.2), or zero.
    const fn rest(self) -> u32 {
        match self {
            Self::TooBig(mtu) => mtu as u32,
            _ => 0,
        }
    }
}

/// What a rejection is to the sender and to the counters.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// Type and code of the error in ICMP (RFC 792; RFC 1191 section 4).
    icmp: (u8, u8),
    /// Type and code of the error in ICMPv6 (RFC 4443 section 3).
    icmpv6: (u8, u8),
    /// Counted when the error is sent, and when none is due.
    error: (Reason, Reason),
    /// Counted when TCP is answered with a reset, and when it is one itself; `None` where TCP gets an ICMP error too.
    reset: Option<(Reason, Reason)>,
}

/// Notes what is to be answered, and defers to the stage that does.
#[inline(always)]
pub fn with<T: Tables>(tables: &T, rejection: Rejection) -> Verdict {
    match tables.icmp_budget() {
        Some(row) => {
            row.pending.store(rejection.to_word());
            Verdict::Defer(Stage::Reject)
        }
        None => Verdict::INTERNAL,
    }
}

/// TTL of packets that start here (RFC 1700; what Linux uses).
const HOP_LIMIT: u8 = 64;
/// Bytes of a TCP header without options.
const TCP_HEADER: usize = 20;
/// Bytes of an ICMP error before its quote.
const ICMP_HEADER: usize = 8;

/// A family in which answers can be written.
pub trait Answering: Family + Sized {
    /// Bytes of the rejected packet that an error quotes at most.
    const MAX_QUOTE: u16;

    /// Writes an IP header without options for a packet of our own, at `at`.
    fn write_header<F: Frame>(frame: &mut F, at: usize, ends: &Ends<Self>, header: &Header) -> Option<()>;
    /// The sum of the pseudo-header (RFC 9293 section 3.1; RFC 8200 section 8.1).
    fn pseudo_sum(ends: &Ends<Self>, protocol: Protocol, payload: u16) -> u64;
    /// Type and code of the error.
    fn message(answer: Answer) -> (u8, u8);
}

/// What an IP header says besides where it comes from and goes to.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// The first four bytes, of which the traffic class and the flow label are taken.
    pub head: [u8; 4],
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// What the packet carries.
    pub protocol: Protocol,
    /// Bytes behind the header.
    pub payload: u16,
}

impl Header {
    /// That of an answer.
    #[inline(always)]
    const fn answering(protocol: Protocol, payload: u16) -> Self {
        Self { head: [0; 4], hop_limit: HOP_LIMIT, protocol, payload }
    }
}

/// Where an answer comes from and goes to.
#[derive(Clone, Copy, Debug)]
pub struct Ends<A: Family> {
    /// The virtual address.
    pub source: A::Address,
    /// Who sent the packet.
    pub destination: A::Address,
}

/// Answers the packet that was deferred.
#[inline(always)]
pub fn answer<A: Answering, F: Frame, T: Tables>(frame: &mut F, tables: &T, ip: Headers<A>) -> Step<Verdict> {
    let rejection = Rejection::from_word(tables.icmp_budget().ok_or(Verdict::INTERNAL)?.pending.load());
    let (_, not_due) = rejection.answer().error;
    // RFC 1122 section 3.2.2: no error about any fragment but the first, none to a source that is not one host.
    if ip.part == Part::LATER || !A::is_unicast(ip.source) {
        return Err(Verdict::Drop(not_due));
    }
    let packet = Packet::read(frame, ip).ok_or(Verdict::INTERNAL)?;
    let ends = Ends {
        source: answering_address::<A, T>(tables, &packet, rejection).ok_or(Verdict::INTERNAL)?,
        destination: ip.source,
    };
    if ip.protocol == Protocol::TCP
        && let Some((answered, is_reset)) = rejection.answer().reset
    {
        if packet.segment.is_reset() {
            return Err(Verdict::Drop(is_reset));
        }
        return reset(frame, &packet, &ends, answered).ok_or(Verdict::INTERNAL);
    }
    if !is_due(tables) {
        return Err(Verdict::Drop(not_due));
    }
    error(frame, &ip, &ends, rejection).ok_or(Verdict::INTERNAL)
}

/// The address that the packet is about: the virtual one that a request goes to or whose backend a reply is from; the pool's
/// that a full-NAT service's reply goes to. A backend is told as if by whom it answers.
#[inline(always)]
fn answering_address<A: Family, T: Tables>(
    tables: &T,
    packet: &Packet<A>,
    rejection: Rejection,
) -> Option<A::Address> {
    let ip = &packet.ip;
    if rejection == Rejection::StaleSynAck {
        return Some(ip.destination);
    }
    if classify::service::<A, T>(tables, ip.destination, packet.destination_port, ip.protocol).is_some() {
        return Some(ip.destination);
    }
    let backend = classify::endpoint::<A, T>(tables, ip.source, packet.source_port, ip.protocol)?;
    if backend.row.is_behind_full_nat()
        && nat::is_pool::<A, T>(tables, &ip.destination, packet.destination_port.0)
    {
        return Some(ip.destination);
    }
    Some(A::narrow(&backend.row.vip))
}

/// Takes one error out of this CPU's budget for this second.
#[inline(always)]
fn is_due<T: Tables>(tables: &T) -> bool {
    let settings = tables.settings();
    let Some(budget) = tables.icmp_budget() else { return false };
    let second = tables.jiffies() / (settings.jiffies_per_second.max(1)) as u64;
    if budget.second.load() != second {
        budget.second.store(second);
        budget.sent.store(0);
    }
    let due = budget.sent.load() < settings.icmp_errors_per_second as u64;
    if due {
        budget.sent.count(1);
    }
    due
}

/// A reset that the client accepts (RFC 9293 section 3.10.7.1), in place of the packet.
#[inline(always)]
fn reset<A: Answering, F: Frame>(
    frame: &mut F,
    packet: &Packet<A>,
    ends: &Ends<A>,
    reason: Reason,
) -> Option<Verdict> {
    let ip = &packet.ip;
    let segment = packet.segment;
    let [offset] = frame.read::<1>(ip.l4 + 12)?;
    let header_length = (offset as u32 >> 4) << 2;
    let data = (ip.length as u32).wrapping_sub((ip.l4 - ip.l3) as u32 + header_length);
    let (sequence, acknowledgement, flags) = if segment.is_acknowledging() {
        (segment.acknowledgement, 0, 0x04)
    } else {
        (0, segment.sequence.wrapping_add(data).wrapping_add(segment.phantom_length()), 0x14)
    };
    let link = LinkHeader::read(frame, ip.l3, A::ETHERTYPE)?.answered();
    let l4 = ip.l3 + A::HEADER;
    let end = l4 + TCP_HEADER;
    frame.move_end(end as i32 - frame.length() as i32)?;
    link.write(frame)?;
    A::write_header(frame, ip.l3, ends, &Header::answering(Protocol::TCP, TCP_HEADER as u16))?;

    let [p0, p1] = packet.destination_port.to_wire();
    let [q0, q1] = packet.source_port.to_wire();
    let [s0, s1, s2, s3] = sequence.to_be_bytes();
    let [a0, a1, a2, a3] = acknowledgement.to_be_bytes();
    frame.write(l4, [p0, p1, q0, q1, s0, s1, s2, s3, a0, a1, a2, a3, 0x50, flags, 0, 0, 0, 0, 0, 0])?;
    let sum = sum::<F, { TCP_HEADER / 4 }>(frame, l4, TCP_HEADER)?;
    let checksum = !fold(sum + A::pseudo_sum(ends, Protocol::TCP, TCP_HEADER as u16));
    frame.write(l4 + 16, checksum.to_ne_bytes())?;
    Some(Verdict::Transmit(reason))
}

/// An ICMP error with the packet, or its beginning, quoted behind it.
#[inline(always)]
fn error<A: Answering, F: Frame>(
    frame: &mut F,
    ip: &Headers<A>,
    ends: &Ends<A>,
    rejection: Rejection,
) -> Option<Verdict> {
    let (kind, code) = A::message(rejection.answer());
    let quote = ip.length.min(A::MAX_QUOTE) & !3;
    let link = LinkHeader::read(frame, ip.l3, A::ETHERTYPE)?.answered();
    frame.move_end((ip.l3 + quote as usize) as i32 - frame.length() as i32)?;
    frame.move_front(-((A::HEADER + ICMP_HEADER) as i32))?;
    link.write(frame)?;
    let payload = ICMP_HEADER as u16 + quote;
    A::write_header(frame, ip.l3, ends, &Header::answering(A::ICMP, payload))?;

    let at = ip.l3 + A::HEADER;
    let [r0, r1, r2, r3] = rejection.rest().to_be_bytes();
    frame.write(at, [kind, code, 0, 0, r0, r1, r2, r3])?;
    // The compiler knows that no message is longer than that, and would leave the loop's own bound out; the verifier of
    // Linux 6.1 does not know it, and would follow the loop through frames of any length.
    let length = frame.forget(payload as usize);
    let mut total = sum::<F, MAX_MESSAGE_WORDS>(frame, at, length)?;
    if !A::HEADER_CHECKSUM {
        total += A::pseudo_sum(ends, A::ICMP, payload);
    }
    frame.write(at + 2, (!fold(total)).to_ne_bytes())?;
    Some(Verdict::Transmit(rejection.answer().error.0))
}

/// Words of the longest error: an ICMPv6 header and its quote.
const MAX_MESSAGE_WORDS: usize = (ICMP_HEADER + 1232) / 4;

/// Adds up `length` bytes from `at` on, a multiple of four and at most `WORDS` of them.
#[inline(always)]
fn sum<F: Frame, const WORDS: usize>(frame: &F, at: usize, length: usize) -> Option<u64> {
    let mut total = 0;
    for word in 0..WORDS {
        if word * 4 >= length {
            break;
        }
        total += u32::from_ne_bytes(frame.read::<4>(at + word * 4)?) as u64;
    }
    Some(total)
}

impl Answering for Ipv4 {
    /// RFC 1812 section 4.3.2.3: as much as fits into 576 bytes in all.
    const MAX_QUOTE: u16 = 576 - 20 - ICMP_HEADER as u16;

    #[inline(always)]
    fn write_header<F: Frame>(frame: &mut F, at: usize, ends: &Ends<Self>, header: &Header) -> Option<()> {
        let &Header { head: [_, class, ..], hop_limit, protocol, payload } = header;
        let [l0, l1] = (20 + payload).to_be_bytes();
        let [s0, s1, s2, s3] = ends.source.to_wire();
        let [d0, d1, d2, d3] = ends.destination.to_wire();
        let fixed = u16::from_ne_bytes([0x45, class]) as u64 + u16::from_ne_bytes([0x40, 0]) as u64;
        let total = fixed
            + u16::from_ne_bytes([l0, l1]) as u64
            + u16::from_ne_bytes([hop_limit, protocol.0]) as u64
            + ends.source.0 as u64
            + ends.destination.0 as u64;
        let [c0, c1] = (!fold(total)).to_ne_bytes();
        // Not to be fragmented, so its identification means nothing (RFC 6864).
        let bytes = [
            0x45, class, l0, l1, 0, 0, 0x40, 0, hop_limit, protocol.0, c0, c1, s0, s1, s2, s3, d0, d1, d2, d3,
        ];
        frame.write(at, bytes)
    }

    #[inline(always)]
    fn pseudo_sum(ends: &Ends<Self>, protocol: Protocol, payload: u16) -> u64 {
        let Be32(source) = ends.source;
        let Be32(destination) = ends.destination;
        source as u64
            + destination as u64
            + u16::from_ne_bytes([0, protocol.0]) as u64
            + payload.to_be() as u64
    }

    #[inline(always)]
    fn message(answer: Answer) -> (u8, u8) {
        answer.icmp
    }
}

impl Answering for Ipv6 {
    /// RFC 4443 section 2.4 (c): as much as fits into the least MTU, 1280 bytes.
    const MAX_QUOTE: u16 = 1280 - 40 - ICMP_HEADER as u16;

    #[inline(always)]
    fn write_header<F: Frame>(frame: &mut F, at: usize, ends: &Ends<Self>, header: &Header) -> Option<()> {
        let &Header { head: [h0, h1, h2, h3], hop_limit, protocol, payload } = header;
        let [l0, l1] = payload.to_be_bytes();
        frame.write(at, [0x60 | h0 & 0xf, h1, h2, h3, l0, l1, protocol.0, hop_limit])?;
        frame.write(at + 8, ends.source.to_wire())?;
        frame.write(at + 24, ends.destination.to_wire())?;
        Some(())
    }

    #[inline(always)]
    fn pseudo_sum(ends: &Ends<Self>, protocol: Protocol, payload: u16) -> u64 {
        let words = |address: &Address| {
            let [a, b, c, d] = address.words();
            a.0 as u64 + b.0 as u64 + c.0 as u64 + d.0 as u64
        };
        words(&ends.source)
            + words(&ends.destination)
            + u16::from_ne_bytes([0, protocol.0]) as u64
            + payload.to_be() as u64
    }

    #[inline(always)]
    fn message(answer: Answer) -> (u8, u8) {
        answer.icmpv6
    }
}
