//! Tracking by exception: which backend a packet belongs to where flows are remembered only if their slot has
//! changed hands.
//!
//! A clean slot answers by itself: no flow is looked up, none is stored, and the cost is the same for one flow and for
//! ten million. A slot that has changed ([`Owners`]) is asked together with the flow table, in a stage of its own, since
//! such slots are few:
//!
//! * An entry decides. Without one, a SYN opens a flow on the current owner, and is remembered; anything else belongs to
//!   a flow from before the change, goes to the base, and is remembered there.
//! * An entry that no client has confirmed steers SYNs and the ACK with the right number only: a forged SYN must not
//!   take an old flow's packets away.
//! * Where there is no room for an entry, a SYN goes to the base too: as a flow from before the change it keeps its
//!   backend, if the change is then counted as having happened now.

use lb_common::address::Be16;
use lb_common::backend::Backend;
use lb_common::flow::{Data, Key, State};
use lb_common::reason::{Event, Reason};
use lb_common::service::{OnNoBackend, Service, Table};
use lb_common::settings::Settings;
use lb_common::slot::{Owners, PAIRS_PER_LINE};

use crate::classify::Found;
use crate::family::Family;
use crate::flows::{self, Lookup};
use crate::open::{self, Opening};
use crate::parse::Packet;
use crate::reject::{self, Rejection};
use crate::request;
use crate::select::{self, Choice};
use crate::tables::Tables;
use crate::tcp;
use crate::verdict::{Stage, Step, Verdict};

/// A client's slot of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its number.
    pub number: u32,
    /// Whom it belongs to.
    pub owners: Owners,
}

/// The slot that a client's flows to a service go by. `None` where the table contradicts itself; the service has one.
#[inline(always)]
pub fn slot<A: Family, T: Tables>(
    tables: &T,
    service: &Service,
    table: Table,
    client: (A::Address, Be16),
) -> Option<Slot> {
    let number = select::hashed::<A>(table, client.0, client.1, service.seed);
    let line = tables.slots(table.line().wrapping_add(number / PAIRS_PER_LINE))?;
    Some(Slot { number, owners: line.owners(number) })
}

/// The backend of a request whose slot is clean; any other is deferred.
#[inline(always)]
pub fn backend_by_slot<'a, A: Family, T: Tables>(
    tables: &'a T,
    service: &Found<'_, Service>,
    client: (A::Address, Be16),
) -> Step<Found<'a, Backend>> {
    let table = Table(service.row.table.load());
    if table.slots() == 0 {
        return Err(no_backend(tables, table));
    }
    let owners = slot::<A, T>(tables, service.row, table, client).ok_or(Verdict::INTERNAL)?.owners;
    if owners.look_up {
        return Err(Verdict::Defer(Stage::Exceptions));
    }
    if !A::is_unicast(client.0) {
        return Err(Verdict::Drop(Reason::DropSourceInvalid));
    }
    serving(tables, owners.base, service.id).ok_or(Verdict::INTERNAL)
}

/// The backend of a request whose slot has changed.
#[inline(always)]
pub fn backend_of<'a, A: Family, T: Tables>(
    tables: &'a T,
    settings: &Settings,
    packet: &Packet<A>,
    service: &Found<'_, Service>,
) -> Step<Found<'a, Backend>> {
    let table = Table(service.row.table.load());
    if table.slots() == 0 {
        return Err(no_backend(tables, table));
    }
    let client = (packet.ip.source, packet.source_port);
    let owners = slot::<A, T>(tables, service.row, table, client).ok_or(Verdict::INTERNAL)?.owners;
    let current = || serving(tables, owners.current, service.id).ok_or_else(|| no_backend(tables, table));
    let former = || serving(tables, owners.base, service.id).map_or_else(current, Ok);
    let key = A::key(client.0, client.1, service.id);
    let hash = key.hash(settings.flow_key);
    let now = flows::now(tables, settings);
    let opens = packet.segment.is_syn();
    if let Lookup::Hit(entry, data) = flows::look_up::<A, T>(tables, hash, key).ok_or(Verdict::INTERNAL)? {
        if !decides(data, packet) {
            return former();
        }
        if !(opens && data.state() == State::CLOSING)
            && let Some(backend) = serving(tables, data.backend(), service.id)
        {
            request::follow(tables, entry, data, packet, now);
            return Ok(backend);
        }
        // Its backend is gone, or its connection is over and the client opens a new one.
        let opening = Opening::of(packet, service, hash, true);
        let choice = open::reassign(tables, &opening, Choice::of(current()?.id));
        return serving(tables, choice.backend(), service.id).ok_or(Verdict::INTERNAL);
    }
    let backend = if opens { current()? } else { former()? };
    if packet.segment.is_ending() || !packet.has_transport {
        return Ok(backend);
    }
    if !A::is_unicast(packet.ip.source) {
        return Err(Verdict::Drop(Reason::DropSourceInvalid));
    }
    let opening = Opening::of(packet, service, hash, false);
    if let Some(choice) = open::remember(tables, &opening, Choice::of(backend.id)) {
        return Ok(serving(tables, choice.backend(), service.id).unwrap_or(backend));
    }
    flows::count(tables, Event::FlowUntracked);
    if let Some(kept) = tables.service_state(service.id) {
        kept.changed.store(now);
    }
    Ok(serving(tables, owners.base, service.id).unwrap_or(backend))
}

/// A service's backend that takes packets of flows.
#[inline(always)]
fn serving<T: Tables>(tables: &T, id: u16, service: u16) -> Option<Found<'_, Backend>> {
    let row = tables.backend(id)?;
    (id != 0 && row.service == service && row.is_serving()).then_some(Found { id, row })
}

fn no_backend<T: Tables>(tables: &T, table: Table) -> Verdict {
    match table.on_no_backend() {
        OnNoBackend::Drop => Verdict::Drop(Reason::DropNoBackend),
        OnNoBackend::Reset => reject::with(tables, Rejection::NoBackend),
    }
}

/// Whether an entry speaks for a packet of the client.
#[inline(always)]
fn decides<A: Family>(data: Data, packet: &Packet<A>) -> bool {
    match data.state() {
        State::HALF_OPEN => packet.segment.is_syn(),
        State::ANSWERED => packet.segment.is_syn() || tcp::proves(data, packet.segment),
        _ => true,
    }
}

/// Whether a packet of this backend to this client belongs to a flow, where the client's slot is clean; any other is
/// deferred.
#[inline(always)]
pub fn owns_by_slot<A: Family, T: Tables>(
    tables: &T,
    backend: &Found<'_, Backend>,
    client: (A::Address, Be16),
) -> Step<()> {
    let owners = owners_of::<A, T>(tables, backend, client)?;
    if owners.look_up {
        return Err(Verdict::Defer(Stage::Exceptions));
    }
    if owners.base == backend.id { Ok(()) } else { Err(Verdict::Pass(Reason::PassReplyWithoutFlow)) }
}

/// The same where the slot has changed.
#[inline(always)]
pub fn owns<A: Family, T: Tables>(
    tables: &T,
    settings: &Settings,
    packet: &Packet<A>,
    backend: &Found<'_, Backend>,
) -> Step<()> {
    let client = (packet.ip.destination, packet.destination_port);
    let owners = owners_of::<A, T>(tables, backend, client)?;
    let key = A::key(client.0, client.1, backend.row.service);
    let found = flows::look_up::<A, T>(tables, key.hash(settings.flow_key), key).ok_or(Verdict::INTERNAL)?;
    let from_base = owners.base == backend.id;
    let theirs = match found {
        Lookup::Hit(entry, data) if data.backend() == backend.id => {
            let now = flows::now(tables, settings);
            if packet.has_transport
                && let Some((before, after)) =
                    flows::update(entry, data, |data| tcp::after_reply(data, packet.segment, now))
            {
                flows::account(tables, before, after);
            }
            true
        }
        // The client's SYN went elsewhere meanwhile: it must not see two answers.
        Lookup::Hit(..) if packet.segment.is_syn_ack() => {
            return Err(reject::with(tables, Rejection::StaleSynAck));
        }
        // What no client has confirmed does not take the base's flow away.
        Lookup::Hit(_, data) => from_base && !data.state().is_confirmed(),
        _ => from_base,
    };
    if theirs { Ok(()) } else { Err(Verdict::Pass(Reason::PassReplyWithoutFlow)) }
}

#[inline(always)]
fn owners_of<A: Family, T: Tables>(
    tables: &T,
    backend: &Found<'_, Backend>,
    client: (A::Address, Be16),
) -> Step<Owners> {
    let service = tables.service(backend.row.service).ok_or(Verdict::INTERNAL)?;
    let table = Table(service.table.load());
    // No flow is remembered that would show who can be a client.
    if table.slots() == 0 || !A::is_unicast(client.0) {
        return Err(Verdict::Pass(Reason::PassReplyWithoutFlow));
    }
    Ok(slot::<A, T>(tables, service, table, client).ok_or(Verdict::INTERNAL)?.owners)
}

/// The backend of a client's flow, as far as it can be known without a segment of it: for packets that quote one.
#[inline(always)]
pub fn known<'a, A: Family, T: Tables>(
    tables: &'a T,
    service: &Found<'_, Service>,
    client: (A::Address, Be16),
) -> Option<Found<'a, Backend>> {
    let table = Table(service.row.table.load());
    if table.slots() == 0 || !A::is_unicast(client.0) {
        return None;
    }
    let owners = slot::<A, T>(tables, service.row, table, client)?.owners;
    let id = if owners.look_up {
        let key = A::key(client.0, client.1, service.id);
        match flows::look_up::<A, T>(tables, key.hash(tables.settings().flow_key), key)? {
            Lookup::Hit(_, data) if data.state().is_confirmed() => data.backend(),
            _ => owners.base,
        }
    } else {
        owners.base
    };
    let row = tables.backend(id)?;
    (id != 0 && row.service == service.id).then_some(Found { id, row })
}
