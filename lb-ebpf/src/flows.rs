//! The flow table: look-up, insertion and update, lock-free but for a flag that insertions hold.
//!
//! The rules (`docs/design.md` says why simpler ones break, `flows/model.rs` tries every interleaving):
//!
//! * The data word is the entry. Every change is one compare-and-swap of it; who wins adjusts the counts.
//! * A look-up reads data, key, data: the same generation twice and a live state, or it is a miss.
//! * An insertion sets the home bucket's lock flag, looks again, swaps a victim's word *as read* to claimed, writes the
//!   key, and turns the claimed word into the new one, with the next generation, by one exclusive or. Until then nobody
//!   else changes a claimed word but for its flags, which anybody may set at any time.
//! * Unproven flows displace half-open, closing and idle entries only. Where the home bucket has none, a flow goes to its
//!   second choice, by the same rules and still under the home's lock; the home is marked before the entry is seen.
//!   An entry never moves, so a look-up that finds no mark need not look there.
//! * Where neither has room, the flow goes untracked and the home is marked so that its replies are still recognised.

use lb_common::flow::{Bucket, Data, Entry, Key, LOCK, Mark, State, WAYS};
use lb_common::hash::second;
use lb_common::reason::Event;
use lb_common::settings::{Settings, timeout};

use crate::family::Family;
use crate::latency;
use crate::tables::Tables;
use crate::tcp::Segment;

/// Reads of a lock flag before an insertion gives up; it is held for some tens of instructions.
const LOCK_ATTEMPTS: usize = if cfg!(loom) { 1 } else { 16 };
/// Victims that an insertion tries to claim in a bucket, each of which somebody else has just changed.
const CLAIM_ATTEMPTS: usize = 2;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insertion {
    /// A new entry.
    Created,
    /// Another CPU was first; its entry.
    Exists(Data),
    /// No room.
    Refused,
}

/// Finds a flow; `hash` is its key's. `None` only where the table contradicts the settings.
#[inline(always)]
pub fn look_up<'a, A: Family, T: Tables>(
    tables: &'a T,
    hash: u64,
    key: A::Key,
) -> Option<Lookup<'a, A::Key>> {
    let home = A::bucket(tables, hash)?;
    if let Some((way, data)) = find(home, key) {
        return Some(Lookup::Hit(&home.ways[tables.forget(way) % WAYS], data));
    }
    if home.is_marked(Mark::Spill) {
        let second = A::bucket(tables, second(hash))?;
        let [a, b, c] = key.to_words();
        let way = find_spilled::<A::Key>(second, a, b, c);
        let entry = &second.ways[tables.forget(way) % WAYS];
        if way < WAYS
            && let Some(data) = matching(entry, key)
        {
            return Some(Lookup::Hit(entry, data));
        }
    }
    Some(if home.is_marked(Mark::Untracked) { Lookup::Untracked } else { Lookup::Miss })
}

/// Finds a flow in one bucket: its way, and the data word as read.
#[inline(always)]
fn find<K: Key>(bucket: &Bucket<K>, key: K) -> Option<(usize, Data)> {
    let [a, b, c, d] = &bucket.ways;
    if size_of::<Bucket<K>>() > CACHE_LINE {
        // Starts the second line on its way together with the first. Found out way by way, it would be waited for afterwards.
        let _ = c.data.load();
    }
    if let Some(data) = matching(a, key) {
        Some((0, data))
    } else if let Some(data) = matching(b, key) {
        Some((1, data))
    } else if let Some(data) = matching(c, key) {
        Some((2, data))
    } else {
        matching(d, key).map(|data| (3, data))
    }
}

const CACHE_LINE: usize = 64;

/// The way of a flow's entry in its second bucket, or [`WAYS`]. A function of its own in the kernel too: one flow in thirty
/// comes here, and its copies would double the program.
#[inline(never)]
fn find_spilled<K: Key>(bucket: &Bucket<K>, a: u64, b: u64, c: u64) -> usize {
    find(bucket, K::from_words([a, b, c])).map_or(WAYS, |(way, _)| way)
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

/// Makes an entry for a flow that a look-up did not find; `None` only where the table contradicts the settings.
///
/// `fresh` is the word that it shall have, without generation and flags. `evicted` is told what gave way to it.
#[inline(always)]
pub fn insert<A: Family, T: Tables>(
    tables: &T,
    hash: u64,
    key: A::Key,
    fresh: Data,
    now: u64,
    evicted: impl FnOnce(Data),
) -> Option<Insertion> {
    let home = A::bucket(tables, hash)?;
    let second = A::bucket(tables, second(hash))?;
    Some(insert_into(home, second, key, fresh, now, evicted))
}

/// [`insert`] where the two buckets are known.
#[inline(always)]
pub fn insert_into<K: Key>(
    home: &Bucket<K>,
    second: &Bucket<K>,
    key: K,
    fresh: Data,
    now: u64,
    evicted: impl FnOnce(Data),
) -> Insertion {
    let answer = place(home, second, &key, fresh.0, now);
    let word = Data(Data(answer).without_flags());
    if answer & CREATED != 0 {
        if word.state().is_live() {
            evicted(word);
        }
        Insertion::Created
    } else if answer & EXISTS != 0 {
        Insertion::Exists(word)
    } else {
        Insertion::Refused
    }
}

/// Answers of [`place`], where words have their flags: with the entry's word, and with what gave way.
const EXISTS: u64 = 1 << 63;
const CREATED: u64 = 1 << 62;
const REFUSED: u64 = 0;

/// Inserts, as far as the buckets are concerned.
#[inline(always)]
fn place<K: Key>(home: &Bucket<K>, second: &Bucket<K>, key: &K, fresh: u64, now: u64) -> u64 {
    let key = *key;
    if !lock(home) {
        mark_untracked(home);
        return REFUSED;
    }
    let mut found = find(home, key);
    if found.is_none() && home.is_marked(Mark::Spill) {
        found = find(second, key);
    }
    if let Some((_, data)) = found {
        unlock(home);
        return EXISTS | data.without_flags();
    }
    if let Some((way, claimed, victim)) = claim(home, now) {
        let entry = &home.ways[way % WAYS];
        key.write(&entry.key);
        let flip = claimed.0 ^ Data(fresh).following(claimed).0;
        if way == 0 {
            // The lock is in this very word: published and unlocked at once.
            entry.data.flip_bits(flip ^ LOCK);
        } else {
            entry.data.flip_bits(flip);
            unlock(home);
        }
        return CREATED | victim.without_flags();
    }
    if let Some((way, claimed, victim)) = claim(second, now) {
        let entry = &second.ways[way % WAYS];
        home.set_mark(Mark::Spill);
        key.write(&entry.key);
        entry.data.flip_bits(claimed.0 ^ Data(fresh).following(claimed).0);
        unlock(home);
        return CREATED | victim.without_flags();
    }
    mark_untracked(home);
    unlock(home);
    REFUSED
}

#[inline(always)]
fn lock<K: Key>(bucket: &Bucket<K>) -> bool {
    let [first, ..] = &bucket.ways;
    for _ in 0..LOCK_ATTEMPTS {
        if first.data.set_bits(LOCK) & LOCK == 0 {
            return true;
        }
    }
    false
}

#[inline(always)]
fn unlock<K: Key>(bucket: &Bucket<K>) {
    bucket.ways[0].data.keep_bits(!LOCK);
}

/// Says that a flow of this bucket goes untracked; nothing is written where that is said already.
#[inline(always)]
fn mark_untracked<K: Key>(bucket: &Bucket<K>) {
    if !Data(bucket.mark(Mark::Untracked).load()).is_marked_anew() {
        bucket.set_mark(Mark::Untracked);
    }
}

/// Takes the way that is least of a loss, if any may be taken: which, its word now, and what it held.
#[inline(always)]
fn claim<K: Key>(bucket: &Bucket<K>, now: u64) -> Option<(usize, Data, Data)> {
    let [a, b, c, d] = &bucket.ways;
    for _ in 0..CLAIM_ATTEMPTS {
        let [a, b, c, d] = [a, b, c, d].map(|entry| Data(entry.data.load()));
        let best = least(least(loss(a, now, 0), loss(b, now, 1)), least(loss(c, now, 2), loss(d, now, 3)));
        if best >= NOT_ALLOWED {
            return None;
        }
        let way = best as usize % WAYS;
        let entry = &bucket.ways[way];
        let data = Data(entry.data.load());
        // Between the two reads it may have become somebody who must not go, or somebody else.
        if loss(data, now, way as u64) != best {
            continue;
        }
        let claimed = data.in_state(State::CLAIMED);
        // An ACK may have established the victim since it was read: then the swap fails, and rightly.
        if entry.data.replace(data.0, claimed.0) {
            return Some((way, claimed, data));
        }
    }
    None
}

/// What is known of each state when a victim is sought: `kind << 48 | mask of its age << 24 | timeout`.
///
/// The search has no branches, which would be guessed wrong more often than not in a table full of a flood's entries.
static RULES: [u64; 16] = {
    let mut rules = [(KIND_NEVER) << 48; 16];
    let mut at = 0;
    while at < State::ALL.len() {
        let state = State::ALL[at];
        let kind = match state {
            State::FREE => 0,
            State::HALF_OPEN | State::ANSWERED | State::AFFINITY => 2,
            State::CLOSING => 3,
            _ => KIND_NEVER,
        };
        if state.is_live() {
            rules[at] = kind << 48 | Data::age_mask(state) << 24 | timeout::of(state);
        } else {
            // Never idle: no bit of the stamp is an age.
            rules[at] = kind << 48;
        }
        at += 1;
    }
    rules
};

/// The kind that idle entries have, whatever they are.
const KIND_IDLE: u64 = 1;
/// The kind of those that stay.
const KIND_NEVER: u64 = 4;
/// Losses from here on are never taken.
const NOT_ALLOWED: u64 = KIND_NEVER << 40;

/// What it costs to give an entry up: first by what it is, then by how long it has been silent, then by its way. A flood of
/// SYNs must not displace the handshake that began last, but its own older entries.
#[inline(always)]
fn loss(data: Data, now: u64, way: u64) -> u64 {
    let rule = RULES[data.state().number() as usize % RULES.len()];
    let (kind, mask, timeout) = (rule >> 48, rule >> 24 & 0xff_ffff, rule & 0xff_ffff);
    let age = data.age_within(now, mask);
    let idle = timeout.wrapping_sub(age) >> 63;
    let kind = kind - (kind.wrapping_sub(KIND_IDLE)).wrapping_mul(idle);
    (((kind << 32) + (0xff_ffff - age)) << 8) + way
}

/// The lesser of two that are below 2^63, without a branch.
#[inline(always)]
const fn least(a: u64, b: u64) -> u64 {
    let difference = a.wrapping_sub(b);
    b.wrapping_add(difference & ((difference as i64) >> 63) as u64)
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

/// Counts what a packet's change of an entry means, if it is more than a new stamp. A function of its own in the kernel
/// too: four packets of a connection come here, and its copies would double the program.
#[inline(always)]
pub fn account<T: Tables>(tables: &T, before: Data, after: Data) {
    if before.state() != after.state() {
        count_transition(tables, before.0, after.0);
    }
}

#[inline(never)]
fn count_transition<T: Tables>(tables: &T, before: u64, after: u64) {
    let (before, after) = (Data(before), Data(after));
    account_here(tables, before, after);
    latency::measure(tables, before, after);
    if before.state() == State::HALF_OPEN
        && after.state() == State::ANSWERED
        && let Some(load) = tables.load(after.backend())
        && load.suspicion.load() != 0
    {
        load.suspicion.store(0);
    }
}

/// [`account`], of a segment from the backend.
#[inline(always)]
pub fn account_reply<T: Tables>(tables: &T, before: Data, after: Data, segment: Segment) {
    if before.state() != after.state() {
        count_transition(tables, before.0, after.0);
        if before.state() == State::ESTABLISHED
            && segment.is_reset()
            && let Some(load) = tables.load(after.backend())
        {
            load.resets.add(1);
        }
    }
}

/// Counts what a change of an entry means: the load of the backends before and after, active connections, and the proof
/// of a client.
#[inline(always)]
pub fn account_here<T: Tables>(tables: &T, before: Data, after: Data) {
    let (was, is) = (before.state(), after.state());
    let moved = before.backend() != after.backend();
    if was.is_load()
        && (!is.is_load() || moved)
        && let Some(load) = tables.load(before.backend())
    {
        load.active.add(u64::MAX);
    }
    if is.is_load()
        && (!was.is_load() || moved)
        && let Some(load) = tables.load(after.backend())
    {
        load.active.add(1);
    }
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

#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, not(loom)))]
mod tests;
