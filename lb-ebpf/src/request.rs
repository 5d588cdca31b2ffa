//! The way of a request: flow or slot, next hop, rewrite.

use lb_common::address::Protocol;
use lb_common::backend::Backend;
use lb_common::flow::{Data, Entry, Key, State};
use lb_common::reason::Reason;
use lb_common::service::{Options, Service};
use lb_common::settings::Settings;

use crate::classify::Found;
use crate::exceptions;
use crate::family::Family;
use crate::flood;
use crate::flows::{self, Lookup};
use crate::frame::Frame;
use crate::next_hops;
use crate::open::Opening;
use crate::parse::Packet;
use crate::reject::{self, Rejection};
use crate::retry;
use crate::select::Choice;
use crate::send::send;
use crate::tables::{RouteQuery, Tables};
use crate::tcp;
use crate::translate::Translation;
use crate::verdict::{Step, Verdict};

/// Sends a packet to its backend.
#[inline(always)]
pub fn forward<A: Family, F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    settings: &Settings,
    packet: &Packet<A>,
    service: &Found<'_, Service>,
) -> Step<Verdict> {
    let options = Options(service.row.options.load());
    flood::check_lists(tables, service.id, options, A::widen(packet.ip.source))?;
    check(tables, packet)?;
    let backend = if options.has(Options::EXCEPTIONS) {
        exceptions::backend_by_slot::<A, T>(tables, service, (packet.ip.source, packet.source_port))?
    } else {
        backend_of(frame, tables, settings, packet, service)?
    };
    send_to(frame, tables, settings, packet, &backend)
}

/// Sends a packet to its backend where the slot alone does not say which that is.
#[inline(always)]
pub fn forward_exception<A: Family, F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    settings: &Settings,
    packet: &Packet<A>,
    service: &Found<'_, Service>,
) -> Step<Verdict> {
    check(tables, packet)?;
    let backend = exceptions::backend_of(tables, settings, packet, service)?;
    send_to(frame, tables, settings, packet, &backend)
}

#[inline(always)]
fn send_to<A: Family, F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    settings: &Settings,
    packet: &Packet<A>,
    backend: &Found<'_, Backend>,
) -> Step<Verdict> {
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

/// What keeps a packet from being forwarded, wherever it would go.
#[inline(always)]
pub fn check<A: Family, T: Tables>(tables: &T, packet: &Packet<A>) -> Step<()> {
    if packet.unchecked && !A::HEADER_CHECKSUM {
        return Err(Verdict::Drop(Reason::DropUdpChecksumZero));
    }
    if packet.ip.hop_limit <= 1 {
        return Err(reject::with(tables, Rejection::TimeExceeded));
    }
    Ok(())
}

/// The backend of a request: its flow's, or a new one's.
#[inline(always)]
pub fn backend_of<'a, A: Family, F: Frame, T: Tables>(
    frame: &F,
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
        lookup => {
            // Of a flow that went untracked every packet comes here; those of a connection under way are not new ones.
            if !matches!(lookup, Lookup::Untracked) || !is_in_connection(packet) {
                limit(tables, packet, service)?;
            }
            return open_noting(frame, tables, packet, Opening::of(packet, service, hash, false));
        }
    };
    let reopened = packet.segment.is_syn() && data.state() == State::CLOSING;
    if !reopened
        && let Some(row) = tables.backend(data.backend())
        && row.service == service.id
        && row.is_serving()
    {
        retry::check_syn(tables, packet, service, hash, data)?;
        follow(tables, entry, data, packet, now);
        return Ok(Found { id: data.backend(), row });
    }
    if reopened {
        limit(tables, packet, service)?;
    }
    open_noting(frame, tables, packet, Opening::of(packet, service, hash, true))
}

/// Opens a flow, and keeps its SYN where it may have to be sent again.
#[inline(always)]
fn open_noting<'a, A: Family, F: Frame, T: Tables>(
    frame: &F,
    tables: &'a T,
    packet: &Packet<A>,
    opening: Opening<A>,
) -> Step<Found<'a, Backend>> {
    let found = open(tables, opening)?;
    if opening.facts.is_retried() {
        retry::note(frame, tables, packet, opening.hash, false);
    }
    Ok(found)
}

/// Opens a flow, or gives it another backend: the one that affinity asks for or its strategy chooses, or another where that is
/// suspect or could not tell it from a flow to another service.
#[inline(always)]
fn open<A: Family, T: Tables>(tables: &T, opening: Opening<A>) -> Step<Found<'_, Backend>> {
    let mut preferring = opening;
    if opening.facts.is_sticky() {
        preferring.facts = opening.facts.preferring(A::prefer(tables, &opening));
    }
    let mut choice = Choice(A::open(tables, &preferring));
    if choice == Choice::BY_HASH {
        choice = Choice(A::open(tables, &opening));
    }
    if !choice.is_to_be_settled() {
        return found(tables, choice.0);
    }
    let id = A::settle(tables, &opening, choice.backend());
    if id == 0 {
        return Err(Verdict::Drop(Reason::DropTupleInUse));
    }
    let facts = opening.facts.settled_on(id, choice.backend());
    found(tables, A::open(tables, &Opening { facts, ..opening }))
}

/// Brings an entry up to date with a packet of its flow.
#[inline(always)]
pub(crate) fn follow<A: Family, T: Tables>(
    tables: &T,
    entry: &Entry<A::Key>,
    data: Data,
    packet: &Packet<A>,
    now: u64,
) {
    if packet.has_transport
        && let Some((before, after)) =
            flows::update(entry, data, |data| tcp::after_request(data, packet.segment, now))
    {
        flows::account(tables, before, after);
    }
}

/// The backend of a choice, or what its client meets instead.
#[inline(always)]
fn found<T: Tables>(tables: &T, choice: u64) -> Step<Found<'_, Backend>> {
    let choice = Choice(choice);
    if choice.is_backend() {
        let id = choice.backend();
        let row = tables.backend(id).ok_or(Verdict::INTERNAL)?;
        return Ok(Found { id, row });
    }
    Err(match choice {
        Choice::SOURCE_INVALID => Verdict::Drop(Reason::DropSourceInvalid),
        Choice::NO_BACKEND_DROP => Verdict::Drop(Reason::DropNoBackend),
        Choice::NO_BACKEND_RESET => reject::with(tables, Rejection::NoBackend),
        Choice::BACKEND_DOWN => reject::with(tables, Rejection::BackendDown),
        Choice::UNKNOWN_FLOW => reject::with(tables, Rejection::UnknownFlow),
        // Settled on a backend that is not the strategy's, and not remembered: its next packet would go elsewhere.
        Choice::TABLE_FULL | Choice::BY_HASH => Verdict::Drop(Reason::DropFlowTableFull),
        _ => Verdict::INTERNAL,
    })
}

/// Counts a new flow against its service's limits.
#[inline(always)]
fn limit<A: Family, T: Tables>(tables: &T, packet: &Packet<A>, service: &Found<'_, Service>) -> Step<()> {
    // A source that cannot be a client's opens nothing, and has a reason of its own.
    if !A::is_unicast(packet.ip.source) {
        return Ok(());
    }
    let options = Options(service.row.options.load());
    flood::check_limits(tables, service.id, options, A::widen(packet.ip.source))
}

/// Whether a packet says that its connection is older than itself.
#[inline(always)]
fn is_in_connection<A: Family>(packet: &Packet<A>) -> bool {
    packet.ip.protocol == Protocol::TCP && !packet.segment.is_syn()
}
