//! Expires idle flows and returns rows to use that nothing names any more.
//!
//! The agent does one thing to live entries, live to free by one swap, and holds no lock: it can die at any
//! instruction. A row that is taken out of use is freed by the first whole pass that begins a grace period later
//! and finds no entry that names it.

use std::collections::BTreeSet;

use lb_common::flow::{Bucket, Data, Entry, Key, State};
use lb_common::next_hop::{CAPACITY, RowState};
use lb_common::service::Options;
use lb_common::settings::timeout;

use super::arrays::Arrays;
use super::observed::{Occupancy, use_of_backend, use_of_service};

/// Buckets that one tick looks at: some milliseconds of memory bandwidth. A million flows take four ticks.
const BUCKETS_PER_TICK: usize = 1 << 18;

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
    live: u64,
    /// Live entries that the last whole pass met.
    pub(crate) live_at_last: u64,
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

    /// Looks at the next buckets; at the end of a pass frees what it can. `now` is in ticks.
    ///
    /// A grace period must have passed since the last row was taken out of use whenever a step [begins](Self::begins) a pass.
    pub(crate) fn step(&mut self, arrays: &mut Arrays, now: u64) {
        self.step_over(arrays, now, BUCKETS_PER_TICK);
    }

    fn step_over(&mut self, arrays: &mut Arrays, now: u64, buckets: usize) {
        if self.begins() {
            self.begin(arrays);
        }
        let v4 = arrays.flows4.len();
        let total = v4 + arrays.flows6.len();
        let end = total.min(self.next + buckets);
        for bucket in &arrays.flows4[self.next.min(v4)..end.min(v4)] {
            self.visit(arrays, bucket, now);
        }
        for bucket in &arrays.flows6[self.next.max(v4) - v4..end.max(v4) - v4] {
            self.visit(arrays, bucket, now);
        }
        self.next = end;
        if end == total {
            self.finish(arrays);
            self.next = 0;
        }
    }

    fn begin(&mut self, arrays: &Arrays) {
        self.named = Rows::default();
        self.resting = Rows::default();
        self.next_hops = BitSet::default();
        self.live = 0;
        for (id, _) in
            (0..).zip(arrays.services.iter()).filter(|(_, row)| use_of_service(row) == Occupancy::Resting)
        {
            self.resting.services.insert(id);
        }
        for (id, _) in
            (0..).zip(arrays.backends.iter()).filter(|(_, row)| use_of_backend(row) == Occupancy::Resting)
        {
            self.resting.backends.insert(id);
        }
    }

    fn visit<K: Key>(&mut self, arrays: &Arrays, bucket: &Bucket<K>, now: u64) {
        for entry in &bucket.ways {
            let data = Data(entry.data.load());
            if data.state().is_live() {
                self.visit_live(arrays, entry, data, now);
            }
        }
    }

    fn visit_live<K: Key>(&mut self, arrays: &Arrays, entry: &Entry<K>, data: Data, now: u64) {
        let (_, _, service) = K::read(&entry.key);
        // Nobody looks up a flow of a service that is gone; a flow whose backend is gone is balanced anew anyhow.
        let homeless =
            self.resting.services.contains(service) || self.resting.backends.contains(data.backend());
        let told = homeless && is_tcp_past_handshake(data.state()) && resets(arrays, service);
        if told && data.state() != State::CLOSING {
            self.close(arrays, entry, (service, data), now);
            return;
        }
        if ((homeless && !told) || is_idle(data, now)) && entry.data.replace(data.0, data.freed().0) {
            if data.state().is_active() && usize::from(data.backend()) < arrays.backends.len() {
                arrays.own_traffic(data.backend()).closed.count(1);
            }
            return;
        }
        // Also where the swap lost: whoever won may have kept the backend.
        self.keep(service, data);
    }

    fn keep(&mut self, service: u16, data: Data) {
        self.live += 1;
        self.named.services.insert(service);
        self.named.backends.insert(data.backend());
        self.next_hops.insert(data.next_hop());
    }

    /// Has a flow whose backend was removed meet a reset for a while longer: without its entry, its next packet would be
    /// taken for a new flow's.
    fn close<K: Key>(&mut self, arrays: &Arrays, entry: &Entry<K>, (service, data): (u16, Data), now: u64) {
        let closing = data.in_state(State::CLOSING).stamped(now);
        if entry.data.replace(data.0, closing.0) {
            arrays.own_traffic(data.backend()).closed.count(1);
        }
        self.keep(service, data);
    }

    fn finish(&mut self, arrays: &mut Arrays) {
        self.live_at_last = self.live;
        for id in self.resting.services.iter().filter(|&id| !self.named.services.contains(id)) {
            arrays.services.write(usize::from(id), Default::default());
        }
        for id in self.resting.backends.iter().filter(|&id| !self.named.backends.contains(id)) {
            arrays.backends.write(usize::from(id), Default::default());
        }
        self.free_next_hops(arrays);
    }

    /// Frees retired next hops that two passes in a row found unnamed: a packet that read a reference before it was
    /// replaced has followed it long since.
    fn free_next_hops(&mut self, arrays: &Arrays) {
        for row in arrays.backends.iter() {
            self.next_hops.insert(row.next_hop.load() as u16 & (CAPACITY as u16 - 1));
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

/// A set of 16-bit identifiers.
#[derive(Debug, Default)]
struct BitSet(Vec<u64>);

impl BitSet {
    fn insert(&mut self, id: u16) {
        let word = usize::from(id) / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (id % 64);
    }

    fn contains(&self, id: u16) -> bool {
        self.0.get(usize::from(id) / 64).is_some_and(|word| word >> (id % 64) & 1 == 1)
    }

    fn iter(&self) -> impl Iterator<Item = u16> {
        (0..=u16::MAX).take(self.0.len() * 64).filter(|&id| self.contains(id))
    }
}

#[cfg(test)]
mod tests {
    use lb_common::backend::{Backend, IN_USE};
    use lb_common::flow::{Key4, Key6, LOCK};
    use lb_common::next_hop::NextHop;
    use lb_common::service::Service;
    use lb_common::{Be16, Be32};

    use super::*;
    use crate::datapath::arrays::Sizes;

    const NOW: u64 = 100_000;

    fn arrays() -> Arrays {
        Arrays::private(Sizes { flows: 256, services: 8, backends: 16, table_size: 251, cpus: 1 })
    }

    /// An entry whose last packet was that many ticks ago.
    fn entry<K: Key>(entry: &Entry<K>, key: K, data: Data, idle: u64) {
        key.write(&entry.key);
        entry.data.store(data.stamped(NOW - idle).0);
    }

    fn key(port: u16, service: u16) -> Key4 {
        Key4::new(Be32::new(0x0a00_0001), Be16::new(port), service)
    }

    fn flow(state: State, backend: u16) -> Data {
        Data::succeeding(Data(0), state, backend, 0)
    }

    fn states(arrays: &Arrays, bucket: usize) -> Vec<&'static str> {
        arrays.flows4[bucket].ways.iter().map(|way| Data(way.data.load()).state().name()).collect()
    }

    #[test]
    fn idle_flows_expire_by_their_states_timeout() {
        let mut arrays = arrays();
        let ways = &arrays.flows4[3].ways;
        entry(&ways[0], key(1, 1), flow(State::DATAGRAM, 5), timeout::DATAGRAM);
        entry(&ways[1], key(2, 1), flow(State::DATAGRAM, 5), timeout::DATAGRAM + 1);
        entry(&ways[2], key(3, 1), flow(State::HALF_OPEN, 5), timeout::HALF_OPEN + 1);
        entry(&ways[3], key(4, 1), flow(State::ESTABLISHED, 5), timeout::HALF_OPEN + 1);
        let mut sweep = Sweep::default();
        sweep.step(&mut arrays, NOW);
        assert_eq!(states(&arrays, 3), ["datagram", "free", "free", "established"]);
        assert_eq!(sweep.live_at_last, 2);
        assert_eq!(arrays.own_traffic(5).closed.load(), 1, "the half-open one was never active");
    }

    #[test]
    fn a_stamp_newer_than_the_clock_that_was_read_is_not_idle() {
        let mut arrays = arrays();
        entry(&arrays.flows4[0].ways[0], key(1, 1), flow(State::ESTABLISHED, 5), 0);
        arrays.flows4[0].ways[0].data.store(flow(State::ESTABLISHED, 5).stamped(NOW + 1).0);
        arrays.flows4[0].ways[1].data.store(flow(State::HALF_OPEN, 5).answered(7, NOW + 1).0);
        Sweep::default().step(&mut arrays, NOW);
        assert_eq!(states(&arrays, 0)[..2], ["established", "answered"]);
    }

    #[test]
    fn a_buckets_lock_survives_the_sweep() {
        let mut arrays = arrays();
        let way = &arrays.flows4[0].ways[0];
        way.data.store(flow(State::HALF_OPEN, 5).stamped(NOW - 100).0 | LOCK);
        Sweep::default().step(&mut arrays, NOW);
        assert_eq!(arrays.flows4[0].ways[0].data.load() & LOCK, LOCK);
        assert_eq!(states(&arrays, 0)[0], "free");
    }

    #[test]
    fn a_resting_row_is_freed_once_no_entry_names_it() {
        let mut arrays = arrays();
        let resting = |service| Backend { port: Be16::new(80), service, ..Backend::default() };
        arrays.backends.write(5, resting(1));
        arrays.backends.write(6, Backend { state: IN_USE.into(), ..resting(1) });
        arrays.services.write(2, Service { port: Be16::new(80), ..Service::default() });
        entry(&arrays.flows4[0].ways[0], key(1, 1), flow(State::ESTABLISHED, 5), 0);
        let v6 = Key6::new(&Default::default(), Be16::new(2), 2);
        entry(&arrays.flows6[9].ways[2], v6, flow(State::DATAGRAM, 6), 0);

        let mut sweep = Sweep::default();
        sweep.step(&mut arrays, NOW);
        assert_eq!(states(&arrays, 0)[0], "free", "its flow is given up");
        assert!(!Data(arrays.flows6[9].ways[2].data.load()).state().is_live());
        assert_eq!((arrays.own_traffic(5).closed.load(), arrays.own_traffic(6).closed.load()), (1, 1));
        assert_eq!(arrays.backends[5].port, Be16::default());
        assert_eq!(arrays.services[2].port, Be16::default());
        assert_eq!(arrays.backends[6].port, Be16::new(80), "in use");
    }

    #[test]
    fn where_a_service_resets_a_removed_backends_flows_stay_for_a_while() {
        let mut arrays = arrays();
        let service = |options: Options| Service {
            port: Be16::new(80),
            live: 1,
            options: options.0.into(),
            ..Service::default()
        };
        arrays.services.write(1, service(Options::RESET_ON_BACKEND_DOWN));
        arrays.services.write(2, service(Options::default()));
        arrays.backends.write(5, Backend { port: Be16::new(80), ..Backend::default() });
        let ways = &arrays.flows4[0].ways;
        entry(&ways[0], key(1, 1), flow(State::ESTABLISHED, 5), 9);
        entry(&ways[1], key(2, 1), flow(State::HALF_OPEN, 5), 9);
        entry(&ways[2], key(3, 1), flow(State::DATAGRAM, 5), 9);
        entry(&ways[3], key(4, 2), flow(State::ESTABLISHED, 5), 9);
        let mut sweep = Sweep::default();
        for now in [NOW, NOW + timeout::CLOSING] {
            sweep.step(&mut arrays, now);
            assert_eq!(states(&arrays, 0), ["closing", "free", "free", "free"]);
            assert_eq!(arrays.own_traffic(5).closed.load(), 3, "each was closed once");
            assert_eq!(arrays.backends[5].port, Be16::new(80), "still named");
        }
        sweep.step(&mut arrays, NOW + timeout::CLOSING + 1);
        assert_eq!(states(&arrays, 0)[0], "free");
        assert_eq!(arrays.backends[5].port, Be16::default());
    }

    #[test]
    fn a_row_that_came_to_rest_during_the_pass_waits_for_the_next() {
        let mut arrays = arrays();
        let mut sweep = Sweep::default();
        sweep.step_over(&mut arrays, NOW, 1);
        assert!(!sweep.begins());
        arrays.backends.write(5, Backend { port: Be16::new(80), ..Backend::default() });
        sweep.step(&mut arrays, NOW);
        assert!(sweep.begins());
        assert_eq!(arrays.backends[5].port, Be16::new(80));
        sweep.step(&mut arrays, NOW);
        assert_eq!(arrays.backends[5].port, Be16::default());
    }

    #[test]
    fn retired_next_hops_are_freed_by_the_second_pass_that_finds_them_unnamed() {
        let mut arrays = arrays();
        let retired = NextHop::live(NOW) & !3 | RowState::Retired as u64;
        for id in 7..=9 {
            arrays.next_hops[id].state.store(retired);
        }
        entry(&arrays.flows4[0].ways[0], key(1, 1), flow(State::ESTABLISHED, 5).by_next_hop(8), 0);
        arrays.backends[1].next_hop.store(9);
        let mut sweep = Sweep::default();
        sweep.step(&mut arrays, NOW);
        assert_eq!(arrays.next_hops[7].state.load(), retired);
        sweep.step(&mut arrays, NOW);
        let state = |id: usize| arrays.next_hops[id].state.load();
        assert_eq!([state(7), state(8), state(9)], [0, retired, retired]);
    }
}
