//! ICMP: echo to a virtual address answered; errors that quote a balanced packet translated, both ways.
//!
//! An error is for whoever sent the packet that it quotes, and must quote it as that host sent it. About a *reply*
//! it goes to the backend, which knows its own address where the quote has the virtual one; about a *request* it
//! goes to the client, which knows the virtual address where the quote has the backend's. Without this, path-MTU
//! discovery ends at the balancer.

use lb_common::address::{Be16, Protocol};
use lb_common::backend::Backend;
use lb_common::checksum::Delta;
use lb_common::flow::Key;
use lb_common::reason::Reason;
use lb_common::service::Options;

use crate::classify::{self, Found};
use crate::exceptions;
use crate::family::{Family, Ipv4, Ipv6, Side};
use crate::flows::{self, Lookup};
use crate::frame::Frame;
use crate::link::{self, LinkHeader};
use crate::nat;
use crate::next_hops::{self, Kind, Way};
use crate::parse::{self, Headers, Part, is_balanced};
use crate::reply::{self, Owner};
use crate::select;
use crate::send::out;
use crate::tables::{RouteQuery, Tables};
use crate::translate::{Forwarder, TCP_CHECKSUM, Translation, UDP_CHECKSUM};
use crate::verdict::{Stage, Step, Verdict};

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
    /// Protocol and offset of the transport header in the quote at `at`; `None` where it has none: a later fragment's
    /// quote names no ports.
    fn quoted_transport<F: Frame>(frame: &F, at: usize) -> Option<(Protocol, usize)>;
    /// Turns an IP header around, with a fresh TTL.
    fn turn<F: Frame>(frame: &mut F, ip: &Headers<Self>) -> Option<()>;
}

/// Where things are in the packet that an error quotes. Its addresses stay in the frame: the stack is 512 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Quote {
    /// Sender's port.
    pub source_port: Be16,
    /// Receiver's port.
    pub destination_port: Be16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where its IP header starts in the frame.
    pub l3: usize,
    /// Where its transport header starts.
    pub l4: usize,
}

/// Whom an error is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recipient {
    /// The backend: the quote is of its reply, and named the virtual address as its source.
    Backend,
    /// The client: the quote is of its request, and names the backend as its destination.
    Client,
}

/// Answers, translates, or lets pass.
#[inline(always)]
pub fn handle<A: Messages, F: Frame, T: Tables>(frame: &mut F, tables: &T, ip: &Headers<A>) -> Step<Verdict> {
    // Fragmented ICMP is the kernel's: nothing that matters here is that long.
    let Some([kind, _]) = frame.read::<2>(ip.l4).filter(|_| ip.part == Part::WHOLE && ip.protocol == A::ICMP)
    else {
        return Err(Verdict::Pass(Reason::PassNotOurs));
    };
    let to_vip = classify::is_vip::<A, T>(tables, ip.destination);
    if kind == A::ECHO.0 && to_vip && A::is_unicast(ip.source) && ip.l4 == ip.l3 + A::HEADER {
        return answer_echo(frame, ip).ok_or(Verdict::Drop(Reason::DropTruncated));
    }
    let quote = if A::is_error(kind) { quoted::<A, F>(frame, ip) } else { None };
    let Some(quote) = quote else {
        let reason =
            if to_vip && A::is_error(kind) { Reason::PassIcmpWithoutFlow } else { Reason::PassNotOurs };
        return Err(Verdict::Pass(reason));
    };
    let source = A::read_address(frame, quote.l3, Side::Source).ok_or(Verdict::INTERNAL)?;
    if to_vip
        && ip.destination == source
        && let Some(service) = classify::service::<A, T>(tables, source, quote.source_port, quote.protocol)
    {
        if nat::is_for(service.row) {
            return Err(Verdict::Defer(Stage::NatIcmp));
        }
        return about_reply(frame, tables, ip, &quote, service.id);
    }
    let destination = A::read_address(frame, quote.l3, Side::Destination).ok_or(Verdict::INTERNAL)?;
    if let Some(first) =
        classify::endpoint::<A, T>(tables, destination, quote.destination_port, quote.protocol)
    {
        let to_pool = ip.destination == source
            && first.row.is_behind_full_nat()
            && nat::is_pool::<A, T>(tables, &source, quote.source_port.0);
        if to_pool {
            return Err(Verdict::Defer(Stage::NatIcmp));
        }
        return about_request(frame, tables, ip, &quote, (source, quote.source_port), first.id);
    }
    Err(Verdict::Pass(if to_vip { Reason::PassIcmpWithoutFlow } else { Reason::PassNotOurs }))
}

#[inline(always)]
fn answer_echo<A: Messages, F: Frame>(frame: &mut F, ip: &Headers<A>) -> Option<Verdict> {
    let [kind, code, c0, c1] = frame.read::<4>(ip.l4)?;
    let delta = Delta::word(u16::from_ne_bytes([kind, code]), u16::from_ne_bytes([A::ECHO.1, code]));
    // As for UDP, all ones instead of zero: nothing but zeros may follow, and then zero would be wrong. Where something
    // else follows, both are right.
    let [c0, c1] = delta.apply_udp(u16::from_ne_bytes([c0, c1])).to_ne_bytes();
    frame.write(ip.l4, [A::ECHO.1, code, c0, c1])?;
    A::turn(frame, ip)?;
    LinkHeader::read(frame, ip.l3, A::ETHERTYPE)?.answered().write(frame)?;
    Some(Verdict::Transmit(Reason::EchoAnswered))
}

/// Reads the quote, as far as its ports.
#[inline(always)]
pub fn quoted<A: Messages, F: Frame>(frame: &F, ip: &Headers<A>) -> Option<Quote> {
    let l3 = ip.l4 + HEADER;
    let (protocol, l4) = A::quoted_transport(frame, l3)?;
    if !is_balanced(protocol) || l4 + 4 > ip.l3 + ip.length as usize {
        return None;
    }
    let [s0, s1, d0, d1] = frame.read::<4>(l4)?;
    Some(Quote {
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
    ip: &Headers<A>,
    quote: &Quote,
    service: u16,
) -> Step<Verdict> {
    let client = A::read_address(frame, quote.l3, Side::Destination).ok_or(Verdict::INTERNAL)?;
    let backend = backend_of::<A, T>(tables, (client, quote.destination_port), service)
        .ok_or(Verdict::Pass(Reason::PassIcmpWithoutFlow))?;
    let query = || RouteQuery {
        ingress: frame.ingress(),
        source: A::widen(ip.source),
        destination: backend.row.address,
    };
    let way = next_hops::to_backend(tables, tables.settings(), backend.row, query);
    send(frame, ip, quote, &way, backend.row, Recipient::Backend)
}

/// The backend of a client's flow to a service.
#[inline(always)]
fn backend_of<A: Messages, T: Tables>(
    tables: &T,
    client: (A::Address, Be16),
    service: u16,
) -> Option<Found<'_, Backend>> {
    let row = tables.service(service)?;
    if Options(row.options.load()).has(Options::EXCEPTIONS) {
        return exceptions::known::<A, T>(tables, &Found { id: service, row }, client);
    }
    let key = A::key(client.0, client.1, service);
    let found = match flows::look_up::<A, T>(tables, key.hash(tables.settings().flow_key), key)? {
        Lookup::Hit(_, data) => Found { id: data.backend(), row: tables.backend(data.backend())? },
        Lookup::Miss => return None,
        Lookup::Untracked => {
            let service = Found { id: service, row };
            select::computed::<A, T>(tables, &service, client.0, client.1)?.0
        }
    };
    (found.row.service == service).then_some(found)
}

/// An error about what a backend was sent: to the client that sent it.
#[inline(always)]
fn about_request<A: Messages, F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    ip: &Headers<A>,
    quote: &Quote,
    client: (A::Address, Be16),
    first: u16,
) -> Step<Verdict> {
    let settings = tables.settings();
    let owner: Owner<'_, A::Key> = reply::owner::<A, T>(tables, settings, first, client)
        .ok_or(Verdict::Pass(Reason::PassIcmpWithoutFlow))?;
    let way = reply::to_client::<A, F, T>(frame, tables, settings, &owner, ip.destination);
    send(frame, ip, quote, &way, owner.backend.row, Recipient::Client)
}

/// Rewrites the quote, the ICMP checksum and the outer header, and sends the error out.
#[inline(always)]
fn send<A: Messages, F: Frame>(
    frame: &mut F,
    ip: &Headers<A>,
    quote: &Quote,
    way: &Way,
    backend: &Backend,
    recipient: Recipient,
) -> Step<Verdict> {
    let reason = match recipient {
        Recipient::Backend => Reason::IcmpToBackend,
        Recipient::Client => Reason::IcmpToClient,
    };
    let (by, reason) = forwarder(ip, way, reason)?;
    rewrite(frame, ip, quote, backend, recipient, by).ok_or(Verdict::INTERNAL)?;
    send_on(frame, ip, way, by, reason)
}

/// Who sends an error on, and what it then counts as.
#[inline(always)]
pub fn forwarder<A: Messages>(ip: &Headers<A>, way: &Way, reason: Reason) -> Step<(Forwarder, Reason)> {
    // No error is sent about an error (RFC 1122 section 3.2.2).
    if ip.hop_limit <= 1 {
        return Err(Verdict::Drop(Reason::DropTimeExceeded));
    }
    match way.kind {
        Kind::Hop if ip.length <= way.hop.mtu => Ok((Forwarder::Here, reason)),
        Kind::Hop if ip.dont_fragment => Err(Verdict::Drop(Reason::DropTooBig)),
        Kind::Hop => Ok((Forwarder::Kernel, Reason::PassForFragmentation)),
        Kind::NeighbourUnknown => Ok((Forwarder::Kernel, Reason::PassNeighbourUnknown)),
        Kind::Unfollowable => Ok((Forwarder::Kernel, Reason::PassForRouting)),
        Kind::NoRoute => Err(Verdict::Drop(Reason::DropNoRoute)),
    }
}

/// Sends a rewritten error on.
#[inline(always)]
pub fn send_on<A: Messages, F: Frame>(
    frame: &mut F,
    ip: &Headers<A>,
    way: &Way,
    by: Forwarder,
    reason: Reason,
) -> Step<Verdict> {
    if by == Forwarder::Kernel {
        return Ok(Verdict::Pass(reason));
    }
    link::address_to(frame, ip.l3, &way.hop, A::ETHERTYPE)?;
    Ok(out(frame, &way.hop, reason))
}

/// Translates an error: its quote, its checksum, and the end of it that stands for the backend.
#[inline(always)]
fn rewrite<A: Messages, F: Frame>(
    frame: &mut F,
    ip: &Headers<A>,
    quote: &Quote,
    backend: &Backend,
    recipient: Recipient,
    by: Forwarder,
) -> Option<()> {
    let (inner, outer) = match recipient {
        Recipient::Backend => {
            let outer = Translation::<A>::to_backend(backend);
            (Translation { side: Side::Source, ..outer }, outer)
        }
        Recipient::Client => {
            let outer = Translation::<A>::from_backend(backend);
            (Translation { side: Side::Destination, ..outer }, outer)
        }
    };
    let quote_delta = translate_quote(frame, ip, quote, &inner)?;
    // What the backend itself complains about comes from the virtual address; a router in between keeps its own.
    let from_router = recipient == Recipient::Client && ip.source != A::narrow(&backend.address);
    let outer_delta = if from_router { Delta::NONE } else { outer.address_delta };
    // ICMPv6 covers the addresses of the packet that carries it (RFC 4443 section 2.3), ICMP does not.
    let delta = if A::HEADER_CHECKSUM { quote_delta } else { quote_delta.and(outer_delta) };
    update_field(frame, ip.l4 + 2, |field| delta.apply(field))?;
    if from_router {
        Translation { address: ip.source, address_delta: Delta::NONE, ..outer }.apply_ip(frame, ip, by)
    } else {
        outer.apply_ip(frame, ip, by)
    }
}

/// Rewrites one end of the quoted packet and its checksums; returns what that does to the sum over the quote.
#[inline(always)]
pub fn translate_quote<A: Messages, F: Frame>(
    frame: &mut F,
    ip: &Headers<A>,
    quote: &Quote,
    translation: &Translation<A>,
) -> Option<Delta> {
    A::write_address(frame, quote.l3, translation.side, translation.address)?;
    let mut delta = translation.address_delta;
    if A::HEADER_CHECKSUM {
        delta =
            delta.and(update_field(frame, quote.l3 + 10, |field| translation.address_delta.apply(field))?);
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
pub fn update_field<F: Frame>(frame: &mut F, at: usize, new: impl Fn(u16) -> u16) -> Option<Delta> {
    let old = u16::from_ne_bytes(frame.read(at)?);
    let new = new(old);
    frame.write(at, new.to_ne_bytes())?;
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
        let header = frame.read::<20>(at)?;
        let length = (header[0] & 0xf) as usize * 4;
        let later_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
        (header[0] >> 4 == 4 && length >= 20 && !later_fragment).then_some((Protocol(header[9]), at + length))
    }

    #[inline(always)]
    fn turn<F: Frame>(frame: &mut F, ip: &Headers<Self>) -> Option<()> {
        Self::write_address(frame, ip.l3, Side::Source, ip.destination)?;
        // The same addresses in another order: the sum over them stays.
        Self::rewrite(frame, ip.l3, (Side::Destination, ip.source), HOP_LIMIT, Delta::NONE)
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
        let header = frame.read::<40>(at)?;
        let end = parse::extensions(frame, at + 40, Protocol(header[6])).ok()?;
        (header[0] >> 4 == 6 && end.part != Part::LATER).then_some((end.protocol, end.at))
    }

    #[inline(always)]
    fn turn<F: Frame>(frame: &mut F, ip: &Headers<Self>) -> Option<()> {
        Self::write_address(frame, ip.l3, Side::Source, ip.destination)?;
        Self::rewrite(frame, ip.l3, (Side::Destination, ip.source), HOP_LIMIT, Delta::NONE)
    }
}
