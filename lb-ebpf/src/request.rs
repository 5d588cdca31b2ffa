//! The way of a request: flow or slot, next hop, rewrite.

use lb_common::address::Protocol;
use lb_common::backend::Backend;
use lb_common::flow::{Data, Entry, State};
use lb_common::reason::{Event, Reason};
use lb_common::service::{OnNoBackend, Options, Service};
use lb_common::settings::Settings;

use crate::classify::Found;
use crate::family::Family;
use crate::flows::{self, Insertion, Lookup};
use crate::frame::Frame;
use crate::next_hops;
use crate::parse::Packet;
use crate::reject::{self, Rejection};
use crate::select::{self, Selection};
use crate::send::send;
use crate::tables::{RouteQuery, Tables};
use crate::tcp;
use crate::translate::Translation;
use crate::verdict::{Step, Verdict};
use lb_common::flow::Key;

/// Sends a packet to its backend.
#[inline(always)]
pub fn forward<A: Family, F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    settings: &Settings,
    packet: &Packet<A>,
    service: &Found<'_, Service>,
) -> Step<Verdict> {
    if packet.unchecked && !A::HEADER_CHECKSUM {
        return Err(Verdict::Drop(Reason::DropUdpChecksumZero));
    }
    if packet.ip.hop_limit <= 1 {
        return Err(reject::with(tables, Rejection::TimeExceeded));
    }
    let backend = backend_of(tables, settings, packet, service)?;
    let query = || RouteQuery {
        ingress: frame.ingress(),
        source: A::widen(packet.ip.source),
        destination: backend.row.address,
    };
    let way = next_hops::to_backend(tables, settings, backend.row, query);
    if let Some(traffic) = tables.traffic(backend.id) {
        traffic.rx_packets.count(1);
        traffic.rx_bytes.count(packet.ip.length as u64);
    }
    send(frame, tables, packet, &way, &Translation::to_backend(backend.row), Reason::RequestForwarded)
}

/// The backend of a request: its flow's, or a new one's.
#[inline(always)]
fn backend_of<'a, A: Family, T: Tables>(
    tables: &'a T,
    settings: &Settings,
    packet: &Packet<A>,
    service: &Found<'_, Service>,
) -> Step<Found<'a, Backend>> {
    let key = A::key(packet.ip.source, packet.source_port, service.id);
    let hash = key.hash(settings.flow_key);
    let now = flows::now(tables, settings);
    let (entry, data) = match flows::look_up::<A, T>(tables, hash, key).ok_or(Verdict::INTERNAL)? {
        Lookup::Hit(entry, data) => (entry, data),
        _ => return open(tables, hash, key, packet, service, now),
    };
    let reopened = packet.segment.is_syn() && data.state() == State::CLOSING;
    if !reopened
        && let Some(row) = tables.backend(data.backend())
        && row.service == service.id
        && row.is_serving()
    {
        if packet.has_transport
            && let Some((before, after)) =
                flows::update(entry, data, |data| tcp::after_request(data, packet.segment, now))
        {
            flows::account(tables, before, after);
        }
        return Ok(Found { id: data.backend(), row });
    }
    // A SYN asks for a new connection, which any backend can give.
    if !packet.segment.is_syn() && Options(service.row.options.load()).has(Options::RESET_ON_BACKEND_DOWN) {
        return Err(end(tables, entry, data, packet, now));
    }
    let backend = selected(tables, packet, service)?;
    reassign(tables, entry, data, packet, &backend, now);
    if !reopened {
        flows::count(tables, Event::FlowRebalanced);
    }
    Ok(backend)
}

/// Gives an entry another backend: its own is gone, or its connection is over and the client opens a new one.
#[inline(always)]
fn reassign<A: Family, T: Tables>(
    tables: &T,
    entry: &Entry<A::Key>,
    data: Data,
    packet: &Packet<A>,
    backend: &Found<'_, Backend>,
    now: u64,
) {
    let succeeding = Data::succeeding(data, first_state(packet), backend.id, now);
    // Where this swap loses, another CPU has moved the flow on: its next packet follows that.
    if entry.data.replace(data.0, succeeding.0) {
        flows::account(tables, data, succeeding);
        flows::count(tables, Event::FlowCreated);
    }
}

/// Ends a flow whose backend is gone, and tells its client.
///
/// A TCP flow's entry stays for a while as that of a closing one, so that whatever is still on its way is answered
/// alike and nothing of it reaches another backend. A datagram flow's goes: the client is told once, and its next
/// datagram opens a new flow.
#[inline(always)]
fn end<A: Family, T: Tables>(
    tables: &T,
    entry: &Entry<A::Key>,
    data: Data,
    packet: &Packet<A>,
    now: u64,
) -> Verdict {
    // A later fragment is not answered; the first was, or will be.
    if packet.has_transport {
        let ended = if data.state() == State::DATAGRAM {
            data.freed()
        } else {
            data.in_state(State::CLOSING).stamped(now)
        };
        if entry.data.replace(data.0, ended.0) {
            flows::account(tables, data, ended);
        }
    }
    reject::with(tables, Rejection::BackendDown)
}

/// A flow without an entry: picks its backend and remembers it.
#[inline(always)]
fn open<'a, A: Family, T: Tables>(
    tables: &'a T,
    hash: u64,
    key: A::Key,
    packet: &Packet<A>,
    service: &Found<'_, Service>,
    now: u64,
) -> Step<Found<'a, Backend>> {
    if !A::is_unicast(packet.ip.source) {
        return Err(Verdict::Drop(Reason::DropSourceInvalid));
    }
    let backend = selected(tables, packet, service)?;
    // The end of a connection that is not remembered is not worth remembering; nor is a fragment's, whose first
    // part was.
    if packet.segment.is_ending() || !packet.has_transport {
        return Ok(backend);
    }
    let state = first_state(packet);
    let evicted = |victim: Data| {
        flows::count(tables, Event::FlowEvicted);
        flows::account(tables, victim, victim.freed());
    };
    let fresh = Data::fresh(state, backend.id, now);
    match flows::insert::<A, T>(tables, hash, key, fresh, now, evicted).ok_or(Verdict::INTERNAL)? {
        Insertion::Created => {
            flows::count(tables, Event::FlowCreated);
            flows::account(tables, Data(0), fresh);
            Ok(backend)
        }
        Insertion::Exists(data) => match tables.backend(data.backend()) {
            Some(row) if row.service == service.id && row.is_serving() => {
                Ok(Found { id: data.backend(), row })
            }
            _ => Ok(backend),
        },
        Insertion::Refused => {
            flows::count(tables, Event::FlowUntracked);
            Ok(backend)
        }
    }
}

#[inline(always)]
fn first_state<A: Family>(packet: &Packet<A>) -> State {
    if packet.ip.protocol == Protocol::UDP {
        State::DATAGRAM
    } else if packet.segment.is_syn() {
        State::HALF_OPEN
    } else {
        State::ADOPTED
    }
}

#[inline(always)]
fn selected<'a, A: Family, T: Tables>(
    tables: &'a T,
    packet: &Packet<A>,
    service: &Found<'_, Service>,
) -> Step<Found<'a, Backend>> {
    match select::backend::<A, T>(tables, service, packet.ip.source, packet.source_port) {
        Selection::Backend(backend, _) => Ok(backend),
        Selection::NoBackend(OnNoBackend::Drop) => Err(Verdict::Drop(Reason::DropNoBackend)),
        Selection::NoBackend(OnNoBackend::Reset) => Err(reject::with(tables, Rejection::NoBackend)),
        Selection::Contradiction => Err(Verdict::INTERNAL),
    }
}
