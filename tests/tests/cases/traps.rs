//! What other balancers got wrong and no other case is about: see `docs/traps.md`.

use std::collections::BTreeMap;

use lb_common::service::Index;
use lb_tests::lab::{Backend, Lab, Service, V4, V6};

/// Clients of a network that differ in the byte that `client` writes, and in nothing else.
fn spread_by_source_hash(hosts: lb_tests::lab::Hosts, client: impl Fn(u8) -> String) -> BTreeMap<u16, usize> {
    let service = (0..4).map(|at| Backend::at(hosts.backends[at], 8080));
    let service = service.fold(Service::tcp(hosts.vip, 80).by(Index::Source), Service::backend);
    let mut spread = BTreeMap::new();
    let lab = Lab::new().flow_buckets(4096).service(service);
    let mut lb = match crate::balancer(&lab) {
        Some(balancer) => balancer,
        None => return spread,
    };
    for number in 1..=200 {
        lb.run(&hosts.to_vip().from(&client(number)).tcp(40_000, 80).syn().bytes());
    }
    for flow in lb.flows() {
        *spread.entry(flow.backend).or_default() += 1;
    }
    spread
}

#[test]
fn source_hash_spreads_clients_that_differ_in_one_byte() {
    let v4: [fn(u8) -> String; 3] =
        [|n| format!("203.{n}.113.9"), |n| format!("203.0.{n}.9"), |n| format!("203.0.113.{n}")];
    let v6: [fn(u8) -> String; 3] = [
        |n| format!("2001:db8:{n:x}::9"),
        |n| format!("2001:db8::{n:x}:0:9"),
        |n| format!("2001:db8::{n:x}"),
    ];
    let cases = v4.map(|client| (V4, client)).into_iter().chain(v6.map(|client| (V6, client)));
    for (hosts, client) in cases {
        let spread = spread_by_source_hash(hosts, client);
        if spread.is_empty() {
            return;
        }
        // 50 expected; five standard deviations are 31.
        let fair = (1..=4).all(|id| spread.get(&id).is_some_and(|count| (19..=81).contains(count)));
        assert!(fair, "clients such as {}: {spread:?}", client(7));
    }
}
