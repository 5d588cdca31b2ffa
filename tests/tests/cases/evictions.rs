//! A bucket that is full: who gives way, and what becomes of who finds no room.

use lb_common::flow::State;
use lb_common::reason::{Event, Reason};
use lb_common::settings::timeout;
use lb_tests::balancer::Balancer;
use lb_tests::lab::{FAMILIES, Hosts, LAN_INDEX, Lab, WAN_INDEX};

/// Enters TCP flows into one bucket, in these states and idle for so long; returns their ports, and UDP ports whose
/// flows fall into the same bucket.
fn crowd(lb: &mut Balancer, hosts: &Hosts, states: [(State, u64); 4]) -> (Vec<u16>, Vec<u16>) {
    let mut ports = vec![1000];
    ports.extend(lb.ports_beside(hosts.client, (1000, 1), 1).into_iter().take(3));
    for (&port, (state, idle)) in ports.iter().zip(states) {
        lb.plant((hosts.client, port), 1, 1, state, idle);
    }
    (ports, lb.ports_beside(hosts.client, (1000, 1), 2))
}

fn has(lb: &mut Balancer, service: u16, port: u16) -> bool {
    lb.flows().iter().any(|flow| (flow.service, flow.client.1) == (service, port))
}

#[test]
fn idle_flows_give_way_first_then_half_open_then_closing_and_established_never() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        let states = [
            (State::CLOSING, 0),
            (State::ESTABLISHED, 0),
            (State::ESTABLISHED, timeout::ESTABLISHED + 1),
            (State::HALF_OPEN, 0),
        ];
        let (tcp, udp) = crowd(&mut lb, &hosts, states);
        for (newcomer, victim) in [(udp[0], tcp[2]), (udp[1], tcp[3]), (udp[2], tcp[0])] {
            assert!(has(&mut lb, 1, victim));
            let run = lb.receive(&hosts.to_vip().udp(newcomer, 80));
            run.assert_counted(Reason::RequestForwarded, [Event::FlowCreated, Event::FlowEvicted]);
            assert!(!has(&mut lb, 1, victim) && has(&mut lb, 2, newcomer));
        }
        let run = lb.receive(&hosts.to_vip().udp(udp[3], 80));
        run.assert_counted(Reason::RequestForwarded, [Event::FlowUntracked]);
        assert!(has(&mut lb, 1, tcp[1]), "the established flow stays");
    }
}

#[test]
fn an_established_flow_that_was_idle_too_long_stops_counting_when_it_gives_way() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        let idle = (State::ESTABLISHED, timeout::ESTABLISHED + 1);
        let (_, udp) = crowd(&mut lb, &hosts, [idle; 4]);
        let before = lb.active(1);
        lb.receive(&hosts.to_vip().udp(udp[0], 80));
        assert_eq!(lb.active(1), before - 1);
    }
}

#[test]
fn a_flow_without_room_is_balanced_all_the_same_and_so_are_its_replies() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        let (_, udp) = crowd(&mut lb, &hosts, [(State::ESTABLISHED, 0); 4]);
        for _ in 0..2 {
            let run = lb.receive(&hosts.to_vip().udp(udp[0], 80).payload("question"));
            run.assert_redirected(LAN_INDEX, &hosts.to_backend().udp(udp[0], 8080).payload("question"));
            run.assert_counted(Reason::RequestForwarded, [Event::FlowUntracked]);

            let run = lb.receive(&hosts.from_backend().udp(8080, udp[0]).payload("answer"));
            run.assert_redirected(WAN_INDEX, &hosts.from_vip().udp(80, udp[0]).payload("answer"));
            run.assert_counted(Reason::ReplyForwarded, [Event::NextHopLookup]);
        }
    }
}

#[test]
fn a_flood_of_syns_leaves_the_established_flows_alone() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts).flow_buckets(16));
        for port in 1..=32 {
            let beside = lb.ports_beside(hosts.client, (port, 1), 1);
            let crowded = lb.flows().iter().filter(|flow| beside.contains(&flow.client.1)).count();
            if crowded < 4 {
                lb.plant((hosts.client, port), 1, 1, State::ESTABLISHED, 0);
            }
        }
        let established = lb.flows();
        for port in 10_000..12_000 {
            lb.run(&hosts.to_vip().tcp(port, 80).syn().bytes());
        }
        let flows = lb.flows();
        assert!(established.iter().all(|flow| flows.contains(flow)));
    }
}
