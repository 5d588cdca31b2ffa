//! ICMP: echo to a virtual address answered; errors that quote a balanced packet translated, both ways.
//!
//! An error is for whoever sent the packet that it quotes, and must quote it as that host sent it. About a *reply*
//! it goes to the backend, which knows its own address where the quote has the virtual one; about a *request* it
//! goes to the client, which knows the virtual address where the quote has the backend's. Without this, path-MTU
//! discovery ends at the balancer.

use lb_common::address::{Be16, Protocol};
use lb_common::checksum::Delta;
use lb_common::flow::Key;
use lb_common::reason::Reason;
use lb_common::settings::Settings;

use crate::classify::{self, Found};
use crate::family::{Family, Ipv4, Ipv6, Side};
use crate::flows::{self, Lookup};
use crate::frame::Frame;
use crate::link::{self, LinkHeader};
use crate::next_hops::{self, Way};
use crate::parse::{Headers, is_balanced};
use crate::reply::{self, Owner};
use crate::select::{self, Selection};
use crate::send::out;
use crate::tables::{RouteQuery, Tables};
use crate::translate::{Forwarder, TCP_CHECKSUM, Translation, UDP_CHECKSUM};
use crate::verdict::{Step, Verdict};

/// Bytes of an ICMP header; in an error the quote follows.
const HEADER: usize = 8;
/// TTL of an answer.
const HOP_LIMIT: u8 = 64;

/// A family's message types.
pub trait Messages: Family + Sized {
    /// Echo request and echo reply.
    const ECHO: (u8, u8);

    /// Whether a message of this type quotes a packet.
    fn is_error(kind: u8) -> bool;
    /// Protocol and offset of the transport header in the quote at `at`.
    fn quoted_transport<F: Frame>(frame: &F, at: usize) -> Option<(Protocol, usize)>;
    /// Turns an IP header around, with a fresh TTL.
    fn turn<F: Frame>(frame: &mut F, ip: &Headers<Self>) -> Option<()>;
}

/// The packet that an error quotes.
#[derive(Clone, Copy, Debug)]
struct Quote<A: Family> {
    source: A::Address,
    destination: A::Address,
    source_port: Be16,
    destination_port: Be16,
    protocol: Protocol,
    l3: usize,
    l4: usize,
}

/// Answers, translates, or lets pass.
#[inline(always)]
pub fn handle<A: Messages, F: Frame, T: Tables>(frame: &mut F, tables: &T, ip: &Headers<A>) -> Step<Verdict> {
    // Fragmented ICMP is the kernel's: nothing that matters here is that long.
    let Some(&[kind, _]) = frame.bytes::<2>(ip.l4).filter(|_| ip.fragment.is_none() && ip.protocol == A::ICMP) else {
        return Err(Verdict::Pass(Reason::PassNotOurs));
    };
    let to_vip = classify::is_vip::<A, T>(tables, ip.destination);
    if kind == A::ECHO.0 && to_vip && A::is_unicast(ip.source) && ip.l4 == ip.l3 + A::HEADER {
        return answer_echo(frame, ip).ok_or(Verdict::Drop(Reason::DropTruncated));
    }
    let quote = if A::is_error(kind) { quoted::<A, F>(frame, ip) } else { None };
    let Some(quote) = quote else {
        let reason = if to_vip && A::is_error(kind) { Reason::PassIcmpWithoutFlow } else { Reason::PassNotOurs };
        return Err(Verdict::Pass(reason));
    };
    let settings = tables.settings().ok_or(Verdict::INTERNAL)?;
    if to_vip
        && ip.destination == quote.source
        && let Some(service) = classify::service::<A, T>(tables, quote.source, quote.source_port, quote.protocol)
    {
        return about_reply(frame, tables, settings, ip, &quote, service.id);
    }
    if let Some(first) = classify::endpoint::<A, T>(tables, quote.destination, quote.destination_port, quote.protocol) {
        return about_request(frame, tables, settings, ip, &quote, first.id);
    }
    Err(Verdict::Pass(if to_vip { Reason::PassIcmpWithoutFlow } else { Reason::PassNotOurs }))
}

#[inline(always)]
fn answer_echo<A: Messages, F: Frame>(frame: &mut F, ip: &Headers<A>) -> Option<Verdict> {
    let header = frame.bytes_mut::<4>(ip.l4)?;
    let old = u16::from_ne_bytes([header[0], header[1]]);
    header[0] = A::ECHO.1;
    let delta = Delta::word(old, u16::from_ne_bytes([header[0], header[1]]));
    [header[2], header[3]] = delta.apply(u16::from_ne_bytes([header[2], header[3]])).to_ne_bytes();
    A::turn(frame, ip)?;
    LinkHeader::read(frame, ip.l3, A::ETHERTYPE)?.answered().write(frame)?;
    Some(Verdict::Transmit(Reason::EchoAnswered))
}

/// Reads the quote, as far as its ports.
#[inline(always)]
fn quoted<A: Messages, F: Frame>(frame: &F, ip: &Headers<A>) -> Option<Quote<A>> {
    let l3 = ip.l4 + HEADER;
    let (protocol, l4) = A::quoted_transport(frame, l3)?;
    if !is_balanced(protocol) || l4 + 4 > ip.l3 + ip.length as usize {
        return None;
    }
    let &[s0, s1, d0, d1] = frame.bytes::<4>(l4)?;
    Some(Quote {
        source: A::read_address(frame, l3, Side::Source)?,
        destination: A::read_address(frame, l3, Side::Destination)?,
        source_port: Be16::from_wire([s0, s1]),
        destination_port: Be16::from_wire([d0, d1]),
        protocol,
        l3,
        l4,
    })
}

/// An error about what a client was sent: to the backend that sent it.
#[inline(always)]
fn about_reply<A: Messages, F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    settings: &Settings,
    ip: &Headers<A>,
    quote: &Quote<A>,
    service: u16,
) -> Step<Verdict> {
    let backend =
        backend_of::<A, T>(tables, settings, quote, service).ok_or(Verdict::Pass(Reason::PassIcmpWithoutFlow))?;
    let query =
        || RouteQuery { ingress: frame.ingress(), source: A::widen(ip.source), destination: backend.row.address };
    let way = next_hops::resolve(tables, settings, backend.row.next_hop.load() as u16, query);
    if let Way::Found(_, reference) = way {
        backend.row.next_hop.store(reference as u64);
    }
    let outer = Translation::<A>::to_backend(backend.row);
    let inner = Translation { side: Side::Source, ..outer };
    send(frame, ip, quote, way, &outer, &inner, Reason::IcmpToBackend)
}

/// The backend of the flow that a quoted reply belongs to.
#[inline(always)]
fn backend_of<'a, A: Messages, T: Tables>(
    tables: &'a T,
    settings: &Settings,
    quote: &Quote<A>,
    service: u16,
) -> Option<Found<'a, lb_common::backend::Backend>> {
    let key = A::key(quote.destination, quote.destination_port, service);
    let bucket = A::bucket(tables, key.hash(settings.flow_key) as u32)?;
    let found = match flows::look_up(bucket, key) {
        Lookup::Hit(_, data) => Found { id: data.backend(), row: tables.backend(data.backend())? },
        Lookup::Miss => return None,
        Lookup::Untracked => {
            let row = tables.service(service)?;
            let service = Found { id: service, row };
            match select::backend::<A, T>(tables, &service, quote.destination, quote.destination_port) {
                Selection::Backend(backend, _) => backend,
                _ => return None,
            }
        }
    };
    (found.row.service == service).then_some(found)
}

/// An error about what a backend was sent: to the client that sent it.
#[inline(always)]
fn about_request<A: Messages, F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    settings: &Settings,
    ip: &Headers<A>,
    quote: &Quote<A>,
    first: u16,
) -> Step<Verdict> {
    let client = (quote.source, quote.source_port);
    let owner: Owner<'_, A::Key> = reply::owner::<A, T>(tables, settings, first, client)
        .ok_or(Verdict::Pass(Reason::PassIcmpWithoutFlow))?;
    let way = reply::to_client::<A, F, T>(frame, tables, settings, &owner, ip.destination);
    let back = Translation::<A>::from_backend(owner.backend.row);
    let inner = Translation { side: Side::Destination, ..back };
    // What the backend itself complains about comes from the virtual address; a router in between keeps its own.
    let outer = if ip.source == A::narrow(&owner.backend.row.address) {
        back
    } else {
        Translation { address: ip.source, address_delta: Delta::NONE, ..back }
    };
    send(frame, ip, quote, way, &outer, &inner, Reason::IcmpToClient)
}

/// Rewrites the quote, the ICMP checksum and the outer header, and sends the error out.
#[inline(always)]
fn send<A: Messages, F: Frame>(
    frame: &mut F,
    ip: &Headers<A>,
    quote: &Quote<A>,
    way: Way,
    outer: &Translation<A>,
    inner: &Translation<A>,
    reason: Reason,
) -> Step<Verdict> {
    // No error is sent about an error (RFC 1122 section 3.2.2).
    if ip.hop_limit <= 1 {
        return Err(Verdict::Drop(Reason::DropTimeExceeded));
    }
    let (hop, left_to_kernel) = match way {
        Way::Cached(hop) | Way::Found(hop, _) if ip.length <= hop.mtu => (Some(hop), reason),
        Way::Cached(_) | Way::Found(..) if ip.dont_fragment => return Err(Verdict::Drop(Reason::DropTooBig)),
        Way::Cached(_) | Way::Found(..) => (None, Reason::PassForFragmentation),
        Way::NeighbourUnknown => (None, Reason::PassNeighbourUnknown),
        Way::Unfollowable => (None, Reason::PassForRouting),
        Way::NoRoute => return Err(Verdict::Drop(Reason::DropNoRoute)),
    };
    let quote_delta = translate_quote(frame, ip, quote, inner).ok_or(Verdict::INTERNAL)?;
    // ICMPv6 covers the addresses of the packet that carries it (RFC 4443 section 2.3), ICMP does not.
    let delta = if A::HEADER_CHECKSUM { quote_delta } else { quote_delta.and(outer.address_delta) };
    let field = frame.bytes_mut::<2>(ip.l4 + 2).ok_or(Verdict::INTERNAL)?;
    *field = delta.apply(u16::from_ne_bytes(*field)).to_ne_bytes();
    let by = if hop.is_some() { Forwarder::Here } else { Forwarder::Kernel };
    outer.apply_ip(frame, ip, by).ok_or(Verdict::INTERNAL)?;
    let Some(hop) = hop else { return Ok(Verdict::Pass(left_to_kernel)) };
    link::address_to(frame, ip.l3, &hop, A::ETHERTYPE)?;
    Ok(out(frame, &hop, reason))
}

/// Rewrites one end of the quoted packet and its checksums; returns what that does to the sum over the quote.
#[inline(always)]
fn translate_quote<A: Messages, F: Frame>(
    frame: &mut F,
    ip: &Headers<A>,
    quote: &Quote<A>,
    translation: &Translation<A>,
) -> Option<Delta> {
    A::write_address(frame, quote.l3, translation.side, translation.address)?;
    let mut delta = translation.address_delta;
    if A::HEADER_CHECKSUM {
        delta = delta.and(update_field(frame, quote.l3 + 10, |field| translation.address_delta.apply(field))?);
    }
    let port = quote.l4 + if translation.side == Side::Source { 0 } else { 2 };
    delta = delta.and(update_field(frame, port, |_| translation.port.0)?);

    let (at, udp) =
        if quote.protocol == Protocol::UDP { (UDP_CHECKSUM, true) } else { (TCP_CHECKSUM, false) };
    // Eight bytes of the transport header are all that a quote must have; TCP's checksum lies beyond.
    if quote.l4 + at + 2 <= ip.l3 + ip.length as usize {
        delta = delta.and(update_field(frame, quote.l4 + at, |field| match (udp, field) {
            (true, 0) => 0,
            (true, _) => translation.endpoint_delta.apply_udp(field),
            (false, _) => translation.endpoint_delta.apply(field),
        })?);
    }
    Some(delta)
}

/// Replaces a 16-bit field, as loaded; returns the difference it makes to a sum that covers it.
#[inline(always)]
fn update_field<F: Frame>(frame: &mut F, at: usize, new: impl Fn(u16) -> u16) -> Option<Delta> {
    let field = frame.bytes_mut::<2>(at)?;
    let old = u16::from_ne_bytes(*field);
    let new = new(old);
    *field = new.to_ne_bytes();
    Some(Delta::word(old, new))
}

impl Messages for Ipv4 {
    /// RFC 792: 8 asks, 0 answers.
    const ECHO: (u8, u8) = (8, 0);

    /// Destination unreachable (with "fragmentation needed"), time exceeded, parameter problem.
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, 3 | 11 | 12)
    }

    #[inline(always)]
    fn quoted_transport<F: Frame>(frame: &F, at: usize) -> Option<(Protocol, usize)> {
        let header = frame.bytes::<20>(at)?;
        let length = (header[0] & 0xf) as usize * 4;
        let later_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
        (header[0] >> 4 == 4 && length >= 20 && !later_fragment).then_some((Protocol(header[9]), at + length))
    }

    #[inline(always)]
    fn turn<F: Frame>(frame: &mut F, ip: &Headers<Self>) -> Option<()> {
        Self::write_address(frame, ip.l3, Side::Source, ip.destination)?;
        Self::write_address(frame, ip.l3, Side::Destination, ip.source)?;
        let header = frame.bytes_mut::<20>(ip.l3)?;
        let old = u16::from_ne_bytes([header[8], header[9]]);
        header[8] = HOP_LIMIT;
        let delta = Delta::word(old, u16::from_ne_bytes([header[8], header[9]]));
        [header[10], header[11]] = delta.apply(u16::from_ne_bytes([header[10], header[11]])).to_ne_bytes();
        Some(())
    }
}

impl Messages for Ipv6 {
    /// RFC 4443 section 4: 128 asks, 129 answers.
    const ECHO: (u8, u8) = (128, 129);

    /// Types below 128 are errors (RFC 4443 section 2.1); 1 to 4 are defined.
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, 1..=4)
    }

    #[inline(always)]
    fn quoted_transport<F: Frame>(frame: &F, at: usize) -> Option<(Protocol, usize)> {
        let header = frame.bytes::<40>(at)?;
        (header[0] >> 4 == 6).then_some((Protocol(header[6]), at + 40))
    }

    #[inline(always)]
    fn turn<F: Frame>(frame: &mut F, ip: &Headers<Self>) -> Option<()> {
        Self::write_address(frame, ip.l3, Side::Source, ip.destination)?;
        Self::write_address(frame, ip.l3, Side::Destination, ip.source)?;
        frame.bytes_mut::<8>(ip.l3)?[7] = HOP_LIMIT;
        Some(())
    }
}
