//! The flow table: look-up, insertion and update, lock-free but for a flag that insertions hold.
//!
//! The rules (`docs/design.md` says why simpler ones break):
//!
//! * The data word is the entry. Every change is one compare-and-swap of it; who wins adjusts the counts.
//! * A look-up reads data, key, data: the same generation twice and a live state, or it is a miss.
//! * An insertion sets the bucket's lock flag, looks again, swaps a victim's word *as read* to claimed, writes the
//!   key, swaps in the new word with the next generation, and clears the flag.
//! * Unproven flows displace half-open, closing and idle entries only; where none is, the flow goes untracked and
//!   the bucket is marked, so that its replies are still recognised.

use lb_common::flow::{Bucket, Data, Entry, Key, LOCK, SPILL, State};
use lb_common::reason::Event;
use lb_common::settings::{Settings, timeout};

use crate::tables::Tables;

/// Reads of a lock flag before an insertion gives up; it is held for some tens of instructions.
const LOCK_ATTEMPTS: usize = 16;
/// Swaps that an update tries against others before it gives up. Giving up costs a stamp, or a transition that the sweep repairs.
const UPDATE_ATTEMPTS: usize = 4;

/// What a look-up found.
pub enum Lookup<'a, K: Key> {
    /// The flow's entry, and its data word as read.
    Hit(&'a Entry<K>, Data),
    /// No entry, and none has been refused: the flow is unknown.
    Miss,
    /// No entry, but flows of this bucket went untracked.
    Untracked,
}

/// What came of an insertion.
pub enum Insertion<'a, K: Key> {
    /// A new entry.
    Created,
    /// Another CPU was first.
    Exists(&'a Entry<K>, Data),
    /// No room.
    Refused,
}

/// Finds a flow.
#[inline(always)]
pub fn look_up<K: Key>(bucket: &Bucket<K>, key: K) -> Lookup<'_, K> {
    let [a, b, c, d] = &bucket.ways;
    for entry in [a, b, c, d] {
        if let Some(data) = matching(entry, key) {
            return Lookup::Hit(entry, data);
        }
    }
    if a.data.load() & SPILL != 0 { Lookup::Untracked } else { Lookup::Miss }
}

/// The entry's data word if it is this flow's: the key compared between two reads of one generation.
#[inline(always)]
fn matching<K: Key>(entry: &Entry<K>, key: K) -> Option<Data> {
    // A first comparison without any order turns the other ways away at the price of one load each.
    if !key.is(&entry.key) {
        return None;
    }
    let before = Data(entry.data.load());
    let same_key = key.is(&entry.key);
    let after = Data(entry.data.load());
    (same_key
        && before.generation() == after.generation()
        && before.state().is_live()
        && after.state().is_live())
    .then_some(after)
}

/// Makes an entry for a flow that a look-up did not find.
#[inline(always)]
pub fn insert<'a, K: Key>(
    bucket: &'a Bucket<K>,
    key: K,
    state: State,
    backend: u16,
    now: u64,
    evicted: impl FnOnce(Data),
) -> Insertion<'a, K> {
    let flags = &bucket.ways[0].data;
    if !lock(bucket) {
        return Insertion::Refused;
    }
    let outcome = match look_up(bucket, key) {
        Lookup::Hit(entry, data) => Insertion::Exists(entry, data),
        _ => match claim(bucket, now) {
            Some((entry, claimed, previous)) => {
                key.write(&entry.key);
                // Nobody else changes a claimed word but for way 0's lock flag, which is set already.
                entry.data.replace(claimed.0, Data::succeeding(claimed, state, backend, now).0);
                if previous.state().is_live() {
                    evicted(previous);
                }
                Insertion::Created
            }
            None => {
                flags.set_bits(SPILL);
                Insertion::Refused
            }
        },
    };
    flags.keep_bits(!LOCK);
    outcome
}

#[inline(always)]
fn lock<K: Key>(bucket: &Bucket<K>) -> bool {
    let flags = &bucket.ways[0].data;
    for _ in 0..LOCK_ATTEMPTS {
        if flags.set_bits(LOCK) & LOCK == 0 {
            return true;
        }
    }
    false
}

/// Takes the way that is least of a loss, if any may be taken: the entry, its word now, and what it held.
#[inline(always)]
fn claim<K: Key>(bucket: &Bucket<K>, now: u64) -> Option<(&Entry<K>, Data, Data)> {
    let [a, b, c, d] = &bucket.ways;
    let first = Data(a.data.load());
    let mut best = (loss(first, now), a, first);
    for entry in [b, c, d] {
        let data = Data(entry.data.load());
        let loss = loss(data, now);
        if loss < best.0 {
            best = (loss, entry, data);
        }
    }
    let (loss, entry, data) = best;
    if loss == NOT_ALLOWED {
        return None;
    }
    let claimed = data.in_state(State::CLAIMED);
    // An ACK may have established the victim since it was read: then the swap fails, and rightly.
    entry.data.replace(data.0, claimed.0).then_some((entry, claimed, data))
}

/// The loss that is never taken.
const NOT_ALLOWED: u64 = u64::MAX;

/// What it costs to give an entry up: first by what it is, then by how long it has been silent. A flood of SYNs must not
/// displace the handshake that began last, but its own older entries.
#[inline(always)]
fn loss(data: Data, now: u64) -> u64 {
    let (state, age) = (data.state(), data.age(now));
    let kind: u64 = match state {
        State::FREE => 0,
        State::CLAIMED => return NOT_ALLOWED,
        _ if age > timeout::of(state) => 1,
        State::HALF_OPEN | State::ANSWERED => 2,
        State::CLOSING => 3,
        _ => return NOT_ALLOWED,
    };
    ((kind + 1) << 32) - age
}

/// Changes an entry by a pure step. Returns the word before and after where something was swapped.
///
/// Tries again where somebody else changed the same flow's entry meanwhile, so that a FIN is not lost to a stamp.
#[inline(always)]
pub fn update<K: Key>(entry: &Entry<K>, seen: Data, step: impl Fn(Data) -> Data) -> Option<(Data, Data)> {
    let mut data = seen;
    for _ in 0..UPDATE_ATTEMPTS {
        let next = step(data);
        if next == data {
            return None;
        }
        if entry.data.replace(data.0, next.0) {
            return Some((data, next));
        }
        let again = Data(entry.data.load());
        if again.generation() != seen.generation() || !again.state().is_live() {
            return None;
        }
        data = again;
    }
    None
}

/// Counts what a change of an entry means, if it is more than a new stamp and concerns an active connection: a flood of
/// SYNs, each of which displaces another, shall not pay for calls that count nothing.
#[inline(always)]
pub fn account<T: Tables>(tables: &T, before: Data, after: Data) {
    let changed = before.state() != after.state() || before.backend() != after.backend();
    if changed && (before.state().is_active() || after.state().is_active()) {
        count_transition(tables, before.0, after.0);
    }
}

/// Active connections of the backends before and after, and the proof of a client. A function of its own in the
/// kernel too: three packets of a connection come here, and its copies would double the program.
#[inline(never)]
fn count_transition<T: Tables>(tables: &T, before: u64, after: u64) {
    let (before, after) = (Data(before), Data(after));
    let (was, is) = (before.state(), after.state());
    let moved = before.backend() != after.backend();
    if was.is_active()
        && (!is.is_active() || moved)
        && let Some(traffic) = tables.traffic(before.backend())
    {
        traffic.closed.count(1);
    }
    if is.is_active()
        && (!was.is_active() || moved)
        && let Some(traffic) = tables.traffic(after.backend())
    {
        traffic.opened.count(1);
    }
    if is == State::ESTABLISHED && was != State::ESTABLISHED {
        count(tables, Event::FlowEstablished);
    }
}

/// Counts an event.
#[inline(always)]
pub fn count<T: Tables>(tables: &T, event: Event) {
    tables.outcomes().event(event).count(1);
}

/// The time in the ticks that entries are stamped with.
#[inline(always)]
pub fn now<T: Tables>(tables: &T, settings: &Settings) -> u64 {
    settings.tick(tables.jiffies())
}

#[cfg(test)]
mod tests;
