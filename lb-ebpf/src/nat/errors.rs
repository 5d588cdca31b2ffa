//! ICMP errors about packets that were translated at both ends.
//!
//! As [`crate::icmp`] does for one end: an error is for whoever sent the packet that it quotes, and quotes it as that host
//! sent it. To a backend all errors come from the pool's address: the hosts on the client's side may be none that
//! the backend's network lets in.

use lb_common::address::Be16;
use lb_common::flow::Key;
use lb_common::port::Owner;
use lb_common::reason::Reason;

use super::{flow_of, place_of, port_row, way_to_client};
use crate::classify;
use crate::family::Side;
use crate::flows::{self, Lookup};
use crate::frame::Frame;
use crate::icmp::{self, Messages, Quote};
use crate::next_hops;
use crate::parse::Headers;
use crate::tables::{RouteQuery, Tables};
use crate::translate::{Forwarder, Translation};
use crate::verdict::{Step, Verdict};

/// Translates an error that an earlier stage took for one about a full-NAT service's packet.
#[inline(always)]
pub fn handle<A: Messages, F: Frame, T: Tables>(frame: &mut F, tables: &T, ip: &Headers<A>) -> Step<Verdict> {
    let quote = icmp::quoted::<A, F>(frame, ip).ok_or(Verdict::Pass(Reason::PassNotOurs))?;
    // The earlier stage has seen that the error goes to whom the quote is from.
    if let Some(service) =
        classify::service::<A, T>(tables, ip.destination, quote.source_port, quote.protocol)
    {
        return about_reply(frame, tables, ip, &quote, service.id);
    }
    about_request(frame, tables, ip, &quote)
}

const UNKNOWN: Verdict = Verdict::Pass(Reason::PassIcmpWithoutFlow);

/// An error about what a client was sent: to the backend that sent it.
#[inline(always)]
fn about_reply<A: Messages, F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    ip: &Headers<A>,
    quote: &Quote,
    service: u16,
) -> Step<Verdict> {
    let settings = tables.settings();
    let client = A::read_address(frame, quote.l3, Side::Destination).ok_or(Verdict::INTERNAL)?;
    let key = A::key(client, quote.destination_port, service);
    let found = flows::look_up::<A, T>(tables, key.hash(settings.flow_key), key).ok_or(Verdict::INTERNAL)?;
    let Lookup::Hit(_, data) = found else { return Err(UNKNOWN) };
    let owner = Owner { client: A::widen(client), port: quote.destination_port, service };
    let place = place_of::<A, T>(tables, &owner, data).ok_or(UNKNOWN)?;
    let pool = tables.pool_address(place.address).ok_or(Verdict::INTERNAL)?;
    let backend = tables.backend(data.backend()).filter(|row| row.service == service).ok_or(UNKNOWN)?;
    let query =
        || RouteQuery { ingress: frame.ingress(), source: pool.address, destination: backend.address };
    let way = next_hops::to_backend(tables, settings, backend, query);
    let (by, reason) = icmp::forwarder(ip, &way, Reason::IcmpToBackend)?;
    let sender = A::narrow(&pool.address);
    let server = (A::narrow(&backend.address), backend.port);
    rewrite(frame, ip, quote, [server, (sender, place.port)], sender, by).ok_or(Verdict::INTERNAL)?;
    icmp::send_on(frame, ip, &way, by, reason)
}

/// An error about what a backend was sent: to the client for whom it was.
#[inline(always)]
fn about_request<A: Messages, F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    ip: &Headers<A>,
    quote: &Quote,
) -> Step<Verdict> {
    let settings = tables.settings();
    let row = port_row::<A, T>(tables, settings, ip.destination, quote.source_port).ok_or(UNKNOWN)?;
    let server = A::read_address(frame, quote.l3, Side::Destination).ok_or(Verdict::INTERNAL)?;
    let flow = flow_of::<A, T>(tables, settings, row, (server, quote.destination_port)).ok_or(UNKNOWN)?;
    let backend = flow.backend.row;
    if backend.protocol != quote.protocol {
        return Err(UNKNOWN);
    }
    let way = way_to_client::<A, F, T>(frame, tables, settings, &flow);
    let (by, reason) = icmp::forwarder(ip, &way, Reason::IcmpToClient)?;
    let vip = (A::narrow(&backend.vip), backend.vip_port);
    // What the backend itself complains about comes from the virtual address; a router in between keeps its own.
    let sender = if ip.source == A::narrow(&backend.address) { vip.0 } else { ip.source };
    rewrite(frame, ip, quote, [flow.client(), vip], sender, by).ok_or(Verdict::INTERNAL)?;
    icmp::send_on(frame, ip, &way, by, reason)
}

/// Gives the quote these ends, source first, and sends the error from `sender` to whom the quote is from then.
///
/// One end after the other, each from what stands in the frame: all at once they would not fit on the stack.
#[inline(always)]
fn rewrite<A: Messages, F: Frame>(
    frame: &mut F,
    ip: &Headers<A>,
    quote: &Quote,
    [source, destination]: [(A::Address, Be16); 2],
    sender: A::Address,
    by: Forwarder,
) -> Option<()> {
    let old = (ip.destination, quote.source_port);
    let mut delta =
        icmp::translate_quote(frame, ip, quote, &Translation::between(Side::Source, old, source))?;
    let old = (A::read_address(frame, quote.l3, Side::Destination)?, quote.destination_port);
    let end = Translation::between(Side::Destination, old, destination);
    delta = delta.and(icmp::translate_quote(frame, ip, quote, &end)?);

    let address = |side, old, new| Translation::<A>::between(side, (old, Be16(0)), (new, Be16(0)));
    let receiver = address(Side::Destination, ip.destination, source.0);
    receiver.apply_ip(frame, ip, by)?;
    let sender = address(Side::Source, ip.source, sender);
    sender.apply_ip(frame, ip, by)?;
    if !A::HEADER_CHECKSUM {
        // ICMPv6 covers the addresses of the packet that carries it (RFC 4443 section 2.3).
        delta = delta.and(receiver.address_delta).and(sender.address_delta);
    }
    icmp::update_field(frame, ip.l4 + 2, |field| delta.apply(field))?;
    Some(())
}
