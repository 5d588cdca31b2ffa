//! The protocol under every interleaving, and under every order of memory that the C11 model allows with these operations.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p lb-ebpf --release model` runs it, and `cargo xtask test host` does. [loom] runs each
//! model again and again until it has seen every outcome that threads and stale reads may have. It is the code that runs in the
//! kernel, on words that loom watches. Each test is a trap into which a simpler protocol fell.
//!
//! [loom]: https://docs.rs/loom

use super::*;
use lb_common::address::{Be16, Be32};
use lb_common::atomic::Word;
use lb_common::flow::{Bucket4, Bucket6, Key4, Key6};
use loom::sync::Arc;
use loom::thread;

const NOW: u64 = 100_000;

/// What a flow's packets look into.
struct Table<K: Key> {
    home: Bucket<K>,
    second: Bucket<K>,
}

fn key(client: u16) -> Key4 {
    Key4::new(Be32::from_wire([10, 1, 0, 7]), Be16::new(client), 1)
}

fn bucket() -> Bucket4 {
    Bucket4 { ways: std::array::from_fn(|_| Entry { key: Word::default(), data: Word::default() }) }
}

/// The table of a model: what is at home, what is in the second bucket.
fn table(home: &[(u16, State)], second: &[(u16, State)]) -> Arc<Table<Key4>> {
    let table = Table { home: bucket(), second: bucket() };
    for (bucket, entries) in [(&table.home, home), (&table.second, second)] {
        for (entry, &(client, state)) in bucket.ways.iter().zip(entries) {
            key(client).write(&entry.key);
            entry.data.store(Data::succeeding(Data(0), state, client, NOW).0);
        }
    }
    Arc::new(table)
}

/// Runs a model over all schedules; where that are too many, over those with at most so many preemptions: where a thread is
/// stopped though it could go on.
fn explore(preemptions: impl Into<Option<usize>>, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions.into();
    builder.max_branches = 100_000;
    let runs = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = runs.clone();
    builder.check(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        model();
    });
    println!("{} different runs", runs.load(std::sync::atomic::Ordering::Relaxed));
}

impl<K: Key> Table<K> {
    fn insert(&self, key: K, state: State, backend: u16) -> (Insertion, Option<Data>) {
        let mut victim = None;
        let fresh = Data::fresh(state, backend, NOW);
        let insertion = insert_into(&self.home, &self.second, key, fresh, NOW, |data| victim = Some(data));
        (insertion, victim)
    }

    /// As [`look_up`] does it.
    fn look_up(&self, key: K) -> Option<(&Entry<K>, Data)> {
        if let Some((way, data)) = find(&self.home, key) {
            return Some((&self.home.ways[way], data));
        }
        if !self.home.is_marked(Mark::Spill) {
            return None;
        }
        find(&self.second, key).map(|(way, data)| (&self.second.ways[way], data))
    }

    fn entries(&self) -> impl Iterator<Item = (&Entry<K>, Data)> {
        let ways = self.home.ways.iter().chain(&self.second.ways);
        ways.map(|entry| (entry, Data(entry.data.load()))).filter(|(_, data)| data.state().is_live())
    }

    fn count(&self, key: K) -> usize {
        self.entries().filter(|(entry, _)| key.is(&entry.key)).count()
    }

    /// What must hold when everybody is done.
    fn assert_quiet(&self) {
        for bucket in [&self.home, &self.second] {
            assert_eq!(bucket.ways[0].data.load() & LOCK, 0, "a lock is held by nobody");
            for entry in &bucket.ways {
                assert_ne!(Data(entry.data.load()).state(), State::CLAIMED, "claimed by nobody");
            }
        }
    }
}

/// What the sweep does to an entry.
fn free<K: Key>(entry: &Entry<K>) -> Option<Data> {
    let data = Data(entry.data.load());
    (data.state().is_live() && entry.data.replace(data.0, data.freed().0)).then_some(data)
}

const STAYS: State = State::ESTABLISHED;
const FULL: [(u16, State); 4] = [(91, STAYS), (92, STAYS), (93, STAYS), (94, STAYS)];

/// The ACK comes between the look at the victim and its claim: "idle" must not be decided on another word than is swapped.
#[test]
fn trap_1_a_flow_that_an_ack_has_just_established_is_not_evicted() {
    explore(None, || {
        let table = table(&[(91, STAYS), (1, State::HALF_OPEN), (92, STAYS), (93, STAYS)], &FULL);
        let evictor = thread::spawn({
            let table = table.clone();
            move || table.insert(key(2), State::HALF_OPEN, 2)
        });
        let established = table
            .look_up(key(1))
            .and_then(|(entry, data)| update(entry, data, |data| data.in_state(State::ESTABLISHED)));
        let (insertion, victim) = evictor.join().unwrap();
        let kept = table.look_up(key(1)).map(|(_, data)| data.state());
        if established.is_some() {
            assert_eq!((kept, insertion, victim), (Some(State::ESTABLISHED), Insertion::Refused, None));
        } else {
            assert_eq!((kept, insertion), (None, Insertion::Created));
            assert_eq!(victim.map(Data::state), Some(State::HALF_OPEN));
        }
        table.assert_quiet();
    });
}

/// A recycled entry with the same backend, state and time: a late swap must not promote the new flow for the old one's ACK.
#[test]
fn trap_2_a_late_update_does_not_touch_the_flow_that_came_after() {
    explore(None, || {
        let table = table(&[(1, State::HALF_OPEN), (91, STAYS), (92, STAYS), (93, STAYS)], &FULL);
        let recycler = thread::spawn({
            let table = table.clone();
            move || {
                let freed = free(&table.home.ways[0]).is_some();
                (freed, table.insert(key(2), State::HALF_OPEN, 1).0)
            }
        });
        let established = table
            .look_up(key(1))
            .and_then(|(entry, data)| update(entry, data, |data| data.in_state(State::ESTABLISHED)));
        let (freed, insertion) = recycler.join().unwrap();
        if insertion == Insertion::Created {
            let (_, data) = table.look_up(key(2)).expect("created");
            assert_eq!((data.state(), data.generation()), (State::HALF_OPEN, 2));
        } else {
            assert!(established.is_some() && !freed);
        }
        table.assert_quiet();
    });
}

/// Two CPUs have missed the same flow, and a way becomes free meanwhile: still one entry, and one backend.
#[test]
fn trap_3_two_cpus_that_open_one_flow_make_one_entry() {
    explore(3, || {
        let table = table(&FULL, &[]);
        let cpus = [7, 8].map(|backend| {
            let table = table.clone();
            thread::spawn(move || table.insert(key(1), State::HALF_OPEN, backend).0)
        });
        let freed = free(&table.home.ways[3]);
        let outcomes = cpus.map(|cpu| cpu.join().unwrap());
        assert!(freed.is_some());
        assert_eq!(table.count(key(1)), 1);
        let (_, data) = table.look_up(key(1)).expect("one of them created it");
        for (outcome, backend) in outcomes.into_iter().zip([7, 8]) {
            match outcome {
                Insertion::Created => assert_eq!(data.backend(), backend),
                Insertion::Exists(seen) => assert_eq!(seen.backend(), data.backend()),
                Insertion::Refused => assert!(table.home.is_marked(Mark::Untracked)),
            }
        }
        table.assert_quiet();
    });
}

/// Reads may be stale and out of order: whoever finds a flow's key must not see the data of its successor or predecessor.
#[test]
fn trap_4_a_look_up_never_yields_another_flow_s_backend() {
    explore(None, || {
        let table = table(&[(1, State::HALF_OPEN), (91, STAYS), (92, STAYS), (93, STAYS)], &FULL);
        let evictor = thread::spawn({
            let table = table.clone();
            move || table.insert(key(2), State::HALF_OPEN, 2).0
        });
        for client in [1, 2] {
            if let Some((_, data)) = table.look_up(key(client)) {
                assert_eq!(data.backend(), client);
            }
        }
        assert_eq!(evictor.join().unwrap(), Insertion::Created);
    });
}

/// A key of three words is written one by one: neighbours that differ in one of them must not be taken for each other.
#[test]
fn trap_5_a_key_that_is_being_written_is_nobody_s() {
    let key = |client: u64| Key6::new(&lb_common::Address([client & 1, client >> 1]), Be16::new(9), 1);
    explore(None, move || {
        let empty = || Bucket6 {
            ways: std::array::from_fn(|_| Entry { key: Default::default(), data: Word::default() }),
        };
        let table = Table { home: empty(), second: empty() };
        for (way, entry) in table.home.ways.iter().enumerate() {
            let (client, state) = if way == 0 { (0, State::HALF_OPEN) } else { (90 + way as u64, STAYS) };
            key(client).write(&entry.key);
            entry.data.store(Data::succeeding(Data(0), state, client as u16, NOW).0);
        }
        let table = Arc::new(table);
        let evictor = thread::spawn({
            let table = table.clone();
            move || table.insert(key(3), State::HALF_OPEN, 3).0
        });
        // Half of the old key and half of the new one.
        for torn in [1, 2] {
            assert!(find(&table.home, key(torn)).is_none());
        }
        assert_eq!(evictor.join().unwrap(), Insertion::Created);
    });
}

/// Anybody may mark a bucket while one of its ways is claimed: neither the mark nor the entry is lost, in whichever way.
#[test]
fn trap_6_a_mark_set_on_a_claimed_word_is_not_lost_and_loses_nothing() {
    for way in [1, 2] {
        explore(None, move || {
            let mut entries = FULL;
            entries[way] = (1, State::HALF_OPEN);
            let table = table(&entries, &FULL);
            let mark = if way == 1 { Mark::Spill } else { Mark::Untracked };
            let marker = thread::spawn({
                let table = table.clone();
                move || table.home.set_mark(mark)
            });
            let (insertion, _) = table.insert(key(2), State::HALF_OPEN, 2);
            marker.join().unwrap();
            assert!(table.home.is_marked(mark));
            let (_, data) = table.look_up(key(2)).expect("a mark may delay it, but no more than that");
            assert_eq!((insertion, data.backend(), table.count(key(1))), (Insertion::Created, 2, 0));
            table.assert_quiet();
        });
    }
}

/// An audit, as the sweep does it: ages the mark, or takes an old one away where no guest was met.
fn audit(table: &Table<Key4>) {
    let was_old = {
        let data = Data(table.home.mark(Mark::Spill).load());
        if data.is_marked_anew() {
            table.home.age_mark(Mark::Spill);
        }
        data.is_marked() && !data.is_marked_anew()
    };
    let guest = table.second.ways.iter().any(|entry| Data(entry.data.load()).state().is_live());
    if was_old && !guest {
        table.home.clear_mark(Mark::Spill);
    }
}

/// The sweep takes marks away while guests arrive: whoever lives in the second bucket is found afterwards. The first of the two
/// begins before the grace period between two audits, the other after it.
#[test]
fn the_sweep_takes_no_mark_away_that_a_guest_needs() {
    for early in [true, false] {
        explore(None, move || {
            let table = table(&FULL, &[]);
            table.home.set_mark(Mark::Spill);
            let guest = {
                let table = table.clone();
                move || table.insert(key(1), State::HALF_OPEN, 1).0
            };
            let outcome = if early {
                let guest = thread::spawn(guest);
                audit(&table);
                // The grace period: whoever was inside the program is out.
                let outcome = guest.join().unwrap();
                audit(&table);
                outcome
            } else {
                audit(&table);
                let guest = thread::spawn(guest);
                audit(&table);
                guest.join().unwrap()
            };
            assert_eq!(outcome, Insertion::Created);
            assert!(table.look_up(key(1)).is_some(), "a guest lives behind no mark");
            table.assert_quiet();
        });
    }
}

/// Two inserters of different homes, of which one is a guest at the other's, an updater and the sweep: all at once.
#[test]
fn host_guest_updater_and_sweep_lose_nothing() {
    explore(2, || {
        let table = table(&FULL, &[(1, State::HALF_OPEN), (2, State::HALF_OPEN), (95, STAYS), (96, STAYS)]);
        table.home.set_mark(Mark::Spill);
        let guest = thread::spawn({
            let table = table.clone();
            move || table.insert(key(3), State::HALF_OPEN, 3)
        });
        // A flow at home in the second bucket, whose own second choice is full.
        let host = thread::spawn({
            let table = table.clone();
            move || {
                let full = self::table(&FULL, &[]);
                let mut victim = None;
                let fresh = Data::fresh(State::HALF_OPEN, 4, NOW);
                let insertion =
                    insert_into(&table.second, &full.home, key(4), fresh, NOW, |data| victim = Some(data));
                (insertion, victim)
            }
        });
        let sweep = thread::spawn({
            let table = table.clone();
            move || free(&table.second.ways[2]).is_some()
        });
        let established = table
            .look_up(key(1))
            .and_then(|(entry, data)| update(entry, data, |data| data.in_state(State::ESTABLISHED)));
        let [(guest, guest_s), (host, host_s)] = [guest.join().unwrap(), host.join().unwrap()];
        // Where the bucket was marked at that moment, the sweep comes again.
        let freed = usize::from(sweep.join().unwrap());
        let created = [guest, host].iter().filter(|&&outcome| outcome == Insertion::Created).count();
        let evicted = [guest_s, host_s].iter().flatten().count();
        assert_eq!(table.entries().count() - FULL.len(), 4 - freed + created - evicted);
        // Either may have displaced the other, which is half-open itself.
        for (client, outcome, other_s) in [(3, guest, host_s), (4, host, guest_s)] {
            let stayed =
                outcome == Insertion::Created && other_s.is_none_or(|victim| victim.backend() != client);
            assert_eq!(table.count(key(client)), usize::from(stayed));
        }
        if established.is_some() {
            assert_eq!(table.look_up(key(1)).map(|(_, data)| data.state()), Some(State::ESTABLISHED));
        }
        table.assert_quiet();
    });
}
