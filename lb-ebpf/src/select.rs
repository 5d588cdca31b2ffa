//! A new flow's backend: one slot of the service's table.
//!
//! Every strategy is a table that the agent builds and an index function that picks a slot.

use lb_common::address::Be16;
use lb_common::backend::{Backend, Load};
use lb_common::hash::{mix, scale};
use lb_common::latency::Latency;
use lb_common::service::{Index, OnNoBackend, Service, Table};
use lb_common::slot::SLOTS_PER_LINE;

use crate::classify::Found;
use crate::family::Family;
use crate::flows;
use crate::tables::Tables;

/// What a new flow meets, in one word: functions of the kernel return no more.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice(pub u64);

impl Choice {
    /// The tables contradict each other. Must not happen.
    pub const CONTRADICTION: Self = Self(1 << 16);
    /// No backend takes traffic, and the client is told.
    pub const NO_BACKEND_RESET: Self = Self(2 << 16);
    /// No backend takes traffic, and the client is not told.
    pub const NO_BACKEND_DROP: Self = Self(3 << 16);
    /// Its source cannot be a client.
    pub const SOURCE_INVALID: Self = Self(4 << 16);
    /// Its backend is gone, and its service ends such flows.
    pub const BACKEND_DOWN: Self = Self(5 << 16);
    /// It began before, nobody knows where, and its backend cannot be computed.
    pub const UNKNOWN_FLOW: Self = Self(6 << 16);
    /// It cannot be remembered, and its backend cannot be computed.
    pub const TABLE_FULL: Self = Self(7 << 16);

    /// It cannot be remembered, so that affinity has no say: by the hash.
    pub const BY_HASH: Self = Self(8 << 16);

    /// This backend, unless it is suspect or its endpoint has a flow already that it could not tell from this one.
    #[inline(always)]
    pub const fn to_be_settled(self) -> Self {
        Self(self.0 | TO_BE_SETTLED)
    }

    /// Whether that is still to be asked.
    #[inline(always)]
    pub const fn is_to_be_settled(self) -> bool {
        self.0 & TO_BE_SETTLED != 0
    }

    /// This backend.
    #[inline(always)]
    pub const fn of(backend: u16) -> Self {
        Self(backend as u64)
    }

    /// Whether it is a backend.
    #[inline(always)]
    pub const fn is_backend(self) -> bool {
        self.0 < 1 << 16
    }

    /// Which one.
    #[inline(always)]
    pub const fn backend(self) -> u16 {
        self.0 as u16
    }
}

/// Tells a choice that is [to be settled](Choice::to_be_settled) from others.
const TO_BE_SETTLED: u64 = 1 << 32;

/// Picks the backend of a client's new flow to a service, by the table that it has.
#[inline(always)]
pub fn choose<A: Family, T: Tables>(
    tables: &T,
    service: &Found<'_, Service>,
    table: Table,
    client: (A::Address, Be16),
) -> Choice {
    if table.slots() == 0 {
        return match table.on_no_backend() {
            OnNoBackend::Reset => Choice::NO_BACKEND_RESET,
            OnNoBackend::Drop => Choice::NO_BACKEND_DROP,
        };
    }
    let slot = if table.index().is_hash() {
        hashed::<A>(table, client.0, client.1, service.row.seed)
    } else {
        drawn(tables, table, service.id)
    };
    at(tables, service.id, table, slot).map_or(Choice::CONTRADICTION, |found| Choice::of(found.id))
}

/// The backend that a flow without an entry is on, with its slot: where the strategy computes it from the packet.
#[inline(always)]
pub fn computed<'a, A: Family, T: Tables>(
    tables: &'a T,
    service: &Found<'_, Service>,
    client: A::Address,
    port: Be16,
) -> Option<(Found<'a, Backend>, u32)> {
    let table = Table(service.row.table.load());
    if table.slots() == 0 || !table.index().is_hash() {
        return None;
    }
    let slot = hashed::<A>(table, client, port, service.row.seed);
    Some((at(tables, service.id, table, slot)?, slot))
}

/// The slot by what the packet says of its client.
#[inline(always)]
pub fn hashed<A: Family>(table: Table, client: A::Address, port: Be16, seed: u64) -> u32 {
    let port = if table.index() as u8 == Index::Source as u8 { Be16(0) } else { port };
    scale(A::slot_hash(client, port, seed), table.slots())
}

/// The backend of a slot, if it is the service's and serves.
#[inline(always)]
fn at<'a, T: Tables>(tables: &'a T, service: u16, table: Table, slot: u32) -> Option<Found<'a, Backend>> {
    let id = named(tables, table, slot);
    let row = tables.backend(id)?;
    (row.service == service && row.is_serving()).then_some(Found { id, row })
}

/// What stands in a slot: 0, nobody, where there is none.
#[inline(always)]
fn named<T: Tables>(tables: &T, table: Table, slot: u32) -> u16 {
    let line = tables.slots(table.line().wrapping_add(slot / SLOTS_PER_LINE));
    line.map_or(0, |line| line.backends[(slot % SLOTS_PER_LINE) as usize])
}

/// The slot by turns, chance or load. The table has slots; a division must not panic, whoever knows that.
#[inline(always)]
fn drawn<T: Tables>(tables: &T, table: Table, service: u16) -> u32 {
    match table.index() {
        Index::RoundRobin => match tables.service_state(service) {
            Some(state) => (state.cursor.add(1) % table.slots().max(1) as u64) as u32,
            None => 0,
        },
        Index::LeastConnections | Index::LeastLatency => lighter(tables, table),
        _ => scale(tables.outcomes().draw(tables.settings().flow_key), table.slots()),
    }
}

/// Slots that are drawn for the second candidate before the table is walked instead.
const DRAWS: u32 = 3;
/// Slots that are looked at for the second candidate. A table that is dealt in turns repeats a backend no more often
/// than it outweighs all others, so that beyond this the first candidate is as good as certain anyhow.
const ATTEMPTS: u32 = 16;

/// Of two random slots the one whose backend has less to do for its weight, or takes less time for it.
///
/// The two name different backends: were they the same one time in `n`, a slow backend would be compared with nobody but
/// itself that often, and get its `1 / n` of `1 / n` however much it lags behind.
#[inline(always)]
fn lighter<T: Tables>(tables: &T, table: Table) -> u32 {
    let drawn = tables.outcomes().draw(tables.settings().flow_key);
    let first = scale(drawn, table.slots());
    let one = named(tables, table, first);
    // Places in the table are fractions of 2^32: no comparison with the table's end, after which the verifier would have
    // to follow both ways. Either half of a random number is as good as the other.
    let step = (u32::MAX / table.slots().max(1)).wrapping_add(1);
    let mut place = drawn as u32;
    let mut second = scale((place as u64) << 32, table.slots());
    let mut other = named(tables, table, second);
    for attempt in 1..ATTEMPTS {
        if other != one {
            break;
        }
        place = if attempt < DRAWS { mix(drawn, attempt as u64) as u32 } else { place.wrapping_add(step) };
        second = scale((place as u64) << 32, table.slots());
        other = named(tables, table, second);
    }
    let (Some(a), Some(b)) = (burden(tables, table, one), burden(tables, table, other)) else { return first };
    // Compared as fractions, without dividing: at most 26 bits of flows, 20 of time, 16 of weight.
    if b.0.wrapping_mul(a.1) < a.0.wrapping_mul(b.1) { second } else { first }
}

/// Sixteenths of a [unit](lb_common::latency::UNIT) that a backend is taken to need whose connect time nobody knows, while
/// flows of it are under way: a millisecond.
const UNKNOWN: u64 = 61 << 4;

/// What a backend has to do with one flow more, and its weight. By connect time, each flow weighs what that is.
///
/// A backend whose connect time is not known is tried at once, by one flow. Until that is answered it counts as neither fast
/// nor slow: one that does not answer would otherwise get every flow that compares it.
#[inline(always)]
fn burden<T: Tables>(tables: &T, table: Table, id: u16) -> Option<(u64, u64)> {
    let (load, row) = (tables.load(id)?, tables.backend(id)?);
    let flows = active(load) + 1;
    let mut time = 1;
    if table.index() as u8 == Index::LeastLatency as u8 {
        time = Latency(load.latency.load()).faded(flows::now(tables, tables.settings())) >> 4;
        if time == 0 {
            time = if flows == 1 { 1 } else { UNKNOWN };
        }
    }
    // A row whose weight has just become none may be in a table that a packet still reads.
    Some((flows.wrapping_mul(time), row.weight().max(1)))
}

/// Flows that a backend has. Counts by several CPUs may be seen in another order, the end of a flow before its begin.
#[inline(always)]
pub fn active(load: &Load) -> u64 {
    (load.active.load() as i64).max(0) as u64
}

#[cfg(test)]
mod tests;
