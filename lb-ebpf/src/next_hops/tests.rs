use super::*;
use crate::memory::{MemoryTables, Sizes};
use lb_common::address::Address;
use lb_common::next_hop::Tag;
use std::net::IpAddr;

fn tables() -> MemoryTables {
    let sizes = Sizes {
        services: 2,
        backends: 2,
        slot_lines: 1,
        flow_buckets: 1,
        directory_buckets: 1,
        pool_addresses: 0,
        pool_ports: 0,
    };
    MemoryTables::new(sizes)
}

fn destination(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}

fn hop(neighbour: u8) -> Hop {
    Hop {
        ifindex: 3,
        mtu: 1500,
        tag_count: 0,
        destination: [2, 0, 0, 0, 0, neighbour],
        source: [2, 0, 0, 0, 1, 1],
        tags: [Tag::default(); 2],
    }
}

fn follow(tables: &MemoryTables, reference: u16, to: &str) -> Way {
    let query = || RouteQuery { ingress: 1, source: destination("10.0.0.1"), destination: destination(to) };
    resolve(tables, &tables.settings, reference, query)
}

fn look_ups(tables: &MemoryTables) -> u64 {
    tables.outcomes.event(Event::NextHopLookup).load()
}

#[test]
fn a_fresh_reference_is_followed_without_a_look_up() {
    let mut tables = tables();
    tables.default_route = Route::Hop(hop(1));
    let way = follow(&tables, 0, "10.1.0.7");
    assert_eq!((way.kind, way.hop), (Kind::Hop, hop(1)));
    let again = follow(&tables, way.reference, "10.1.0.7");
    assert_eq!((again.hop, again.reference, look_ups(&tables)), (hop(1), way.reference, 1));
}

#[test]
fn equal_hops_share_a_row_and_others_do_not() {
    let mut tables = tables();
    for (to, neighbour) in [("10.1.0.1", 1), ("10.1.0.2", 1), ("10.1.0.3", 2)] {
        tables.routes.insert(destination(to), Route::Hop(hop(neighbour)));
    }
    let [first, second, third] =
        ["10.1.0.1", "10.1.0.2", "10.1.0.3"].map(|to| follow(&tables, 0, to).reference);
    assert_eq!(first, second);
    assert_ne!(first, third);
    assert_ne!(first, 0);
}

#[test]
fn a_reference_is_looked_up_again_after_a_second_and_confirmed() {
    let mut tables = tables();
    tables.default_route = Route::Hop(hop(1));
    let way = follow(&tables, 0, "10.1.0.7");
    let second = u64::from(tables.settings.jiffies_per_second);
    tables.jiffies.set(tables.jiffies.get() + second);
    let confirmed = follow(&tables, way.reference, "10.1.0.7");
    assert_eq!((confirmed.reference, look_ups(&tables)), (way.reference, 2));
    tables.jiffies.set(tables.jiffies.get() + second - 1);
    follow(&tables, way.reference, "10.1.0.7");
    assert_eq!(look_ups(&tables), 2);
}

#[test]
fn a_look_up_that_comes_to_another_neighbour_retires_the_row_that_misled() {
    let mut tables = tables();
    tables.default_route = Route::Hop(hop(1));
    let old = follow(&tables, 0, "10.1.0.7").reference;
    tables.default_route = Route::Hop(hop(2));
    tables.jiffies.set(tables.jiffies.get() + u64::from(tables.settings.jiffies_per_second));

    let new = follow(&tables, old, "10.1.0.7");

    assert_eq!(new.hop, hop(2));
    assert_ne!(new.reference, old);
    let row = &tables.next_hops[usize::from(old)];
    assert_eq!(row.state.load() & 3, RowState::Retired as u64);
    // Whoever else refers to it looks for itself, at once.
    assert_eq!(follow(&tables, old, "10.1.0.8").hop, hop(2));
}

#[test]
fn a_full_table_leaves_the_hop_uncached_but_usable() {
    let mut tables = tables();
    tables.default_route = Route::Hop(hop(1));
    for row in &tables.next_hops[1..] {
        row.state.store(NextHop::live(tables.jiffies.get()));
    }
    for count in 1..=2 {
        let way = follow(&tables, 0, "10.1.0.7");
        assert_eq!((way.kind, way.hop, way.reference), (Kind::Hop, hop(1), 0));
        assert_eq!(tables.outcomes.event(Event::NextHopUncached).load(), count);
    }
}

#[test]
fn the_row_that_stands_for_unknown_is_never_used() {
    for neighbour in 0..=u8::MAX {
        let mut tables = tables();
        tables.default_route = Route::Hop(hop(neighbour));
        assert_ne!(follow(&tables, 0, "10.1.0.7").reference, 0);
        assert_eq!(tables.next_hops[0].state.load(), RowState::Free as u64);
        if cfg!(miri) && neighbour == 3 {
            return;
        }
    }
}

#[test]
fn what_is_no_hop_is_not_remembered() {
    let mut tables = tables();
    for (route, kind) in [
        (Route::NeighbourUnknown, Kind::NeighbourUnknown),
        (Route::Unfollowable, Kind::Unfollowable),
        (Route::None, Kind::NoRoute),
    ] {
        tables.default_route = route;
        let way = follow(&tables, 0, "10.1.0.7");
        assert_eq!((way.kind, way.reference), (kind, 0));
    }
    assert_eq!(look_ups(&tables), 3);
}
