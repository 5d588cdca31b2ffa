//! Which interface, neighbour and tags lead to an address: from the table of interned next hops, or from the kernel.

use lb_common::backend::Backend;
use lb_common::hash::mix3;
use lb_common::next_hop::{CAPACITY, Hop, NextHop, PROBES, RowState};
use lb_common::reason::Event;
use lb_common::settings::Settings;

use crate::flows::count;
use crate::tables::{Route, RouteQuery, Tables};

/// The way to a neighbour. A struct whose parts are always there, since the verifier does not let a register be
/// saved that some variant of an `enum` left unset.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Whether there is one.
    pub kind: Kind,
    /// The neighbour, where the kind is [`Kind::Hop`].
    pub hop: Hop,
    /// What to refer to for the next packet: the reference that was asked for, or a better one; 0 for none.
    pub reference: u16,
}

/// What is known of a way.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The neighbour is known.
    Hop = 0,
    /// The kernel has to resolve the neighbour first.
    NeighbourUnknown = 1,
    /// The kernel has to route the packet.
    Unfollowable = 2,
    /// There is no route.
    NoRoute = 3,
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
        return Way { kind: Kind::Hop, hop: row.read(), reference };
    }
    let mut words = [0; 4];
    let answer = look_up(tables, &query(), reference, &mut words);
    let kind = match answer >> 16 {
        0 => Kind::Hop,
        1 => Kind::NeighbourUnknown,
        2 => Kind::Unfollowable,
        _ => Kind::NoRoute,
    };
    Way { kind, hop: Hop::from_words(words), reference: answer as u16 }
}

/// The way to a backend, whose row keeps the reference.
#[inline(always)]
pub fn to_backend<T: Tables>(
    tables: &T,
    settings: &Settings,
    backend: &Backend,
    query: impl FnOnce() -> RouteQuery,
) -> Way {
    let reference = backend.next_hop.load() as u16;
    let way = resolve(tables, settings, reference, query);
    if way.reference != reference {
        backend.next_hop.store(way.reference as u64);
    }
    way
}

/// Asks the kernel and interns the answer. A function of its own in the kernel too: a call costs some 8 ns, which is
/// nothing beside the look-up, and four copies of this would quadruple the program. Hence the plain types: the kind
/// in the upper half, the row's identifier in the lower, the hop behind the pointer.
#[inline(never)]
fn look_up<T: Tables>(tables: &T, query: &RouteQuery, previous: u16, words: &mut [u64; 4]) -> u32 {
    count(tables, Event::NextHopLookup);
    match tables.route(query) {
        Route::Hop(hop) => {
            *words = hop.to_words();
            intern(tables, previous, words) as u32
        }
        Route::NeighbourUnknown => (Kind::NeighbourUnknown as u32) << 16,
        Route::Unfollowable => (Kind::Unfollowable as u32) << 16,
        Route::None => (Kind::NoRoute as u32) << 16,
    }
}

/// Finds or makes the row of a hop, confirms it, and retires the row that was followed before if it is another.
#[inline(always)]
fn intern<T: Tables>(tables: &T, previous: u16, words: &[u64; 4]) -> u16 {
    let hash = mix3([words[0] ^ words[3], words[1], words[2]], 0);
    let confirmed = NextHop::live(tables.jiffies());
    for probe in 0..PROBES {
        let id = (hash as u32).wrapping_add(probe) & (CAPACITY - 1);
        let Some(row) = tables.next_hop(id as u16) else { continue };
        let state = row.state.load();
        if NextHop::is_live(state) && row.holds(words) {
            row.state.replace(state, confirmed);
            retire(tables, previous, id as u16);
            return id as u16;
        }
        if id != 0 && state == RowState::Free as u64 && row.state.replace(state, RowState::Claimed as u64) {
            row.write(words);
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

#[cfg(test)]
mod tests;
