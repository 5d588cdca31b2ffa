//! What a strategy does with new flows, with unknown ones, and where the flow table is full.

use std::collections::BTreeMap;

use lb_common::flow::State;
use lb_common::reason::{Event, Reason};
use lb_common::service::Index;
use lb_tests::balancer::Balancer;
use lb_tests::lab::{Backend, FAMILIES, Hosts, Lab, Service};

const PORT: u16 = 40_000;
/// The index functions that do not compute a slot from the packet.
const DRAWN: [Index; 4] = [Index::RoundRobin, Index::Random, Index::LeastConnections, Index::LeastLatency];

fn lab(hosts: &Hosts, index: Index, backends: usize) -> Lab {
    let service = |service: Service| {
        (0..backends)
            .map(|at| Backend::at(hosts.backends[at], 8080))
            .fold(service.by(index), Service::backend)
    };
    let tcp = service(Service::tcp(hosts.vip, 80));
    Lab::new().flow_buckets(4096).service(tcp).service(service(Service::udp(hosts.vip, 80)))
}

/// Flows of each backend of the TCP service.
fn spread(lb: &mut Balancer) -> BTreeMap<u16, usize> {
    lb.flows().iter().fold(BTreeMap::new(), |mut counts, flow| {
        *counts.entry(flow.backend).or_default() += 1;
        counts
    })
}

#[test]
fn turns_go_round() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(&hosts, Index::RoundRobin, 3));
        for port in 1..=300 {
            lb.run(&hosts.to_vip().tcp(port, 80).syn().bytes());
            // A retransmission is no new flow, and nobody's turn.
            lb.run(&hosts.to_vip().tcp(port, 80).syn().bytes());
        }
        assert_eq!(spread(&mut lb), [(1, 100), (2, 100), (3, 100)].into());
    }
}

#[test]
fn a_client_is_sent_to_one_backend_by_source_hash() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(&hosts, Index::Source, 4));
        for port in 1..=100 {
            lb.run(&hosts.to_vip().tcp(port, 80).syn().bytes());
        }
        let spread = spread(&mut lb);
        assert_eq!(spread.values().collect::<Vec<_>>(), [&100], "{spread:?}");
    }
}

#[test]
fn chance_reaches_everybody() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(&hosts, Index::Random, 4));
        for port in 1..=2000 {
            lb.run(&hosts.to_vip().tcp(port, 80).syn().bytes());
        }
        let spread = spread(&mut lb);
        // 500 expected; 5 standard deviations are 97.
        assert!((1..=4).all(|id| (403..=597).contains(&spread[&id])), "{spread:?}");
    }
}

#[test]
fn half_open_flows_count_as_load_so_that_a_burst_is_spread() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(&hosts, Index::LeastConnections, 3));
        for port in 1..=300 {
            lb.run(&hosts.to_vip().tcp(port, 80).syn().bytes());
        }
        let spread = spread(&mut lb);
        assert!((1..=3).all(|id| (95..=105).contains(&spread[&id])), "{spread:?}");
        let loads: Vec<_> = lb.rows().loads[1..=3].iter().map(|load| load.active.load() as usize).collect();
        assert_eq!(loads, spread.values().copied().collect::<Vec<_>>());
    }
}

#[test]
fn a_backend_that_keeps_its_flows_gets_no_more_than_the_others_have() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(&hosts, Index::LeastConnections, 3));
        lb.rows().loads[2].active.store(1000);
        for port in 1..=300 {
            lb.run(&hosts.to_vip().tcp(port, 80).syn().bytes());
        }
        assert_eq!(spread(&mut lb).get(&2), None);
    }
}

#[test]
fn load_comes_and_goes_with_the_flow() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(&hosts, Index::LeastConnections, 1));
        let load = |lb: &mut Balancer| lb.rows().loads[1].active.load();
        lb.receive(&hosts.to_vip().tcp(PORT, 80).seq(7).syn());
        assert_eq!(load(&mut lb), 1);
        lb.receive(&hosts.from_backend().tcp(8080, PORT).seq(41).syn().ack(8));
        lb.receive(&hosts.to_vip().tcp(PORT, 80).seq(8).ack(42));
        assert_eq!((load(&mut lb), lb.active(1)), (1, 1));
        lb.receive(&hosts.to_vip().tcp(PORT, 80).seq(8).ack(42).fin());
        assert_eq!((load(&mut lb), lb.active(1)), (0, 0));
        lb.receive(&hosts.to_vip().tcp(PORT, 80).seq(700).syn());
        assert_eq!((load(&mut lb), lb.active(1)), (1, 0), "the port is used again");
    }
}

#[test]
fn the_middle_of_an_unknown_stream_is_reset_where_its_backend_cannot_be_computed() {
    for (hosts, index) in FAMILIES.into_iter().flat_map(|hosts| DRAWN.map(|index| (hosts, index))) {
        let mut lb = balancer!(lab(&hosts, index, 2));
        for segment in
            [hosts.to_vip().tcp(PORT, 80).seq(5).ack(9), hosts.to_vip().tcp(PORT, 80).seq(5).ack(9).fin()]
        {
            let run = lb.receive(&segment);
            run.assert_transmitted(&hosts.answer().df().tcp(80, PORT).window(0).seq(9).rst());
            run.assert_counted(Reason::ResetUnknownFlow, []);
        }
        let run = lb.receive(&hosts.to_vip().tcp(PORT, 80).seq(5).rst());
        run.assert_dropped().assert_counted(Reason::DropUnknownFlow, []);
        assert_eq!(lb.flows(), []);
    }
}

#[test]
fn without_room_the_flow_is_dropped_where_its_backend_cannot_be_computed() {
    for (hosts, index) in FAMILIES.into_iter().flat_map(|hosts| DRAWN.map(|index| (hosts, index))) {
        let mut lb = balancer!(lab(&hosts, index, 2).flow_buckets(1));
        let mut port = 1;
        // One bucket, or two where flows have a second choice: full of flows that stay.
        let refused = loop {
            let run = lb.receive(&hosts.to_vip().udp(port, 80));
            port += 1;
            if run.counters.contains_key(Reason::DropFlowTableFull.name()) {
                break run;
            }
            assert!(port < 100, "the table is never full");
        };
        refused.assert_dropped().assert_counted(Reason::DropFlowTableFull, []);
        let known = lb.flows().len();
        lb.receive(&hosts.to_vip().tcp(PORT, 80).syn()).assert_counted(Reason::DropFlowTableFull, []);
        assert_eq!(lb.flows().len(), known);
        // Those that are known go on.
        let run = lb.receive(&hosts.to_vip().udp(1, 80));
        run.assert_counted(Reason::RequestForwarded, []);
    }
}

#[test]
fn a_tracked_flow_stays_through_every_change_of_strategy() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(&hosts, Index::Flow, 4));
        lb.plant((hosts.client, PORT), 1, 3, State::ESTABLISHED, 0);
        let before = lb.flows();
        for index in DRAWN.into_iter().chain([Index::Source, Index::Flow]) {
            lb.configure(&lab(&hosts, index, 4));
            for _ in 0..10 {
                lb.receive(&hosts.to_vip().tcp(PORT, 80).ack(1)).assert_counted(Reason::RequestForwarded, []);
            }
        }
        assert_eq!(lb.flows(), before);
    }
}

#[test]
fn a_flow_of_a_dead_backend_is_given_one_that_lives() {
    for (hosts, index) in FAMILIES.into_iter().flat_map(|hosts| DRAWN.map(|index| (hosts, index))) {
        let dead = Backend::at(hosts.backends[0], 8080).dead();
        let service = Service::tcp(hosts.vip, 80).by(index).backend(dead);
        let mut lb = balancer!(Lab::new().service(service.backend(Backend::at(hosts.backends[1], 8080))));
        lb.plant((hosts.client, PORT), 1, 1, State::ESTABLISHED, 0);
        let run = lb.receive(&hosts.to_vip().tcp(PORT, 80).ack(1));
        run.assert_counted(Reason::RequestForwarded, [Event::FlowCreated, Event::FlowRebalanced]);
        assert_eq!(lb.flows()[0].backend, 2);
    }
}
