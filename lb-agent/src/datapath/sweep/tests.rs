use lb_common::backend::{Backend, IN_USE};
use lb_common::flow::{Key4, Key6, LOCK, Mark};
use lb_common::hash::scale;
use lb_common::next_hop::NextHop;
use lb_common::service::Service;
use lb_common::{Be16, Be32};

use super::*;
use crate::datapath::arrays::Sizes;

const NOW: u64 = 100_000;

fn arrays() -> Arrays {
    Arrays::private(Sizes {
        flows: 256,
        flows6: 256,
        services: 8,
        backends: 16,
        table_size: 251,
        cpus: 1,
        ..Sizes::TEST
    })
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
    assert_eq!(arrays.loads[5].active.load().wrapping_neg(), 2, "but it was load");
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
fn affinity_expires_by_its_services_timeout_and_is_no_flow() {
    let mut arrays = arrays();
    let in_use = |options: Options| Service { live: 1, options: options.0.into(), ..Service::default() };
    arrays.services.write(1, in_use(Options::default().with_affinity(50)));
    arrays.services.write(2, in_use(Options::default()));
    arrays.backends.write(6, Backend::default());
    let ways = &arrays.flows4[3].ways;
    let affinity = |service| key(0, service | AFFINITY_OF);
    entry(&ways[0], affinity(1), flow(State::AFFINITY, 5), 50);
    entry(&ways[1], affinity(1), flow(State::AFFINITY, 5), 51);
    // Of a service that has none any more.
    entry(&ways[2], affinity(2), flow(State::AFFINITY, 5), 0);
    // A packet may have stamped it after the clock was read.
    arrays.flows4[4].ways[0].data.store(flow(State::AFFINITY, 5).stamped(NOW + 1).0);
    affinity(1).write(&arrays.flows4[4].ways[0].key);
    let mut sweep = Sweep::default();
    sweep.step(&mut arrays, NOW);
    assert_eq!(states(&arrays, 3), ["affinity", "free", "free", "free"]);
    assert_eq!(states(&arrays, 4)[0], "affinity");
    assert_eq!(sweep.live_at_last, 0);
    assert_eq!((arrays.own_traffic(5).closed.load(), arrays.loads[5].active.load()), (0, 0));
}

#[test]
fn affinity_to_a_backend_that_is_gone_does_not_keep_its_row() {
    let mut arrays = arrays();
    arrays.services.write(
        1,
        Service { live: 1, options: Options::default().with_affinity(50).0.into(), ..Service::default() },
    );
    let row = Backend { service: 1, port: Be16::new(80), ..Backend::default() };
    row.state.store(0);
    arrays.backends.write(5, row);
    entry(&arrays.flows4[3].ways[0], key(0, 1 | AFFINITY_OF), flow(State::AFFINITY, 5), 0);
    Sweep::default().step(&mut arrays, NOW);
    assert_eq!(states(&arrays, 3)[0], "free");
    assert_eq!(use_of_backend(&arrays.backends[5]), Occupancy::Free);
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

/// A flow of bucket 3, and the number of that bucket's mark.
fn at_home(arrays: &Arrays) -> Key4 {
    let home = |key: Key4| scale(key.hash(arrays.settings().flow_key), arrays.settings().flow4_buckets);
    (1..u16::MAX).map(|port| key(port, 1)).find(|&key| home(key) == 3).expect("one port in 128")
}

/// Passes that are audits, one after another.
fn audits(sweep: &mut Sweep, arrays: &mut Arrays, range: Range<u64>) {
    for number in range {
        sweep.step(arrays, NOW + number * AUDIT_EVERY);
        assert!(sweep.begins() && sweep.auditing);
    }
}

#[test]
fn a_spill_mark_stays_while_a_guest_lives_and_goes_when_none_does() {
    let mut arrays = arrays();
    let mut sweep = Sweep::default();
    let guest = &arrays.flows4[90].ways[2];
    entry(guest, at_home(&arrays), flow(State::ESTABLISHED, 5), 0);
    arrays.flows4[3].set_mark(Mark::Spill);
    audits(&mut sweep, &mut arrays, 0..4);
    assert!(arrays.flows4[3].is_marked(Mark::Spill));
    let guest = &arrays.flows4[90].ways[2];
    guest.data.store(Data(guest.data.load()).freed().0);
    audits(&mut sweep, &mut arrays, 4..5);
    assert!(!arrays.flows4[3].is_marked(Mark::Spill), "it was old already");
}

#[test]
fn a_spill_mark_does_not_stay_for_a_flow_at_home() {
    let mut arrays = arrays();
    entry(&arrays.flows4[3].ways[2], at_home(&arrays), flow(State::ESTABLISHED, 5), 0);
    arrays.flows4[3].set_mark(Mark::Spill);
    let mut sweep = Sweep::default();
    audits(&mut sweep, &mut arrays, 0..1);
    assert!(arrays.flows4[3].is_marked(Mark::Spill), "it was new: whoever set it may not have done yet");
    audits(&mut sweep, &mut arrays, 1..2);
    assert!(!arrays.flows4[3].is_marked(Mark::Spill));
}

#[test]
fn a_spill_mark_set_anew_behind_the_sweep_stays() {
    let mut arrays = arrays();
    arrays.flows4[3].set_mark(Mark::Spill);
    let mut sweep = Sweep::default();
    audits(&mut sweep, &mut arrays, 0..1);
    let now = NOW + AUDIT_EVERY;
    sweep.step_over(&mut arrays, now, 10);
    // The sweep has passed buckets 3 and 7: it does not meet this guest any more.
    entry(&arrays.flows4[7].ways[0], at_home(&arrays), flow(State::ESTABLISHED, 5), 0);
    arrays.flows4[3].set_mark(Mark::Spill);
    sweep.step(&mut arrays, now);
    assert!(sweep.begins() && arrays.flows4[3].is_marked(Mark::Spill));
}

#[test]
fn a_pass_between_two_audits_leaves_marks_alone() {
    let mut arrays = arrays();
    arrays.flows4[3].set_mark(Mark::Spill);
    let mut sweep = Sweep::default();
    audits(&mut sweep, &mut arrays, 0..1);
    for _ in 0..3 {
        sweep.step(&mut arrays, NOW + AUDIT_EVERY - 1);
    }
    assert!(arrays.flows4[3].is_marked(Mark::Spill), "no grace period has passed since it aged");
}

#[test]
fn an_untracked_mark_goes_when_no_flow_was_refused_for_the_longest_timeout() {
    let mut arrays = arrays();
    arrays.flows6[9].set_mark(Mark::Untracked);
    let mut sweep = Sweep::default();
    sweep.step(&mut arrays, NOW);
    sweep.step(&mut arrays, NOW + timeout::LONGEST - 1);
    assert!(arrays.flows6[9].is_marked(Mark::Untracked));
    arrays.flows6[9].set_mark(Mark::Untracked);
    sweep.step(&mut arrays, NOW + timeout::LONGEST + AUDIT_EVERY);
    assert!(arrays.flows6[9].is_marked(Mark::Untracked), "refused again meanwhile");
    sweep.step(&mut arrays, NOW + 2 * (timeout::LONGEST + AUDIT_EVERY));
    assert!(!arrays.flows6[9].is_marked(Mark::Untracked));
}

/// Active connections of backend 5 as they are counted.
fn active(arrays: &Arrays) -> u64 {
    super::super::view::traffic(arrays, 5).active_connections
}

#[test]
fn a_connection_that_a_killed_agent_ended_without_counting_it_is_made_up_for() {
    let mut arrays = arrays();
    arrays.traffic(0, 5).opened.count(3);
    entry(&arrays.flows4[3].ways[1], key(1, 1), flow(State::ESTABLISHED, 5), 0);
    entry(
        &arrays.flows6[3].ways[1],
        Key6::new(&Default::default(), Be16::new(2), 2),
        flow(State::ADOPTED, 5),
        0,
    );
    entry(&arrays.flows4[3].ways[2], key(2, 1), flow(State::HALF_OPEN, 5), 0);
    let mut sweep = Sweep::default();
    audits(&mut sweep, &mut arrays, 0..1);
    assert_eq!(active(&arrays), 3, "one audit could have met a change under way");
    audits(&mut sweep, &mut arrays, 1..2);
    assert_eq!(active(&arrays), 2);
    audits(&mut sweep, &mut arrays, 2..5);
    assert_eq!(active(&arrays), 2);
}

#[test]
fn a_connection_that_was_counted_as_closed_twice_is_made_up_for_too() {
    let mut arrays = arrays();
    arrays.traffic(0, 5).opened.count(1);
    arrays.traffic(0, 5).closed.count(1);
    entry(&arrays.flows4[3].ways[1], key(1, 1), flow(State::ESTABLISHED, 5), 0);
    audits(&mut Sweep::default(), &mut arrays, 0..2);
    assert_eq!(active(&arrays), 1);
}

#[test]
fn counts_of_a_backend_that_moves_are_left_alone() {
    let mut arrays = arrays();
    let mut sweep = Sweep::default();
    for number in 0..4 {
        arrays.traffic(0, 5).opened.count(1);
        audits(&mut sweep, &mut arrays, number..number + 1);
    }
    assert_eq!(active(&arrays), 4);
}

#[test]
fn load_that_nobody_took_off_is_made_up_for_where_it_stands_still() {
    let mut arrays = arrays();
    entry(&arrays.flows4[3].ways[0], key(1, 1), flow(State::ESTABLISHED, 5), 0);
    entry(&arrays.flows4[3].ways[1], key(2, 1), flow(State::HALF_OPEN, 5), 0);
    entry(&arrays.flows4[3].ways[2], key(3, 1), flow(State::CLOSING, 5), 0);
    let load = |arrays: &Arrays, backend: usize| arrays.loads[backend].active.load();
    // Three too many, one too few, and one that moves.
    arrays.loads[5].active.store(5);
    arrays.loads[6].active.store(u64::MAX);
    arrays.loads[7].active.store(9);
    let mut sweep = Sweep::default();
    audits(&mut sweep, &mut arrays, 0..1);
    assert_eq!(load(&arrays, 5), 5, "one audit could have met a change under way");
    arrays.loads[7].active.store(10);
    audits(&mut sweep, &mut arrays, 1..2);
    assert_eq!([5, 6, 7].map(|backend| load(&arrays, backend)), [2, 0, 10]);
}
