use super::*;
use lb_common::address::{Address, Be16, Be32};
use lb_common::atomic::Word;
use lb_common::flow::{Bucket4, Bucket6, Key4, Key6, MARKED};
use std::sync::Barrier;
use std::thread;

const NOW: u64 = 100_000;

fn key(client: u16) -> Key4 {
    Key4::new(Be32::from_wire([10, 1, 0, 7]), Be16::new(client), 1)
}

fn bucket() -> Bucket4 {
    Bucket4 { ways: std::array::from_fn(|_| Entry { key: Word::default(), data: Word::default() }) }
}

fn bucket6() -> Bucket6 {
    Bucket6 { ways: std::array::from_fn(|_| Entry { key: Default::default(), data: Word::default() }) }
}

/// Inserts a flow that must find room; returns what gave way to it.
fn insert_at<K: Key>(bucket: &Bucket<K>, key: K, state: State, backend: u16, now: u64) -> Option<Data> {
    let mut victim = None;
    let insertion = insert(bucket, key, state, backend, now, |data| victim = Some(data));
    assert_eq!(insertion, Insertion::Created, "{key:?}");
    victim
}

/// Inserts with no second choice but the first.
fn insert<K: Key>(
    bucket: &Bucket<K>,
    key: K,
    state: State,
    backend: u16,
    now: u64,
    evicted: impl FnOnce(Data),
) -> Insertion {
    insert_into(bucket, bucket, key, Data::fresh(state, backend, now), now, evicted)
}

fn found<K: Key>(bucket: &Bucket<K>, key: K) -> Option<Data> {
    find(bucket, key).map(|(_, data)| data)
}

/// A bucket whose entries all stay.
fn full_bucket() -> Bucket4 {
    let bucket = bucket();
    for client in 0..WAYS as u16 {
        insert_at(&bucket, key(1000 + client), State::ESTABLISHED, 1000, NOW);
    }
    bucket
}

fn live<K: Key>(bucket: &Bucket<K>) -> usize {
    bucket.ways.iter().filter(|entry| Data(entry.data.load()).state().is_live()).count()
}

#[test]
fn an_inserted_flow_is_found_and_no_other() {
    let bucket = bucket();
    for client in 0..WAYS as u16 {
        insert_at(&bucket, key(client), State::HALF_OPEN, 10 + client, NOW);
    }
    for client in 0..WAYS as u16 {
        let data = found(&bucket, key(client)).expect("inserted");
        assert_eq!((data.backend(), data.state(), data.age(NOW)), (10 + client, State::HALF_OPEN, 0));
    }
    assert_eq!(found(&bucket, key(99)), None);
}

#[test]
fn a_flow_that_is_there_is_not_inserted_again() {
    let bucket = bucket();
    insert_at(&bucket, key(1), State::HALF_OPEN, 7, NOW);
    let again = insert(&bucket, key(1), State::HALF_OPEN, 8, NOW, |_| unreachable!());
    assert!(matches!(again, Insertion::Exists(data) if data.backend() == 7));
    assert_eq!(live(&bucket), 1);
}

#[test]
fn idle_entries_give_way_first_then_half_open_then_closing_and_established_never() {
    let bucket = bucket();
    insert_at(&bucket, key(1), State::CLOSING, 1, NOW);
    insert_at(&bucket, key(2), State::ESTABLISHED, 2, NOW);
    insert_at(&bucket, key(3), State::ANSWERED, 3, NOW);
    insert_at(&bucket, key(4), State::DATAGRAM, 4, NOW - timeout::DATAGRAM - 1);
    for (newcomer, victim) in [(5, 4), (6, 3), (7, 1)] {
        let evicted = insert_at(&bucket, key(newcomer), State::DATAGRAM, newcomer, NOW);
        assert_eq!(evicted.map(Data::backend), Some(victim));
        assert_eq!(found(&bucket, key(victim)), None);
    }
    let refused = insert(&bucket, key(8), State::DATAGRAM, 8, NOW, |_| unreachable!());
    assert!(matches!(refused, Insertion::Refused));
    assert!(found(&bucket, key(2)).is_some());
}

#[test]
fn a_flood_displaces_its_own_and_not_the_handshake_that_began_last() {
    let bucket = bucket();
    for client in 1..=4 {
        insert_at(&bucket, key(client), State::HALF_OPEN, 1, NOW);
    }
    insert_at(&bucket, key(5), State::HALF_OPEN, 1, NOW + 1);
    insert_at(&bucket, key(6), State::HALF_OPEN, 1, NOW + 1);
    let known: Vec<u16> = (1..=6).filter(|&client| found(&bucket, key(client)).is_some()).collect();
    assert_eq!(known, [3, 4, 5, 6]);
}

#[test]
fn what_it_is_weighs_more_than_how_long_it_has_been_silent() {
    let loss_of = |state, age| loss(Data::succeeding(Data(0), state, 1, NOW - age), NOW, 3);
    let order = [
        loss(Data(0), NOW, 0),
        loss(Data(0), NOW, 1),
        loss_of(State::ESTABLISHED, timeout::ESTABLISHED + 1),
        loss_of(State::HALF_OPEN, timeout::HALF_OPEN),
        loss_of(State::HALF_OPEN, 0),
        loss_of(State::CLOSING, timeout::CLOSING),
        loss_of(State::CLOSING, 0),
        loss_of(State::ESTABLISHED, timeout::ESTABLISHED),
    ];
    assert!(order.is_sorted_by(|before, after| before < after), "{order:x?}");
    for state in [State::ESTABLISHED, State::DATAGRAM, State::ADOPTED, State::CLAIMED] {
        assert!(loss_of(state, timeout::of(state)) >= NOT_ALLOWED, "{state:?}");
    }
    assert!(loss_of(State::CLAIMED, NOW) >= NOT_ALLOWED);
    assert!(loss_of(State::CLOSING, 0) < NOT_ALLOWED);
}

#[test]
fn an_entry_is_idle_only_after_its_timeout() {
    let bucket = bucket();
    for client in 0..WAYS as u16 {
        insert_at(&bucket, key(client), State::DATAGRAM, 1, NOW);
    }
    let insert = |now| insert(&bucket, key(9), State::DATAGRAM, 1, now, |_| {});
    assert!(matches!(insert(NOW + timeout::DATAGRAM), Insertion::Refused));
    assert!(matches!(insert(NOW + timeout::DATAGRAM + 1), Insertion::Created));
}

#[test]
fn where_both_buckets_are_full_of_flows_that_stay_the_home_says_that_a_flow_went_untracked() {
    let [home, second] = [full_bucket(), full_bucket()];
    assert!(!home.is_marked(Mark::Untracked));
    let fresh = Data::fresh(State::DATAGRAM, 1, NOW);
    let refused = insert_into(&home, &second, key(9), fresh, NOW, |_| unreachable!());
    assert_eq!(refused, Insertion::Refused);
    assert!(home.is_marked(Mark::Untracked) && !home.is_marked(Mark::Spill));
    assert!(!second.is_marked(Mark::Untracked), "the second bucket's own flows have done nothing");
    assert_eq!((live(&home), live(&second)), (WAYS, WAYS));
}

#[test]
fn a_flow_whose_home_is_full_goes_to_its_second_choice_and_the_home_says_so() {
    let [home, second] = [full_bucket(), bucket()];
    let fresh = Data::fresh(State::HALF_OPEN, 7, NOW);
    let created = insert_into(&home, &second, key(9), fresh, NOW, |_| unreachable!());
    assert_eq!(created, Insertion::Created);
    assert_eq!((found(&home, key(9)), found(&second, key(9)).map(Data::backend)), (None, Some(7)));
    assert!(home.is_marked(Mark::Spill) && !home.is_marked(Mark::Untracked));
    assert!(!second.is_marked(Mark::Spill));
    let again = insert_into(&home, &second, key(9), Data::fresh(State::HALF_OPEN, 8, NOW), NOW, |_| {});
    assert!(matches!(again, Insertion::Exists(data) if data.backend() == 7));
    assert_eq!(home.ways[0].data.load() & LOCK, 0);
}

#[test]
fn a_guest_gives_way_by_the_same_rules() {
    let [home, second] = [full_bucket(), bucket()];
    for (client, state) in [(1, State::ESTABLISHED), (2, State::HALF_OPEN), (3, State::HALF_OPEN)] {
        insert_into(&home, &second, key(client), Data::fresh(state, client, NOW), NOW, |_| {});
    }
    insert_at(&second, key(4), State::ESTABLISHED, 4, NOW);
    for (newcomer, victim) in [(5, 2), (6, 3)] {
        let evicted = insert_at(&second, key(newcomer), State::ESTABLISHED, newcomer, NOW);
        assert_eq!(evicted.map(Data::backend), Some(victim));
    }
    let refused = insert(&second, key(7), State::HALF_OPEN, 7, NOW, |_| unreachable!());
    assert_eq!((refused, found(&second, key(1)).map(Data::backend)), (Insertion::Refused, Some(1)));
}

#[test]
fn a_guest_may_have_any_way_of_its_second_bucket_whatever_is_marked_there() {
    for way in 0..WAYS {
        let [home, second] = [full_bucket(), full_bucket()];
        second.ways[0].data.set_bits(LOCK);
        second.set_mark(Mark::Spill);
        second.set_mark(Mark::Untracked);
        let free = Data(second.ways[way].data.load()).freed();
        second.ways[way].data.store(free.0);
        let before = second.ways.each_ref().map(|entry| entry.data.load() & !Data(!0).without_flags());
        let created = insert_into(&home, &second, key(9), Data::fresh(State::HALF_OPEN, 7, NOW), NOW, |_| {});
        assert_eq!((created, found(&second, key(9)).map(Data::backend)), (Insertion::Created, Some(7)));
        let after = second.ways.each_ref().map(|entry| entry.data.load() & !Data(!0).without_flags());
        assert_eq!(before, after, "the second bucket's own lock and marks are not the guest's to change");
    }
}

#[test]
fn a_flow_that_finds_the_lock_held_goes_untracked_and_says_so() {
    let bucket = bucket();
    bucket.ways[0].data.set_bits(LOCK);
    assert_eq!(insert(&bucket, key(1), State::DATAGRAM, 1, NOW, |_| {}), Insertion::Refused);
    assert_eq!((bucket.ways[0].data.load(), live(&bucket)), (LOCK, 0), "the lock is its holder's");
    assert!(bucket.is_marked(Mark::Untracked));
}

#[test]
fn an_insertion_leaves_the_lock_open() {
    let bucket = bucket();
    for client in 0..10 {
        insert(&bucket, key(client), State::ESTABLISHED, 1, NOW, |_| {});
        assert_eq!(bucket.ways[0].data.load() & LOCK, 0);
    }
}

#[test]
fn an_update_keeps_the_bucket_s_flags() {
    let bucket = bucket();
    insert_at(&bucket, key(1), State::HALF_OPEN, 1, NOW);
    let seen = found(&bucket, key(1)).unwrap();
    bucket.ways[0].data.set_bits(MARKED);
    update(&bucket.ways[0], seen, |data| data.in_state(State::CLOSING)).expect("retried with the flags");
    let word = bucket.ways[0].data.load();
    assert_eq!((word & MARKED, Data(word).state()), (MARKED, State::CLOSING));
}

#[test]
fn an_update_that_changes_nothing_swaps_nothing() {
    let bucket = bucket();
    insert_at(&bucket, key(1), State::DATAGRAM, 1, NOW);
    let seen = found(&bucket, key(1)).unwrap();
    assert_eq!(update(&bucket.ways[0], seen, |data| data.stamped(NOW)), None);
}

#[test]
fn an_update_of_a_flow_whose_entry_was_recycled_leaves_its_successor_alone() {
    let bucket = bucket();
    insert_at(&bucket, key(1), State::HALF_OPEN, 1, NOW);
    let (way, seen) = find(&bucket, key(1)).expect("inserted");
    let entry = &bucket.ways[way];
    // The same way, backend, state and time: only the generation tells the two apart.
    entry.data.store(seen.freed().0);
    insert_at(&bucket, key(2), State::HALF_OPEN, 1, NOW);
    let successor = found(&bucket, key(2)).unwrap();
    assert_eq!(successor.generation(), seen.generation() + 1);

    assert_eq!(update(entry, seen, |data| data.in_state(State::ESTABLISHED)), None);

    assert_eq!(found(&bucket, key(2)), Some(successor));
}

#[test]
fn an_update_is_not_lost_to_a_stamp_that_came_first() {
    let bucket = bucket();
    insert_at(&bucket, key(1), State::ESTABLISHED, 1, NOW);
    let (way, seen) = find(&bucket, key(1)).expect("inserted");
    let entry = &bucket.ways[way];
    update(entry, seen, |data| data.stamped(NOW + 1));
    let (before, after) = update(entry, seen, |data| data.in_state(State::CLOSING)).expect("tried again");
    assert_eq!((before.age(NOW + 1), after.age(NOW + 1), after.state()), (0, 0, State::CLOSING));
}

#[test]
fn a_claimed_entry_is_nobody_s() {
    let bucket = bucket();
    insert_at(&bucket, key(1), State::HALF_OPEN, 1, NOW);
    let data = found(&bucket, key(1)).unwrap();
    bucket.ways[0].data.store(data.in_state(State::CLAIMED).0);
    assert_eq!(found(&bucket, key(1)), None);
}

/// Rounds of a race: Miri explores each for hundreds of times as long.
const ROUNDS: u16 = if cfg!(miri) { 20 } else { 2_000 };

#[test]
fn of_two_cpus_that_insert_one_flow_one_makes_the_entry() {
    for round in 0..ROUNDS {
        let bucket = bucket();
        let start = Barrier::new(2);
        let created: usize = thread::scope(|scope| {
            let threads = [1, 2].map(|backend| {
                let (bucket, start) = (&bucket, &start);
                scope.spawn(move || {
                    start.wait();
                    let insertion = insert(bucket, key(round), State::HALF_OPEN, backend, NOW, |_| {});
                    usize::from(matches!(insertion, Insertion::Created))
                })
            });
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((created, live(&bucket)), (1, 1));
        assert_eq!(bucket.ways[0].data.load() & LOCK, 0);
    }
}

/// The backend that a client's flow is given in the race below: not one that its neighbours have.
fn backend_of(client: u16) -> u16 {
    client.wrapping_mul(31) | 1
}

#[test]
fn a_look_up_during_evictions_never_yields_another_flow_s_backend() {
    race(&bucket(), key);
}

#[test]
fn a_look_up_during_evictions_never_yields_another_flow_s_backend_in_ipv6_either() {
    // Neighbours differ in one word of three, which a torn read would mix up.
    race(&bucket6(), |client| {
        let words = [u64::from(client % 4), u64::from(client / 4)];
        Key6::new(&Address(words), Be16::new(client), 1)
    });
}

/// Two CPUs insert flows that evict each other while a third looks them up and a fourth stamps them.
fn race<K: Key + Sync + Send>(bucket: &Bucket<K>, key: impl Fn(u16) -> K + Sync)
where
    K::Stored: Sync,
{
    const CLIENTS: u16 = 16;
    let rounds = ROUNDS * 5;
    thread::scope(|scope| {
        for cpu in 0..2 {
            let key = &key;
            scope.spawn(move || {
                for round in 0..rounds {
                    let client = (round % CLIENTS * 7 + cpu) % CLIENTS;
                    insert(bucket, key(client), State::HALF_OPEN, backend_of(client), NOW, |_| {});
                }
            });
        }
        let key = &key;
        scope.spawn(move || {
            for round in 0..rounds {
                let client = round % CLIENTS;
                if let Some((way, data)) = find(bucket, key(client)) {
                    update(&bucket.ways[way], data, |data| data.stamped(u64::from(round)));
                }
            }
        });
        for round in 0..rounds {
            let client = round % CLIENTS;
            if let Some(data) = found(bucket, key(client)) {
                assert_eq!(data.backend(), backend_of(client));
            }
        }
    });
    let entries = bucket.ways.iter().map(|entry| (K::read(&entry.key), Data(entry.data.load())));
    let clients: Vec<_> = entries.filter(|(_, data)| data.state().is_live()).map(|(key, _)| key.1).collect();
    let distinct: std::collections::HashSet<_> = clients.iter().collect();
    assert_eq!(distinct.len(), clients.len(), "a flow has two entries");
}
