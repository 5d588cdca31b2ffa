//! Full NAT: a service's packets go to its backends from an address and a port of its pool.
//!
//! So the backend answers to the balancer whatever its routes are, and may sit beside its clients or be one itself. The
//! flow is the same as any service's, and so is all that decides about it; what is added is a port, which
//! [`lb_common::port`] describes. It takes programs of its own: the common path pays for one look at a flag.

mod errors;
mod ports;

use lb_common::address::Be16;
use lb_common::backend::Backend;
use lb_common::flow::{Data, Entry, Key, State};
use lb_common::port::{Owner, row_of};
use lb_common::reason::Reason;
use lb_common::service::{Options, Service};
use lb_common::settings::Settings;

pub use errors::handle as handle_error;
pub use ports::{Holder, holder, place, place_of};

use crate::classify::{self, Found};
use crate::family::{Family, Side};
use crate::flood;
use crate::flows::{self, Lookup};
use crate::frame::Frame;
use crate::next_hops::{self, Way};
use crate::parse::Packet;
use crate::reject::{self, Rejection};
use crate::reply;
use crate::request;
use crate::retry;
use crate::send::send;
use crate::tables::{RouteQuery, Tables};
use crate::tcp;
use crate::translate::{Both, Translation};
use crate::verdict::{Stage, Step, Verdict};
use ports::NO_CODE;

/// Whether a service's packets take this way.
#[inline(always)]
pub fn is_for(service: &Service) -> bool {
    Options(service.options.load()).has(Options::FULL_NAT)
}

/// Whether a backend's packet to this address and port may be a reply that takes this way.
///
/// A function of its own in the kernel too: little that comes this far asks.
#[inline(never)]
pub fn is_pool<A: Family, T: Tables>(tables: &T, address: &A::Address, port: u16) -> bool {
    port_row::<A, T>(tables, tables.settings(), *address, Be16(port)).is_some()
}

/// The row of a pool's port.
#[inline(always)]
pub fn port_row<A: Family, T: Tables>(
    tables: &T,
    settings: &Settings,
    address: A::Address,
    port: Be16,
) -> Option<u32> {
    row_of(settings, classify::pool::<A, T>(tables, address)?, port)
}

/// Sends a request to its backend; one without a flow or a port has to [`open`] them first.
#[inline(always)]
pub fn forward<A: Family, F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    packet: &Packet<A>,
) -> Step<Verdict> {
    let ip = &packet.ip;
    let service = classify::service::<A, T>(tables, ip.destination, packet.destination_port, ip.protocol)
        .ok_or(Verdict::Pass(Reason::PassNotOurs))?;
    let options = Options(service.row.options.load());
    flood::check_lists(tables, service.id, options, A::widen(ip.source))?;
    request::check(tables, packet)?;
    let settings = tables.settings();
    const UNKNOWN: Verdict = Verdict::Defer(Stage::NatOpen);
    let (entry, data) = entry_of(tables, settings, packet, service.id).ok_or(UNKNOWN)?;
    let reopened = packet.segment.is_syn() && data.state() == State::CLOSING;
    let backend = tables.backend(data.backend()).ok_or(UNKNOWN)?;
    if reopened || backend.service != service.id || !backend.is_serving() {
        return Err(UNKNOWN);
    }
    let hash = A::key(ip.source, packet.source_port, service.id).hash(settings.flow_key);
    retry::check_syn(tables, packet, &service, hash, data)?;
    let place = place_of::<A, T>(tables, &owner(packet, service.id), data).ok_or(UNKNOWN)?;
    let pool = tables.pool_address(place.address).ok_or(Verdict::INTERNAL)?;
    if packet.has_transport && !(packet.segment.is_syn() && ports::is_opening(tables, place.row, data)) {
        let (code, now) = (data.next_hop(), flows::now(tables, settings));
        let step = |data| tcp::after_request(data, packet.segment, now).by_next_hop(code);
        if let Some((before, after)) = flows::update(entry, data, step) {
            flows::account(tables, before, after);
        }
    }
    let query =
        || RouteQuery { ingress: frame.ingress(), source: pool.address, destination: backend.address };
    let way = next_hops::to_backend(tables, settings, backend, query);
    if let Some(traffic) = tables.traffic(data.backend()) {
        traffic.rx_packets.count(1);
        traffic.rx_bytes.count(ip.length as u64);
    }
    let client = (ip.source, packet.source_port);
    let translation = Both {
        first: Translation::to_backend(backend),
        second: Translation::between(Side::Source, client, (A::narrow(&pool.address), place.port)),
    };
    send(frame, tables, packet, &way, &translation, Reason::RequestForwarded)
}

/// Gives a request a backend, as any service's gets one, and a port. What there is to be sent is sent by [`forward`].
///
/// A stage of its own: all that a new flow takes and all that a translation takes is more than one program can hold.
#[inline(always)]
pub fn open<A: Family, F: Frame, T: Tables>(frame: &F, tables: &T, packet: &Packet<A>) -> Step<Verdict> {
    let ip = &packet.ip;
    let service = classify::service::<A, T>(tables, ip.destination, packet.destination_port, ip.protocol)
        .ok_or(Verdict::Pass(Reason::PassNotOurs))?;
    let settings = tables.settings();
    request::backend_of(frame, tables, settings, packet, &service)?;
    let Some((entry, data)) = entry_of(tables, settings, packet, service.id) else {
        return Err(Verdict::Drop(Reason::DropWithoutPort));
    };
    let owner = owner(packet, service.id);
    if place_of::<A, T>(tables, &owner, data).is_some() {
        return Ok(Verdict::Defer(Stage::Nat));
    }
    if !packet.has_transport {
        return Err(Verdict::Drop(Reason::DropWithoutPort));
    }
    let hash = ports::hash::<A>(settings, ip.source, packet.source_port);
    let now = flows::now(tables, settings);
    let mut code = ports::take(tables, &service.row.pool, &owner, hash, now);
    if code == NO_CODE {
        code = ports::reclaim::<A, T>(tables, &service.row.pool, &owner, hash, now);
    }
    if code == NO_CODE {
        // Without a port it is no flow. Where this swap loses, another CPU's packet decides.
        let freed = data.freed();
        if entry.data.replace(data.0, freed.0) {
            flows::account(tables, data, freed);
        }
        return Err(Verdict::Drop(Reason::DropPortsExhausted));
    }
    if data.state() == State::HALF_OPEN && data.opened_at(now).is_some() {
        ports::begin(tables, &service.row.pool, hash, code);
    }
    // Where the flow is gone meanwhile, its port is found abandoned later.
    flows::update(entry, data, |data| data.by_next_hop(code as u16));
    Ok(Verdict::Defer(Stage::Nat))
}

#[inline(always)]
fn owner<A: Family>(packet: &Packet<A>, service: u16) -> Owner {
    Owner { client: A::widen(packet.ip.source), port: packet.source_port, service }
}

/// The entry of a packet's flow.
#[inline(always)]
fn entry_of<'a, A: Family, T: Tables>(
    tables: &'a T,
    settings: &Settings,
    packet: &Packet<A>,
    service: u16,
) -> Option<(&'a Entry<A::Key>, Data)> {
    let key = A::key(packet.ip.source, packet.source_port, service);
    match flows::look_up::<A, T>(tables, key.hash(settings.flow_key), key)? {
        Lookup::Hit(entry, data) => Some((entry, data)),
        _ => None,
    }
}

/// Sends a backend's packet to the client for whom the pool's address and port stand. What goes elsewhere is for another
/// service of the same endpoint, if for any.
#[inline(always)]
pub fn reply<A: Family, F: Frame, T: Tables>(frame: &mut F, tables: &T, packet: &Packet<A>) -> Step<Verdict> {
    let (ip, settings) = (&packet.ip, tables.settings());
    let Some(row) = port_row::<A, T>(tables, settings, ip.destination, packet.destination_port) else {
        let backend = classify::endpoint::<A, T>(tables, ip.source, packet.source_port, ip.protocol)
            .ok_or(Verdict::Pass(Reason::PassNotOurs))?;
        return reply::forward(frame, tables, settings, packet, backend);
    };
    let from = (packet.ip.source, packet.source_port);
    let flow = flow_of::<A, T>(tables, settings, row, from)
        .filter(|flow| flow.backend.row.protocol == packet.ip.protocol)
        .ok_or(reply::without_flow(packet, Reason::PassPoolWithoutFlow))?;
    reply::check_reset(tables, packet, flow.backend.row, flow.holder.data)?;
    if packet.ip.hop_limit <= 1 {
        return Err(reject::with(tables, Rejection::TimeExceeded));
    }
    let now = flows::now(tables, settings);
    if packet.has_transport {
        let (entry, data) = (flow.holder.entry, flow.holder.data);
        let code = data.next_hop();
        let step = |data| tcp::after_reply(data, packet.segment, now).by_next_hop(code);
        if let Some((before, after)) = flows::update(entry, data, step) {
            flows::account_reply(tables, before, after, packet.segment);
        }
    }
    let way = way_to_client::<A, F, T>(frame, tables, settings, &flow);
    if let Some(traffic) = tables.traffic(flow.backend.id) {
        traffic.tx_packets.count(1);
        traffic.tx_bytes.count(packet.ip.length as u64);
    }
    let pool = (packet.ip.destination, packet.destination_port);
    let translation = Both {
        first: Translation::from_backend(flow.backend.row),
        second: Translation::between(Side::Destination, pool, flow.client()),
    };
    send(frame, tables, packet, &way, &translation, Reason::ReplyForwarded)
}

/// The flow that a pool's port belongs to.
struct Flow<'a, A: Family> {
    holder: Holder<'a, A::Key>,
    backend: Found<'a, Backend>,
}

impl<A: Family> Flow<'_, A> {
    #[inline(always)]
    fn client(&self) -> (A::Address, Be16) {
        (A::narrow(&self.holder.owner.client), self.holder.owner.port)
    }
}

/// The flow that has a port, if this is its backend's.
#[inline(always)]
fn flow_of<'a, A: Family, T: Tables>(
    tables: &'a T,
    settings: &Settings,
    row: u32,
    backend: (A::Address, Be16),
) -> Option<Flow<'a, A>> {
    let holder = holder::<A, T>(tables, settings, row)?;
    let id = holder.data.backend();
    let row = tables.backend(id)?;
    let is_its =
        row.service == holder.owner.service && row.port == backend.1 && A::narrow(&row.address) == backend.0;
    is_its.then_some(Flow { holder, backend: Found { id, row } })
}

/// The way to a flow's client, by the next hop that its port's row remembers.
#[inline(always)]
fn way_to_client<A: Family, F: Frame, T: Tables>(
    frame: &F,
    tables: &T,
    settings: &Settings,
    flow: &Flow<'_, A>,
) -> Way {
    let query = || RouteQuery {
        ingress: frame.ingress(),
        source: flow.backend.row.vip,
        destination: flow.holder.owner.client,
    };
    let seen = flow.holder.state;
    let reference = seen.next_hop();
    let way = next_hops::resolve(tables, settings, reference, query);
    if way.reference != reference {
        // Where it loses, the next packet finds the way again.
        flow.holder.port.state.replace(seen.0, seen.by_next_hop(way.reference).0);
    }
    way
}
