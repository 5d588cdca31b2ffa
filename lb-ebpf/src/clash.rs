//! One client port, two virtual addresses, one backend: a single connection as far as the backend can tell.
//!
//! Where an endpoint serves several services, the flows of one client address and port to two of them would be translated
//! to the same addresses and ports. Such a new flow is given another backend, the next slot's; where every
//! backend of its service has a flow of that client port already, it is refused. Only rows of shared endpoints are
//! asked about; those of full-NAT services are not among them, since each of their flows has a port of its own.
//!
//! A new flow whose backend is [suspect](lb_common::suspicion) goes the same way: to another, if there is one above suspicion.

use lb_common::flow::{Bucket, Data, Key, Mark, WAYS};
use lb_common::hash::{scale, second};
use lb_common::reason::Event;
use lb_common::service::Table;
use lb_common::slot::{SLOTS_PER_LINE, members_line};
use lb_common::suspicion::Suspicion;

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

/// The backend of a flow whose strategy has chosen one with a shared endpoint, or a suspect one: that one, or another where its
/// endpoint has a flow of the same client port already, or where another is above suspicion. 0 where there is none.
#[inline(always)]
pub fn settle<A: Family, T: Tables>(tables: &T, opening: &Opening<A>, chosen: u16) -> u16 {
    let &Opening { client, port, hash, .. } = opening;
    let Some(row) = tables.backend(chosen) else { return 0 };
    let others = if row.is_shared() {
        others::<A, T>(tables, hash, A::key(client, port, row.service))
    } else {
        [0; 2]
    };
    let [home, second] = others;
    let is_taken = home | second != 0 && tables.is_taken(chosen, home, second);
    if is_taken {
        count(tables, Event::FlowSidestepped);
    } else if is_worth_a_trial(tables, chosen) {
        return chosen;
    }
    let Some(service) = tables.service(row.service) else { return 0 };
    let slots = Table(service.table.load()).slots();
    let slot = scale(A::slot_hash(client, port, service.seed), slots);
    let other = elsewhere(tables, (row.service as u64) << 32 | slot as u64, others, chosen as u64);
    if is_taken {
        return other as u16;
    }
    if other == 0 || other & SUSPECT != 0 {
        return chosen;
    }
    count(tables, Event::SuspectAvoided);
    other as u16
}

/// Whether a backend's flows have shown it to be unfit: see [`Suspicion`].
#[inline(always)]
pub fn is_suspect<T: Tables>(tables: &T, backend: u16) -> bool {
    tables.load(backend).is_some_and(|load| Suspicion(load.suspicion.load()).is_suspect())
}

/// Whether a backend is above suspicion, or this flow is the one that tries it.
#[inline(always)]
fn is_worth_a_trial<T: Tables>(tables: &T, backend: u16) -> bool {
    let Some(load) = tables.load(backend) else { return true };
    let word = Suspicion(load.suspicion.load());
    if !word.is_suspect() {
        return true;
    }
    match word.trial(tables.jiffies(), tables.settings().jiffies_per_second) {
        Some(tried) => load.suspicion.replace(word.0, tried.0),
        None => false,
    }
}

/// The backends of the other flows of a client's address and port.
#[inline(always)]
pub fn others<A: Family, T: Tables>(tables: &T, hash: u64, key: A::Key) -> Others {
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

/// Marks an answer of [`elsewhere`] and [`candidate`]: it is suspect.
pub const SUSPECT: u64 = 1 << 16;

/// A backend of a service that takes new flows, whose endpoint none of the others has and that is not excluded, from a slot on;
/// 0 where there is none. One above suspicion, or else one that is [not](SUSPECT).
///
/// `place` is the service above the slot; `excluded` has up to four identifiers of 16 bits.
#[inline(always)]
pub fn elsewhere<T: Tables>(tables: &T, place: u64, [home, second]: Others, excluded: u64) -> u64 {
    let mut spare = 0;
    for at in 0..CANDIDATES {
        let found = tables.candidate(place, at);
        if found as u16 != 0
            && !is_one_of(found as u16, excluded)
            && (home | second == 0 || !tables.is_taken(found as u16, home, second))
        {
            if found & SUSPECT == 0 {
                return found;
            }
            if spare == 0 {
                spare = found;
            }
        }
        spare = tables.blur(spare);
    }
    spare
}

/// The backend that is looked at after so many others, if it takes new flows; 0 where not. For [`Tables::candidate`].
#[inline(always)]
pub fn candidate<T: Tables>(tables: &T, place: u64, at: u32) -> u64 {
    let (service, slot) = ((place >> 32) as u16, place as u32);
    let Some(row) = tables.service(service) else { return 0 };
    let table = Table(row.table.load());
    let slots = table.slots();
    let (line, index) = if at < SLOTS {
        let slot = slot.wrapping_add(at + 1) % slots.max(1);
        (slot / SLOTS_PER_LINE, slot)
    } else {
        (members_line(slots), at - SLOTS)
    };
    let Some(line) = tables.slots(table.line().wrapping_add(line)) else { return 0 };
    let id = line.backends[(index % SLOTS_PER_LINE) as usize];
    let Some(row) = tables.backend(id) else { return 0 };
    if row.service != service || !row.is_serving() || row.weight() == 0 {
        return 0;
    }
    if is_suspect(tables, id) { id as u64 | SUSPECT } else { id as u64 }
}

#[inline(always)]
const fn is_one_of(id: u16, four: u64) -> bool {
    id == four as u16 || id == (four >> 16) as u16 || id == (four >> 32) as u16 || id == (four >> 48) as u16
}
