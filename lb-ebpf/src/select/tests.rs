//! Spread and choice, on tables as the agent builds them for small services.

use lb_common::Address;
use lb_common::address::Be32;
use lb_common::backend::Standing;
use lb_common::slot::SlotLine;

use super::*;
use crate::family::{Ipv4, Ipv6};
use crate::memory::{MemoryTables, Sizes};

const FLOWS: u32 = 100_000;
const SERVICE: u16 = 1;

/// Service 1 with backends 1, 2, ... of these weights, each with as many slots.
fn tables(index: Index, weights: &[u16]) -> MemoryTables {
    let sizes = Sizes {
        services: 2,
        backends: 32,
        slot_lines: 8,
        flow_buckets: 1,
        directory_buckets: 1,
        pool_addresses: 0,
        pool_ports: 0,
    };
    let mut tables = MemoryTables::new(sizes);
    let mut slots = Vec::new();
    for (id, &weight) in (1..).zip(weights) {
        tables.backends[usize::from(id)] = Backend {
            service: SERVICE,
            state: Standing { serving: true, weight, ..Standing::default() }.to_word().into(),
            ..Backend::default()
        };
        slots.extend(std::iter::repeat_n(id, usize::from(weight)));
    }
    for (line, chunk) in slots.chunks(SLOTS_PER_LINE as usize).enumerate() {
        let mut backends = [0; SLOTS_PER_LINE as usize];
        backends[..chunk.len()].copy_from_slice(chunk);
        tables.slots[line] = SlotLine { backends };
    }
    let table = Table::new(0, slots.len() as u32, index, OnNoBackend::Reset);
    tables.services[usize::from(SERVICE)] = Service { table: table.0.into(), seed: 99, ..Service::default() };
    tables
}

fn chosen(tables: &MemoryTables, client: u32, port: u16) -> u16 {
    let service = Found { id: SERVICE, row: &tables.services[usize::from(SERVICE)] };
    let table = Table(service.row.table.load());
    let choice = choose::<Ipv4, _>(tables, &service, table, (Be32::new(client), Be16::new(port)));
    if choice.is_backend() { choice.backend() } else { 0 }
}

/// How often each backend is chosen for so many flows of different clients.
fn spread(tables: &MemoryTables, flows: u32) -> Vec<u32> {
    let mut counts = vec![0; tables.backends.len()];
    for flow in 0..flows {
        counts[usize::from(chosen(tables, 0x0a00_0000 + flow, 1024 + (flow % 50_000) as u16))] += 1;
    }
    counts
}

/// Pearson's statistic of the counts against the backends' shares of the slots.
fn chi_square(counts: &[u32], weights: &[u16]) -> f64 {
    let total: f64 = counts.iter().copied().map(f64::from).sum();
    let slots: f64 = weights.iter().copied().map(f64::from).sum();
    weights
        .iter()
        .zip(&counts[1..])
        .map(|(&weight, &count)| {
            let expected = total * f64::from(weight) / slots;
            (f64::from(count) - expected).powi(2) / expected
        })
        .sum()
}

const WEIGHTS: [u16; 10] = [1, 2, 5, 1, 2, 5, 10, 20, 3, 1];

#[test]
#[cfg_attr(miri, ignore = "statistics over 100,000 flows: minutes, and nothing for Miri to find")]
fn flows_are_spread_as_the_slots_are() {
    for index in [Index::Flow, Index::Source, Index::Random] {
        let counts = spread(&tables(index, &WEIGHTS), FLOWS);
        // 99.99 % of chi-square with 9 degrees of freedom.
        assert!(chi_square(&counts, &WEIGHTS) < 33.7, "{index:?}: {counts:?}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "as above")]
fn two_choices_that_are_equally_busy_keep_to_the_weights_roughly() {
    // Of two different backends the heavier is drawn as often as the lighter at most: equal weights stay equal.
    let weights = [3; 8];
    let counts = spread(&tables(Index::LeastConnections, &weights), FLOWS);
    assert!(chi_square(&counts, &weights) < 29.9, "{counts:?}");
}

#[test]
fn turns_are_strict() {
    let tables = tables(Index::RoundRobin, &WEIGHTS);
    let cycle: u32 = WEIGHTS.iter().copied().map(u32::from).sum();
    tables.service_states[usize::from(SERVICE)].cursor.store(17);
    for _ in 0..3 {
        let counts = spread(&tables, cycle);
        assert_eq!(counts[1..=WEIGHTS.len()], WEIGHTS.map(u32::from));
    }
}

#[test]
fn the_count_of_turns_may_overflow() {
    let tables = tables(Index::RoundRobin, &[1, 1]);
    tables.service_states[usize::from(SERVICE)].cursor.store(u64::MAX);
    assert_eq!([chosen(&tables, 1, 1), chosen(&tables, 1, 2)], [2, 1]);
}

#[test]
fn a_client_keeps_its_backend_by_source_hash_alone() {
    let by_source = tables(Index::Source, &WEIGHTS);
    let by_flow = tables(Index::Flow, &WEIGHTS);
    let ports = || 1000..1100;
    assert!(ports().all(|port| chosen(&by_source, 0x0a01_0203, port) == chosen(&by_source, 0x0a01_0203, 1)));
    assert!(ports().any(|port| chosen(&by_flow, 0x0a01_0203, port) != chosen(&by_flow, 0x0a01_0203, 1)));
    let service = Found { id: SERVICE, row: &by_source.services[usize::from(SERVICE)] };
    let client = Address([7, 9]);
    let slots: Vec<_> = ports()
        .filter_map(|port| computed::<Ipv6, _>(&by_source, &service, client, Be16::new(port)))
        .map(|(_, slot)| slot)
        .collect();
    assert!(slots.len() == 100 && slots.iter().all(|&slot| slot == slots[0]));
}

#[test]
fn the_backend_with_fewer_flows_for_its_weight_wins() {
    let tables = tables(Index::LeastConnections, &[1, 4]);
    let active = |one, other| {
        tables.loads[1].active.store(one);
        tables.loads[2].active.store(other);
        spread(&tables, 200)
    };
    assert_eq!(active(1, 8)[1..=2], [200, 0], "two a weight against nine quarters");
    assert_eq!(active(2, 10)[1..=2], [0, 200], "three a weight against eleven quarters");
    assert_eq!(
        active(u64::MAX, 400)[1..=2],
        [200, 0],
        "an end that is seen before its begin counts for none"
    );
}

#[test]
fn the_two_candidates_are_never_the_same_backend() {
    // One of three is always the busiest: it may never be chosen.
    let all = [vec![1, 1], vec![1, 1, 1], vec![5, 1], vec![10, 1, 1], vec![1; 20]];
    // Miri takes twenty seconds for a table, and has seen all of the code by the first.
    for weights in all.into_iter().take(if cfg!(miri) { 1 } else { usize::MAX }) {
        for busiest in 1..=weights.len() {
            let tables = tables(Index::LeastConnections, &weights);
            tables.loads[busiest].active.store(1000);
            let counts = spread(&tables, if cfg!(miri) { 50 } else { 2000 });
            assert_eq!(counts[busiest], 0, "{weights:?}: {counts:?}");
        }
    }
}

#[test]
fn one_backend_takes_everything_by_every_index() {
    use Index::{Flow, LeastConnections, LeastLatency, Random, RoundRobin, Source};
    for index in [Flow, Source, RoundRobin, Random, LeastConnections, LeastLatency] {
        assert_eq!(spread(&tables(index, &[7]), 100)[1], 100, "{index:?}");
        assert_eq!(spread(&tables(index, &[]), 100)[0], 100, "{index:?} without slots");
    }
}

#[test]
fn what_only_chance_turns_or_load_know_is_not_computed() {
    use Index::{LeastConnections, LeastLatency, Random, RoundRobin};
    for index in [RoundRobin, Random, LeastConnections, LeastLatency] {
        let tables = tables(index, &WEIGHTS);
        let service = Found { id: SERVICE, row: &tables.services[usize::from(SERVICE)] };
        assert!(computed::<Ipv4, _>(&tables, &service, Be32::new(1), Be16::new(1)).is_none());
        assert_eq!(tables.service_states[usize::from(SERVICE)].cursor.load(), 0, "nobody's turn is used up");
        assert_eq!(tables.outcomes.draws.load(), 0);
    }
}

/// Of 1000 flows that end as soon as they begin: those of backend 1, which is ten times as slow as the other two.
fn flows_of_the_slow(tables: &MemoryTables) -> usize {
    (0..1000).filter(|&client| chosen(tables, client, 1) == 1).count()
}

#[test]
fn by_latency_the_slow_one_gets_under_half_of_its_share_and_is_found_again() {
    let tables = tables(Index::LeastLatency, &[1, 1, 1]);
    let now = || flows::now(&tables, &tables.settings);
    let measure = |backend: usize, units| {
        let word = &tables.loads[backend].latency;
        word.store(Latency(word.load()).measured(units, now()).0);
    };
    [(1, 1000), (2, 100), (3, 100)].into_iter().for_each(|(backend, units)| measure(backend, units));
    assert_eq!(flows_of_the_slow(&tables), 0);
    // The others are measured all the time, the slow one by nobody: what is known of it fades.
    let mut seconds = 0;
    while flows_of_the_slow(&tables) == 0 {
        tables.jiffies.set(tables.jiffies.get() + 256);
        [2, 3].into_iter().for_each(|backend| measure(backend, 100));
        seconds += 1;
        assert!(seconds < 60, "never tried");
    }
    assert!(seconds > 5, "tried after {seconds} s already");
    // The flow that tries it finds it recovered, or as slow as ever.
    let faded = tables.loads[1].latency.load();
    measure(1, 1000);
    assert_eq!(flows_of_the_slow(&tables), 0);
    tables.loads[1].latency.store(faded);
    for _ in 0..20 {
        measure(1, 90);
    }
    assert!(flows_of_the_slow(&tables) > 300, "{}", flows_of_the_slow(&tables));
}

#[test]
fn by_latency_flows_under_way_count_too() {
    let tables = tables(Index::LeastLatency, &[1, 1]);
    for backend in [1, 2] {
        tables.loads[backend]
            .latency
            .store(Latency::default().measured(100, flows::now(&tables, &tables.settings)).0);
    }
    tables.loads[1].active.store(9);
    assert_eq!(flows_of_the_slow(&tables), 0);
}
