//! Which interface, neighbour and tags lead to an address: from the table of interned next hops, or from the kernel.

use lb_common::hash::mix3;
use lb_common::next_hop::{CAPACITY, Hop, NextHop, PROBES, RowState};
use lb_common::reason::Event;
use lb_common::settings::Settings;

use crate::flows::count;
use crate::tables::{Route, RouteQuery, Tables};

/// The way to a neighbour.
pub enum Way {
    /// Known and fresh: the reference stays as it is.
    Cached(Hop),
    /// Looked up now. The reference to keep for the next packet; 0 where the table had no room.
    Found(Hop, u16),
    /// The kernel has to resolve the neighbour first.
    NeighbourUnknown,
    /// The kernel has to route it.
    Unfollowable,
    /// There is none.
    NoRoute,
}

/// Follows a reference while it is fresh; otherwise asks the kernel and interns the answer.
#[inline(always)]
pub fn resolve<T: Tables>(
    tables: &T,
    settings: &Settings,
    reference: u16,
    query: impl FnOnce() -> RouteQuery,
) -> Way {
    if let Some(row) = tables.next_hop(reference)
        && NextHop::fresh(row.state.load(), tables.jiffies(), settings.jiffies_per_second as u64)
    {
        return Way::Cached(row.read());
    }
    count(tables, Event::NextHopLookup);
    match tables.route(&query()) {
        Route::Hop(hop) => Way::Found(hop, intern(tables, reference, &hop)),
        Route::NeighbourUnknown => Way::NeighbourUnknown,
        Route::Unfollowable => Way::Unfollowable,
        Route::None => Way::NoRoute,
    }
}

/// Finds or makes the row of a hop, confirms it, and retires the row that was followed before if it is another.
#[inline(always)]
fn intern<T: Tables>(tables: &T, previous: u16, hop: &Hop) -> u16 {
    let words = hop.to_words();
    let hash = mix3([words[0] ^ words[3], words[1], words[2]], 0);
    let confirmed = NextHop::live(tables.jiffies());
    for probe in 0..PROBES {
        let id = (hash as u32).wrapping_add(probe) & (CAPACITY - 1);
        let Some(row) = tables.next_hop(id as u16) else { continue };
        let state = row.state.load();
        if NextHop::is_live(state) && row.holds(&words) {
            row.state.replace(state, confirmed);
            retire(tables, previous, id as u16);
            return id as u16;
        }
        if id != 0 && state == RowState::Free as u64 && row.state.replace(state, RowState::Claimed as u64) {
            row.write(&words);
            row.state.replace(RowState::Claimed as u64, confirmed);
            retire(tables, previous, id as u16);
            return id as u16;
        }
    }
    count(tables, Event::NextHopUncached);
    0
}

/// A look-up that comes to another row proves that the old one misleads at least one destination: whoever else
/// refers to it shall look for itself.
#[inline(always)]
fn retire<T: Tables>(tables: &T, previous: u16, current: u16) {
    if previous == current {
        return;
    }
    if let Some(row) = tables.next_hop(previous) {
        let state = row.state.load();
        if NextHop::is_live(state) {
            row.state.replace(state, state & !3 | RowState::Retired as u64);
        }
    }
}
