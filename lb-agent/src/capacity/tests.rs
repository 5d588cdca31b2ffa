use super::*;

fn demand() -> Demand {
    Demand {
        connections: 1_000_000,
        new_connections: 10_000,
        packets: 2_000_000,
        bandwidth: 10_000_000_000,
        ipv6: 0,
        track: Track::Full,
        mode: Mode::Dnat,
        services: 100,
        backends: 1000,
        link: 25_000_000_000,
        driver: 40.0,
    }
}

/// Every packet of IPv4 takes 60 ns, a new flow's 260, whatever the flows.
fn costs() -> Costs {
    let row = |case: &str, family: u8, track: &str, ns: f64| {
        format!(
            r#"{{"case": "{case}", "family": {family}, "flows": 1, "strategy": "maglev", "track": "{track}", "net_ns": {ns}}}"#
        )
    };
    let rows: Vec<_> = [("request", 60.0), ("reply", 60.0), ("new-flow", 260.0)]
        .iter()
        .flat_map(|(case, ns)| {
            [(4, "full"), (4, "exceptions"), (6, "full"), (6, "exceptions")]
                .map(|(family, track)| row(case, family, track, ns * if family == 6 { 2.0 } else { 1.0 }))
        })
        .collect();
    Costs::parse(&format!("[{}]", rows.join(","))).unwrap()
}

#[test]
fn cores_follow_from_packets_and_new_connections() {
    let forecast = demand().forecast(&costs(), 2).unwrap();
    // 1.99 million packets at 100 ns, 10,000 at 300: 0.202 of a core, of which packets may have 0.6.
    assert!((forecast.load - 0.202).abs() < 1e-9, "{}", forecast.load);
    assert_eq!((forecast.cores, forecast.packets_per_core), (1, 10_000_000));
    let ten_times = Demand { packets: 20_000_000, ..demand() };
    assert_eq!(ten_times.forecast(&costs(), 2).unwrap().cores, 4);
    let ipv6 = Demand { ipv6: 50, ..demand() };
    assert_eq!(ipv6.forecast(&costs(), 2).unwrap().packet_ns, 130.0);
}

#[test]
fn closed_connections_take_entries_for_a_minute() {
    let forecast = demand().forecast(&costs(), 2).unwrap();
    assert_eq!(forecast.limits.flows, 1_000_000 + 60 * 10_000);
    let split = Demand { ipv6: 25, ..demand() }.forecast(&costs(), 2).unwrap();
    assert_eq!((split.limits.flows, split.limits.flows6), (1_200_000, 400_000));
    let by_exception = Demand { track: Track::Exceptions, ..demand() }.forecast(&costs(), 2).unwrap();
    assert_eq!(by_exception.limits.flows, 100_000);
    assert!(by_exception.memory_bytes < forecast.memory_bytes);
}

#[test]
fn full_nat_takes_a_port_for_each_connection_and_its_rest() {
    let forecast = Demand { mode: Mode::FullNat, ..demand() }.forecast(&costs(), 2).unwrap();
    // 1,000,000 + 124 x 10,000 ports, of which an address has 31,744: nine tenths of them.
    assert_eq!(forecast.source_addresses, 2_240_000_u64.div_ceil(28_569));
    assert_eq!(demand().forecast(&costs(), 2).unwrap().source_addresses, 0);
}

#[test]
fn links_are_not_filled() {
    for (bandwidth, links) in [(0, 1), (17_500_000_000, 1), (17_600_000_000, 2), (100_000_000_000, 6)] {
        let forecast = Demand { bandwidth, ..demand() }.forecast(&costs(), 2).unwrap();
        assert_eq!(forecast.links, links, "{bandwidth} bit/s");
    }
    assert_eq!(demand().forecast(&costs(), 2).unwrap().binds_first, "links");
    let small = Demand { bandwidth: 1_000_000, ..demand() };
    assert_eq!(small.forecast(&costs(), 2).unwrap().binds_first, "cores");
}

#[test]
fn what_one_machine_cannot_hold_is_refused_with_the_table() {
    let many = Demand { connections: 100_000_000, ..demand() };
    assert_eq!(
        many.forecast(&costs(), 2).unwrap_err(),
        "IPv4 flows: 100600000 are needed, and one machine's table holds 67108864 at most; share the load between machines"
    );
    let absurd =
        Demand { connections: u64::MAX, new_connections: u64::MAX, packets: u64::MAX, ipv6: 100, ..demand() };
    assert!(absurd.forecast(&costs(), 2).unwrap_err().starts_with("IPv6 flows: "));
    let ports = Demand { mode: Mode::FullNat, connections: 60_000_000, ..demand() };
    assert!(ports.forecast(&costs(), 2).unwrap_err().starts_with("source addresses: "));
}

#[test]
fn limits_that_are_planned_can_be_configured() {
    for ipv6 in [0, 1, 100] {
        let limits = Demand { ipv6, ..demand() }.forecast(&costs(), 2).unwrap().limits;
        let text = format!(
            "[limits]\nflows = {}\nflows6 = {}\nservices = {}\nbackends = {}\ntable_size = {}\n",
            limits.flows, limits.flows6, limits.services, limits.backends, limits.table_size
        );
        config::Config::parse(&text, "plan").unwrap();
    }
}
