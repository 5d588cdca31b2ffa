//! Which port a flow has, and which flow a port.

use lb_common::address::Be16;
use lb_common::flow::{Data, Entry, Key, State};
use lb_common::port::{Life, MAX_BLOCK, Owner, Place, Pool, Port, PortState, code};
use lb_common::reason::Event;
use lb_common::settings::{Settings, timeout};

use crate::family::Family;
use crate::flows::{self, Lookup};
use crate::tables::Tables;

/// Ports that are tried in each of a client's two blocks. At nine of ten ports in use, all of them are in one case of a
/// million.
const PROBES: u32 = 64;
/// Ports in use whose flows are looked at where none is free. While the agent runs, it finds such ports first.
const RECLAIMS: u32 = 4;
const _: () = assert!(PROBES <= MAX_BLOCK && RECLAIMS <= PROBES);

/// What [`take`] returns where there is no port. No code has so many bits.
pub(super) const NO_CODE: u32 = u32::MAX;

/// The hash of a client that its places follow from.
#[inline(always)]
pub(super) fn hash<A: Family>(settings: &Settings, client: A::Address, port: Be16) -> u64 {
    // Another key than the flow table's: clients that share a bucket there shall not share blocks here.
    A::slot_hash(client, port, !settings.flow_key)
}

/// Finds or takes a port for a flow; its code, or [`NO_CODE`].
///
/// A function of its own in the kernel too: once for a flow, and with a loop.
#[inline(never)]
pub(super) fn take<T: Tables>(tables: &T, pool: &Pool, owner: &Owner, hash: u64, now: u64) -> u32 {
    let settings = tables.settings();
    for choice in 0..2 {
        for probe in 0..PROBES {
            if probe >= settings.pool_block {
                break;
            }
            let code = code(settings, hash, choice, probe);
            let Some(port) = port_at(tables, settings, pool, hash, code) else { break };
            // A SYN that comes again while the entry's word has lost the code.
            if port.is_of(owner) {
                return code as u32;
            }
            let state = PortState(port.state.load());
            if state.is_free(now) && port.take(state, owner) {
                flows::count(tables, Event::PortTaken);
                return code as u32;
            }
        }
    }
    NO_CODE
}

/// Takes a port that is in use, but by nobody; its code, or [`NO_CODE`].
#[inline(always)]
pub(super) fn reclaim<A: Family, T: Tables>(
    tables: &T,
    pool: &Pool,
    owner: &Owner,
    hash: u64,
    now: u64,
) -> u32 {
    let settings = tables.settings();
    for probe in 0..RECLAIMS {
        if probe >= settings.pool_block {
            break;
        }
        let code = code(settings, hash, 0, probe);
        let Some(place) = pool.place(settings, hash, code) else { break };
        let Some(port) = tables.port(place.row) else { break };
        let state = PortState(port.state.load());
        if state.is(Life::Used) && is_abandoned::<A, T>(tables, place.row, now) && port.take(state, owner) {
            flows::count(tables, Event::PortTaken);
            flows::count(tables, Event::PortReclaimed);
            return code as u32;
        }
    }
    NO_CODE
}

/// Notes that the flow which has just got a port by that code has its SYN timed, and that the SYN is still to be sent on.
///
/// In the flow's word the time is lost when another packet stamps it ([`Data::opened_at`]), which a second SYN shall do and the
/// first one shall not; but [`forward`](super::forward) sees the first as one of a flow that is known.
#[inline(always)]
pub(super) fn begin<T: Tables>(tables: &T, pool: &Pool, hash: u64, code: u32) {
    let Some(port) = port_at(tables, tables.settings(), pool, hash, code as u16) else { return };
    let state = PortState(port.state.load());
    // Where this swap loses, one time is not measured.
    port.state.replace(state.0, state.at(OPENING).0);
}

/// Whether a SYN is the one that [began](begin) its port's flow; no later one is.
#[inline(always)]
pub(super) fn is_opening<T: Tables>(tables: &T, row: u32, data: Data) -> bool {
    if data.state() != State::HALF_OPEN {
        return false;
    }
    let Some(port) = tables.port(row) else { return false };
    let state = PortState(port.state.load());
    state.time() == OPENING && port.state.replace(state.0, state.at(0).0)
}

/// [`PortState::time`] of a port in use: its flow's SYN is being sent on, and its time is taken.
const OPENING: u64 = 1;

#[inline(always)]
fn port_at<'a, T: Tables>(
    tables: &'a T,
    settings: &Settings,
    pool: &Pool,
    hash: u64,
    code: u16,
) -> Option<&'a Port> {
    tables.port(pool.place(settings, hash, code)?.row)
}

/// Whether nobody has a port that is in use: its flow is gone, has another, or is idle; an idle one is ended here.
///
/// A function of its own in the kernel too, for the stack's sake.
#[inline(never)]
fn is_abandoned<A: Family, T: Tables>(tables: &T, row: u32, now: u64) -> bool {
    let settings = tables.settings();
    let Some(holder) = holder::<A, T>(tables, settings, row) else { return true };
    let Holder { entry, data, .. } = holder;
    if data.age(now) <= timeout::of(data.state()) {
        return false;
    }
    let freed = data.freed();
    let ended = entry.data.replace(data.0, freed.0);
    if ended {
        flows::account(tables, data, freed);
    }
    ended
}

/// A port and the flow that has it.
pub struct Holder<'a, K: Key> {
    /// The port's row.
    pub port: &'a Port,
    /// Its state, as read.
    pub state: PortState,
    /// What the row says of the flow.
    pub owner: Owner,
    /// The flow's entry.
    pub entry: &'a Entry<K>,
    /// The entry's word, as read.
    pub data: Data,
}

/// The flow that has a port: the row names it, and its entry names the row.
#[inline(always)]
pub fn holder<'a, A: Family, T: Tables>(
    tables: &'a T,
    settings: &Settings,
    row: u32,
) -> Option<Holder<'a, A::Key>> {
    let port = tables.port(row)?;
    let state = PortState(port.state.load());
    if !state.is(Life::Used) {
        return None;
    }
    // If the row changes hands meanwhile, this is a mixture of two flows, and neither's entry names the row.
    let owner = port.owner();
    let client = A::narrow(&owner.client);
    let key = A::key(client, owner.port, owner.service);
    let hash = key.hash(settings.flow_key);
    let Lookup::Hit(entry, data) = flows::look_up::<A, T>(tables, hash, key)? else { return None };
    let pool = &tables.service(owner.service)?.pool;
    let place = pool.place(settings, self::hash::<A>(settings, client, owner.port), data.next_hop())?;
    (place.row == row).then_some(Holder { port, state, owner, entry, data })
}

/// The place of the port that a client's flow has, if it has one.
pub fn place<A: Family, T: Tables>(tables: &T, owner: &Owner) -> Option<Place> {
    let settings = tables.settings();
    let key = A::key(A::narrow(&owner.client), owner.port, owner.service);
    match flows::look_up::<A, T>(tables, key.hash(settings.flow_key), key)? {
        Lookup::Hit(_, data) => place_of::<A, T>(tables, owner, data),
        _ => None,
    }
}

/// The place of a flow's port: as its entry names it, and if the row agrees.
pub fn place_of<A: Family, T: Tables>(tables: &T, owner: &Owner, data: Data) -> Option<Place> {
    let settings = tables.settings();
    let pool = &tables.service(owner.service)?.pool;
    let hash = hash::<A>(settings, A::narrow(&owner.client), owner.port);
    let place = pool.place(settings, hash, data.next_hop())?;
    tables.port(place.row)?.is_of(owner).then_some(place)
}
