//! Who may send at all, and how often open a flow.

use lb_common::flow::State;
use lb_common::limit::Source as SourceWord;
use lb_common::reason::{Event, Reason};
use lb_tests::lab::{Backend, FAMILIES, Hosts, Lab, Service, V4, V6};
use lb_tests::packet::Packet;

const PORT: u16 = 40_000;

/// The TCP and the UDP service of a lab, each made into something.
fn web(hosts: &Hosts, make: impl Fn(Service) -> Service) -> Lab {
    let service = |service: Service| make(service.backend(Backend::at(hosts.backends[0], 8080)));
    Lab::new().service(service(Service::tcp(hosts.vip, 80))).service(service(Service::udp(hosts.vip, 80)))
}

/// The n-th address of a network, and one of another.
fn source(hosts: &Hosts, network: u8, host: u8) -> String {
    if hosts.is_v6() { format!("fd00:9:9:{network:x}::{host:x}") } else { format!("10.9.{network}.{host}") }
}

fn opening(hosts: &Hosts, port: u16) -> [Packet; 2] {
    [hosts.to_vip().tcp(port, 80).syn(), hosts.to_vip().udp(port, 80)]
}

#[test]
fn a_burst_of_new_flows_is_let_in_and_no_more() {
    for hosts in FAMILIES {
        let mut lb = balancer!(web(&hosts, |service| service.new_flows(3)));
        for flow in 0..5 {
            for packet in opening(&hosts, PORT + flow) {
                let run = lb.receive(&packet);
                if flow < 3 {
                    run.assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
                } else {
                    run.assert_dropped().assert_counted(Reason::DropServiceLimit, []);
                }
            }
        }
        assert_eq!(lb.flows().len(), 6);
        // Flows that there are go on, and whatever comes without one counts as new.
        lb.receive(&hosts.to_vip().tcp(PORT, 80).ack(1)).assert_counted(Reason::RequestForwarded, []);
        lb.receive(&hosts.to_vip().tcp(PORT, 80).syn()).assert_counted(Reason::RequestForwarded, []);
        for stray in [hosts.to_vip().tcp(PORT + 9, 80).ack(1), hosts.to_vip().tcp(PORT + 9, 80).rst()] {
            lb.receive(&stray).assert_dropped().assert_counted(Reason::DropServiceLimit, []);
        }
    }
}

#[test]
fn a_connection_that_begins_anew_counts_as_new_and_a_flow_whose_backend_died_does_not() {
    for hosts in FAMILIES {
        let mut lb = balancer!(web(&hosts, |service| service.new_flows(1)));
        lb.receive(&hosts.to_vip().tcp(1, 80).syn())
            .assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
        lb.plant((hosts.client, PORT), 1, 1, State::CLOSING, 0);
        let run = lb.receive(&hosts.to_vip().tcp(PORT, 80).syn());
        run.assert_dropped().assert_counted(Reason::DropServiceLimit, []);

        let dead = Backend::at(hosts.backends[1], 8080).dead();
        lb.restart(&web(&hosts, |service| service.backend(dead.clone()).new_flows(0)));
        lb.plant((hosts.client, PORT), 1, 2, State::ESTABLISHED, 0);
        let run = lb.receive(&hosts.to_vip().tcp(PORT, 80).ack(1));
        run.assert_counted(Reason::RequestForwarded, [Event::FlowCreated, Event::FlowRebalanced]);
    }
}

#[test]
fn a_source_s_flows_are_counted_by_its_prefix_and_apart_from_others() {
    for (hosts, prefix) in [(V4, 24), (V6, 64)] {
        let limited = web(&hosts, |service| service.new_flows_of_a_source(2, prefix));
        let mut lb = balancer!(limited.flow_buckets(4096));
        for network in 0..20 {
            for host in 1..=4 {
                for packet in opening(&hosts, PORT) {
                    let run = lb.receive(&packet.from(&source(&hosts, network, host)));
                    if host <= 2 {
                        run.assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
                    } else {
                        run.assert_dropped().assert_counted(Reason::DropSourceLimit, []);
                    }
                }
            }
        }
    }
}

#[test]
fn what_one_source_is_refused_costs_the_others_nothing() {
    for (hosts, prefix) in [(V4, 32), (V6, 128)] {
        let mut lb = balancer!(web(&hosts, |service| service.new_flows(2).new_flows_of_a_source(1, prefix)));
        let from = |host: u8| hosts.to_vip().from(&source(&hosts, 1, host)).tcp(PORT, 80).syn();
        lb.receive(&from(1)).assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
        for port in 1..=10 {
            let again = hosts.to_vip().from(&source(&hosts, 1, 1)).tcp(port, 80).syn();
            lb.receive(&again).assert_dropped().assert_counted(Reason::DropSourceLimit, []);
        }
        lb.receive(&from(2)).assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
        lb.receive(&from(3)).assert_dropped().assert_counted(Reason::DropServiceLimit, []);
    }
}

#[test]
fn a_source_that_finds_no_room_is_let_in_uncounted() {
    for (hosts, prefix) in [(V4, 32), (V6, 128)] {
        let mut lb = balancer!(web(&hosts, |service| service.new_flows_of_a_source(1, prefix)));
        // Sources of another age, all of them busy: no tag is like the client's.
        let jiffies = lb.jiffies();
        for line in lb.rows().sources {
            for (way, word) in line.sources.iter().enumerate() {
                let busy = SourceWord::new((way as u64) << 60, (jiffies + 1000) << 20);
                word.store(busy.0 | 1 << 49);
            }
        }
        for port in 1..=3 {
            let run = lb.receive(&hosts.to_vip().tcp(port, 80).syn());
            run.assert_counted(Reason::RequestForwarded, [Event::SourceUncounted, Event::FlowCreated]);
        }
    }
}

#[test]
fn a_denied_client_is_turned_away_with_an_open_connection_too_and_gets_no_answer() {
    for (hosts, network, prefix) in [(V4, "10.1.0.0", 24), (V6, "fd00:1::", 32)] {
        let mut lb = balancer!(web(&hosts, |service| service.deny(network, prefix)));
        lb.plant((hosts.client, PORT), 1, 1, State::ESTABLISHED, 0);
        for packet in [
            hosts.to_vip().tcp(PORT, 80).ack(1),
            hosts.to_vip().tcp(PORT + 1, 80).syn(),
            hosts.to_vip().tcp(PORT, 80).ttl(1).ack(1),
            hosts.to_vip().udp(PORT, 80),
            hosts.to_vip().vlan(100).tcp(PORT, 80).ack(1),
        ] {
            lb.receive(&packet).assert_dropped().assert_counted(Reason::DropDenied, []);
        }
        for packet in opening(&hosts, PORT) {
            let run = lb.receive(&packet.from(&source(&hosts, 1, 1)));
            run.assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
        }
    }
}

#[test]
fn the_longest_prefix_decides_and_an_allow_list_shuts_out_the_rest() {
    for (hosts, wide, narrow) in
        [(V4, ("10.9.0.0", 16), ("10.9.2.0", 24)), (V6, ("fd00:9:9::", 48), ("fd00:9:9:2::", 64))]
    {
        let host = source(&hosts, 2, 7);
        let longest = if hosts.is_v6() { 128 } else { 32 };
        let mut lb = balancer!(web(&hosts, |service| {
            service.allow(wide.0, wide.1).deny(narrow.0, narrow.1).allow(&host, longest)
        }));
        for (network, number, allowed) in
            [(1, 1, true), (2, 1, false), (2, 7, true), (2, 8, false), (255, 255, true)]
        {
            for packet in opening(&hosts, PORT) {
                let run = lb.receive(&packet.from(&source(&hosts, network, number)));
                let reason = if allowed { Reason::RequestForwarded } else { Reason::DropDenied };
                assert_eq!(
                    run.counters.get(reason.name()),
                    Some(&1),
                    "{network}.{number}: {:?}",
                    run.counters
                );
            }
        }
        lb.receive(&hosts.to_vip().tcp(PORT, 80).syn())
            .assert_dropped()
            .assert_counted(Reason::DropDenied, []);
    }
}

#[test]
fn one_service_s_lists_and_limits_are_not_another_s() {
    for (hosts, everybody) in [(V4, "0.0.0.0"), (V6, "::")] {
        let tcp = Service::tcp(hosts.vip, 80).backend(Backend::at(hosts.backends[0], 8080));
        let closed = Service::udp(hosts.vip, 80).deny(everybody, 0).new_flows(0);
        let mut lb = balancer!(Lab::new().service(tcp).service(closed));
        lb.receive(&hosts.to_vip().udp(PORT, 80)).assert_dropped().assert_counted(Reason::DropDenied, []);
        lb.receive(&hosts.to_vip().tcp(PORT, 80).syn())
            .assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
    }
}
