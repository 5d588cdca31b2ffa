//! One client port, two virtual addresses, one backend: a single connection as far as the backend can tell.
//!
//! Where an endpoint serves several services, the flows of one client address and port to two of them would be translated
//! to the same addresses and ports. Such a new flow is given another backend, the next slot's; where every
//! backend of its service has a flow of that client port already, it is refused. Only rows of shared endpoints are
//! asked about; those of full-NAT services are not among them, since each of their flows has a port of its own.

use lb_common::flow::{Bucket, Data, Key, Mark, WAYS};
use lb_common::hash::{scale, second};
use lb_common::reason::Event;
use lb_common::service::Table;
use lb_common::slot::{SLOTS_PER_LINE, members_line};

use crate::family::Family;
use crate::flows::count;
use crate::open::Opening;
use crate::tables::Tables;

/// Slots that are looked at behind a flow's own. Beyond them its service's other backends are tried in turn, and of one
/// more than an endpoint has services not all can be taken.
const SLOTS: u32 = 16;
const CANDIDATES: u32 = SLOTS + SLOTS_PER_LINE;

/// The backends of the other flows of a client's address and port: four identifiers of its home bucket, four of its second
/// choice; 0 for none.
pub type Others = [u64; 2];

/// The backend of a flow whose strategy has chosen one with a shared endpoint: that one, or another where its endpoint has
/// a flow of the same client port already. 0 where there is no other.
#[inline(always)]
pub fn settle<A: Family, T: Tables>(tables: &T, opening: &Opening<A>, chosen: u16) -> u16 {
    let &Opening { client, port, hash, .. } = opening;
    let Some(row) = tables.backend(chosen) else { return 0 };
    let key = A::key(client, port, row.service);
    let others = others::<A, T>(tables, hash, key);
    let [home, second] = others;
    if home | second == 0 || !tables.is_taken(chosen, home, second) {
        return chosen;
    }
    count(tables, Event::FlowSidestepped);
    let Some(service) = tables.service(row.service) else { return 0 };
    let slots = Table(service.table.load()).slots();
    let slot = scale(A::slot_hash(client, port, service.seed), slots);
    elsewhere(tables, row.service as u32, slot, home, second) as u16
}

#[inline(always)]
fn others<A: Family, T: Tables>(tables: &T, hash: u64, key: A::Key) -> Others {
    let Some(home) = A::bucket(tables, hash) else { return [0; 2] };
    let spilled = if home.is_marked(Mark::Spill) { A::bucket(tables, second(hash)) } else { None };
    [in_bucket(tables, home, key), spilled.map_or(0, |bucket| in_bucket(tables, bucket, key))]
}

#[inline(always)]
fn in_bucket<T: Tables, K: Key>(tables: &T, bucket: &Bucket<K>, key: K) -> u64 {
    let mut ids = 0;
    for way in 0..WAYS {
        let entry = &bucket.ways[way];
        let data = Data(entry.data.load());
        if data.state().is_live() && key.is_sibling(&entry.key) {
            ids = ids << 16 | data.backend() as u64;
        }
        // Whichever way it went: the verifier need not follow all of them to the end.
        ids = tables.blur(ids);
    }
    ids
}

/// Whether a backend's endpoint is one of the others'. For [`Tables::is_taken`].
#[inline(always)]
pub fn is_taken<T: Tables>(tables: &T, id: u16, others: Others) -> bool {
    let Some(row) = tables.backend(id) else { return true };
    let [home, second] = others;
    for at in 0..2 * WAYS {
        let four = if at < WAYS { home } else { second };
        let other = (four >> (at % WAYS * 16)) as u16;
        if other != 0
            && let Some(other) = tables.backend(other)
            && other.is_shared()
            && other.address == row.address
            && other.port == row.port
            && other.protocol == row.protocol
        {
            return true;
        }
    }
    false
}

/// A backend of the service whose endpoint none of the others has, from a slot on; 0 where there is none.
#[inline(always)]
fn elsewhere<T: Tables>(tables: &T, service: u32, slot: u32, home: u64, second: u64) -> u32 {
    let Some(row) = tables.service(service as u16) else { return 0 };
    let table = Table(row.table.load());
    let mut slot = slot;
    let mut refused = 0;
    for at in 0..CANDIDATES {
        let (line, index) = if at < SLOTS {
            slot = if slot + 1 < table.slots() { slot + 1 } else { 0 };
            slot = tables.blur(slot as u64) as u32;
            (slot / SLOTS_PER_LINE, slot)
        } else {
            (members_line(table.slots()), at - SLOTS)
        };
        let Some(line) = tables.slots(table.line().wrapping_add(line)) else { return 0 };
        let id = line.backends[(index % SLOTS_PER_LINE) as usize] as u32;
        let takes_new = id != refused
            && tables
                .backend(id as u16)
                .is_some_and(|row| row.service as u32 == service && row.is_serving() && row.weight() != 0);
        if takes_new && !tables.is_taken(id as u16, home, second) {
            return id;
        }
        refused = tables.blur(id as u64) as u32;
    }
    0
}
