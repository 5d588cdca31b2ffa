//! Expires idle flows, returns rows to use that nothing names any more, and puts right what has drifted.
//!
//! The agent does one thing to live entries, live to free by one swap, and holds no lock: it can die at any
//! instruction. A row that is taken out of use is freed by the first whole pass that begins a grace period later
//! and finds no entry that names it. Now and then a pass is an *audit*, which also sees to the buckets' [marks] and to the
//! counts of active connections ([recount]).

mod bits;
mod marks;
mod recount;

use std::collections::BTreeSet;
use std::mem;
use std::ops::Range;
use std::time::Duration;

use lb_common::flow::{AFFINITY_OF, Bucket, Data, Entry, Key, State};
use lb_common::next_hop::{CAPACITY, NextHop, RowState};
use lb_common::service::Options;
use lb_common::settings::timeout;

use lb_ebpf::family::CLIENT_TAG;
use rustix::time::{ClockId, clock_gettime};

use super::arrays::Arrays;
use super::exceptions::Pass;
use super::observed::{Occupancy, use_of_backend, use_of_service};
use super::rows::{self, Row};
use super::sources;
use bits::BitSet;
use marks::Marks;
use recount::Recount;

/// Ticks that a pass over all but the smallest and the largest tables takes: nothing times out that fast, and an agent that has nothing
/// to do shall take next to nothing.
const TICKS_PER_PASS: usize = 8;
/// Buckets that one tick looks at, at least and at most: the most is some milliseconds of memory bandwidth.
const BUCKETS_PER_TICK: (usize, usize) = (1 << 16, 1 << 18);
/// Buckets that are mapped at once: a megabyte or two.
const BUCKETS_AT_ONCE: usize = 1 << 14;
/// Ticks from the beginning of one audit to that of the next, if a pass takes no longer.
const AUDIT_EVERY: u64 = 30;

/// The state of the pass that is under way.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    /// The next bucket, the IPv6 table's after the IPv4 table's.
    next: usize,
    /// Rows that rested when the pass began.
    resting: Rows,
    /// Rows that live entries name.
    named: Rows,
    next_hops: BitSet,
    /// What it sees of services that track by exception.
    exceptions: Pass,
    live: u64,
    /// When the last audit began; none has yet.
    audited: Option<u64>,
    /// Whether this pass is one.
    auditing: bool,
    /// The buckets' marks, of each table.
    marks: [Marks; 2],
    recount: Recount,
    /// CPU time of this pass.
    spent: Duration,
    /// Live entries that the last whole pass met.
    pub(crate) live_at_last: u64,
    /// CPU time of the last whole pass.
    pub(crate) spent_at_last: Duration,
    /// Retired next hops that the last whole pass found unnamed.
    unnamed_next_hops: BTreeSet<u16>,
}

/// Services and backends by identifier.
#[derive(Debug, Default)]
struct Rows {
    services: BitSet,
    backends: BitSet,
}

impl Sweep {
    /// Whether the next step begins a pass.
    pub(crate) const fn begins(&self) -> bool {
        self.next == 0
    }

    /// Whether rows rest that a pass could free.
    pub(crate) fn wanted(arrays: &Arrays) -> bool {
        arrays.services.iter().any(|row| use_of_service(row) == Occupancy::Resting)
            || arrays.backends.iter().any(|row| use_of_backend(row) == Occupancy::Resting)
    }

    /// Whether a pass that begins now is an audit.
    pub(crate) fn audits(&self, now: u64) -> bool {
        self.audited.is_none_or(|last| now.wrapping_sub(last) >= AUDIT_EVERY)
    }

    /// Looks at the next buckets; at the end of a pass frees what it can. `now` is in ticks.
    ///
    /// Whenever a step [begins](Self::begins) a pass, a grace period must have passed since the last row was taken out of use;
    /// and if the pass is [an audit](Self::audits), since the last step.
    ///
    /// Returns what a pass that ended has seen of services that track by exception.
    pub(crate) fn step(&mut self, arrays: &mut Arrays, now: u64) -> Option<Pass> {
        let begin = cpu_time();
        let (least, most) = BUCKETS_PER_TICK;
        let share = (arrays.flows4.count() + arrays.flows6.count()).div_ceil(TICKS_PER_PASS);
        self.step_over(arrays, now, share.clamp(least, most));
        self.spent += cpu_time().saturating_sub(begin);
        self.begins().then(|| {
            self.spent_at_last = mem::take(&mut self.spent);
            mem::take(&mut self.exceptions)
        })
    }

    fn step_over(&mut self, arrays: &mut Arrays, now: u64, buckets: usize) {
        if self.begins() {
            self.begin(arrays, now);
        }
        let v4 = arrays.flows4.count();
        let total = v4 + arrays.flows6.count();
        let end = total.min(self.next + buckets);
        self.visit_all(arrays, 0, &arrays.flows4, self.next.min(v4)..end.min(v4), now);
        self.visit_all(arrays, 1, &arrays.flows6, self.next.max(v4) - v4..end.max(v4) - v4, now);
        self.next = end;
        if end == total {
            self.finish(arrays, now);
            self.next = 0;
        }
    }

    fn begin(&mut self, arrays: &Arrays, now: u64) {
        self.named = Rows::default();
        self.resting = Rows::default();
        self.next_hops = BitSet::default();
        self.live = 0;
        self.exceptions = Pass::begin(arrays);
        self.auditing = self.audits(now);
        if self.auditing {
            self.audited = Some(now);
            let settings = arrays.settings();
            let buckets = [settings.flow4_buckets, settings.flow6_buckets];
            for (marks, buckets) in self.marks.iter_mut().zip(buckets) {
                marks.begin(buckets, settings.flow_key, now);
            }
            self.recount.begin(arrays);
        }
        for (id, _) in
            (0u16..).zip(arrays.services.iter()).filter(|(_, row)| use_of_service(row) == Occupancy::Resting)
        {
            self.resting.services.insert(id);
        }
        for (id, _) in
            (0u16..).zip(arrays.backends.iter()).filter(|(_, row)| use_of_backend(row) == Occupancy::Resting)
        {
            self.resting.backends.insert(id);
        }
    }

    fn visit_all<K: Key>(
        &mut self,
        arrays: &Arrays,
        table: usize,
        rows: &rows::Rows<Bucket<K>>,
        range: Range<usize>,
        now: u64,
    ) where
        Bucket<K>: Row,
    {
        for first in range.clone().step_by(BUCKETS_AT_ONCE) {
            let part = rows.part(first..range.end.min(first + BUCKETS_AT_ONCE));
            for (index, bucket) in (first..).zip(part.iter()) {
                self.visit(arrays, table, (index, bucket), now);
            }
        }
    }

    fn visit<K: Key>(&mut self, arrays: &Arrays, table: usize, at: (usize, &Bucket<K>), now: u64) {
        let (index, bucket) = at;
        for entry in &bucket.ways {
            let data = Data(entry.data.load());
            if data.state().is_live()
                && let Some(data) = self.kept(arrays, entry, data, now)
                && self.auditing
            {
                self.marks[table].meet(index, entry);
                self.recount.meet(data);
            }
        }
        if self.auditing {
            self.marks[table].visit(index, bucket);
        }
    }

    /// What a live entry is after this visit; none where it was freed.
    fn kept<K: Key>(&mut self, arrays: &Arrays, entry: &Entry<K>, data: Data, now: u64) -> Option<Data> {
        let (client, port, service) = K::read(&entry.key);
        if data.state() == State::AFFINITY {
            return self.kept_affinity(arrays, entry, (service & !AFFINITY_OF, data), now);
        }
        if !self.exceptions.is_idle() {
            self.exceptions.meet((client, port), service, data.backend());
        }
        // Nobody looks up a flow of a service that is gone; a flow whose backend is gone is balanced anew anyhow.
        let homeless =
            self.resting.services.contains(service) || self.resting.backends.contains(data.backend());
        let told = homeless && is_tcp_past_handshake(data.state()) && resets(arrays, service);
        if told && data.state() != State::CLOSING {
            return Some(self.close(arrays, entry, (service, data), now));
        }
        if ((homeless && !told) || is_idle(data, now)) && entry.data.replace(data.0, data.freed().0) {
            account_ended(arrays, data);
            sources::release(arrays, entry, data, now);
            return None;
        }
        // Also where the swap lost: whoever won may have kept the backend.
        self.keep(service, data);
        Some(data)
    }

    /// The same of what is remembered of a client, which is no flow.
    fn kept_affinity<K: Key>(
        &mut self,
        arrays: &Arrays,
        entry: &Entry<K>,
        (service, data): (u16, Data),
        now: u64,
    ) -> Option<Data> {
        let homeless =
            self.resting.services.contains(service) || self.resting.backends.contains(data.backend());
        let options = arrays
            .services
            .get(usize::from(service))
            .map(|row| Options(row.options.load()))
            .unwrap_or_default();
        // One tick more on either side, as for flows.
        let holds = options.has(Options::AFFINITY) && data.age(now + 1) <= options.affinity() + 1;
        if (homeless || !holds) && entry.data.replace(data.0, data.freed().0) {
            return None;
        }
        self.named.services.insert(service);
        self.named.backends.insert(data.backend());
        Some(data)
    }

    fn keep(&mut self, service: u16, data: Data) {
        self.live += 1;
        self.named.services.insert(service);
        self.named.backends.insert(data.backend());
        self.next_hops.insert(data.next_hop());
    }

    /// Has a flow whose backend was removed meet a reset for a while longer: without its entry, its next packet would be
    /// taken for a new flow's. Returns what it is now.
    fn close<K: Key>(
        &mut self,
        arrays: &Arrays,
        entry: &Entry<K>,
        (service, data): (u16, Data),
        now: u64,
    ) -> Data {
        self.keep(service, data);
        let closing = data.in_state(State::CLOSING).stamped(now);
        if entry.data.replace(data.0, closing.0) {
            account_ended(arrays, data);
            closing
        } else {
            data
        }
    }

    fn finish(&mut self, arrays: &mut Arrays, now: u64) {
        self.live_at_last = self.live;
        sources::sweep(arrays, now, |next_hop| self.next_hops.insert(next_hop));
        for id in self.resting.services.iter().filter(|&id| !self.named.services.contains(id)) {
            arrays.services.write(usize::from(id), Default::default());
        }
        for id in self.resting.backends.iter().filter(|&id| !self.named.backends.contains(id)) {
            arrays.backends.write(usize::from(id), Default::default());
        }
        self.free_next_hops(arrays);
        if self.auditing {
            let [v4, v6] = &mut self.marks;
            v4.finish(&arrays.flows4);
            v6.finish(&arrays.flows6);
            self.recount.finish(arrays);
        }
    }

    /// Frees retired next hops that two passes in a row found unnamed: a packet that read a reference before it was
    /// replaced has followed it long since.
    fn free_next_hops(&mut self, arrays: &Arrays) {
        for row in arrays.backends.iter() {
            self.next_hops.insert(row.next_hop.load() as u16 & (CAPACITY as u16 - 1));
        }
        let retired = |row: &NextHop| row.state.load() & 3 == RowState::Retired as u64;
        if !arrays.next_hops.iter().any(retired) {
            self.unnamed_next_hops.clear();
            return;
        }
        for word in arrays.client_hops.iter() {
            self.next_hops.insert((word.load() & !CLIENT_TAG) as u16);
        }
        let mut unnamed = BTreeSet::new();
        for (id, row) in (0..).zip(arrays.next_hops.iter()).skip(1) {
            let state = row.state.load();
            if state & 3 != RowState::Retired as u64 || self.next_hops.contains(id) {
                continue;
            }
            if !self.unnamed_next_hops.contains(&id) {
                unnamed.insert(id);
            } else {
                row.state.replace(state, RowState::Free as u64);
            }
        }
        self.unnamed_next_hops = unnamed;
    }
}

/// CPU time that this thread has taken.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // Neither is negative, and nanoseconds are less than a second.
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Counts what it means for its backend that an entry ends.
fn account_ended(arrays: &Arrays, data: Data) {
    let Some(load) = arrays.loads.get(usize::from(data.backend())) else { return };
    if data.state().is_load() {
        load.active.add(u64::MAX);
    }
    if data.state().is_active() {
        arrays.own_traffic(data.backend()).closed.count(1);
    }
}

/// Whether a client has a connection that it must be told of when it ends.
fn is_tcp_past_handshake(state: State) -> bool {
    [State::ESTABLISHED, State::ADOPTED, State::CLOSING].contains(&state)
}

/// Whether a service ends the flows of backends that are gone.
fn resets(arrays: &Arrays, service: u16) -> bool {
    arrays.services.get(usize::from(service)).is_some_and(|row| {
        use_of_service(row) == Occupancy::InUse
            && Options(row.options.load()).has(Options::RESET_ON_BACKEND_DOWN)
    })
}

/// Counted from one tick ahead: a packet may have stamped its flow after `now` was read, and an age wraps.
fn is_idle(data: Data, now: u64) -> bool {
    data.age(now + 1) > timeout::of(data.state()) + 1
}

#[cfg(test)]
mod tests;
