//! A bucket that is full: who gives way, and what becomes of who finds no room.

use lb_common::flow::State;
use lb_common::reason::{Event, Reason};
use lb_common::settings::timeout;
use lb_tests::balancer::Balancer;
use lb_tests::lab::{FAMILIES, Hosts, LAN_INDEX, Lab, WAN_INDEX};

/// Ports of TCP flows in [`crowd`]'s bucket, and of UDP flows that have no other.
const TCP: [u16; 4] = [1000, 1001, 1002, 1003];
const UDP: [u16; 4] = [2000, 2001, 2002, 2003];

/// A table of one bucket, with TCP flows in these states, idle for so long.
fn crowd(hosts: &Hosts, states: [(State, u64); 4]) -> Option<Balancer> {
    let mut lb = crate::balancer(&Lab::web(*hosts).flow_buckets(1))?;
    for (port, (state, idle)) in TCP.into_iter().zip(states) {
        lb.plant((hosts.client, port), 1, 1, state, idle);
    }
    Some(lb)
}

fn has(lb: &mut Balancer, service: u16, port: u16) -> bool {
    lb.flows().iter().any(|flow| (flow.service, flow.client.1) == (service, port))
}

#[test]
fn idle_flows_give_way_first_then_half_open_then_closing_and_established_never() {
    for hosts in FAMILIES {
        let states = [
            (State::CLOSING, 0),
            (State::ESTABLISHED, 0),
            (State::ESTABLISHED, timeout::ESTABLISHED + 1),
            (State::HALF_OPEN, 0),
        ];
        let Some(mut lb) = crowd(&hosts, states) else { return };
        for (newcomer, victim) in [(UDP[0], TCP[2]), (UDP[1], TCP[3]), (UDP[2], TCP[0])] {
            assert!(has(&mut lb, 1, victim));
            let run = lb.receive(&hosts.to_vip().udp(newcomer, 80));
            run.assert_counted(Reason::RequestForwarded, [Event::FlowCreated, Event::FlowEvicted]);
            assert!(!has(&mut lb, 1, victim) && has(&mut lb, 2, newcomer));
        }
        let run = lb.receive(&hosts.to_vip().udp(UDP[3], 80));
        run.assert_counted(Reason::RequestForwarded, [Event::FlowUntracked]);
        assert!(has(&mut lb, 1, TCP[1]), "the established flow stays");
    }
}

#[test]
fn an_established_flow_that_was_idle_too_long_stops_counting_when_it_gives_way() {
    for hosts in FAMILIES {
        let idle = (State::ESTABLISHED, timeout::ESTABLISHED + 1);
        let Some(mut lb) = crowd(&hosts, [idle; 4]) else { return };
        let before = lb.active(1);
        lb.receive(&hosts.to_vip().udp(UDP[0], 80));
        assert_eq!(lb.active(1), before - 1);
    }
}

#[test]
fn a_flow_without_room_is_balanced_all_the_same_and_so_are_its_replies() {
    for hosts in FAMILIES {
        let Some(mut lb) = crowd(&hosts, [(State::ESTABLISHED, 0); 4]) else { return };
        // The first reply finds the way to the client, which is remembered for the client then.
        for events in [&[Event::NextHopLookup][..], &[]] {
            let run = lb.receive(&hosts.to_vip().udp(UDP[0], 80).payload("question"));
            run.assert_redirected(LAN_INDEX, &hosts.to_backend().udp(UDP[0], 8080).payload("question"));
            run.assert_counted(Reason::RequestForwarded, [Event::FlowUntracked]);

            let run = lb.receive(&hosts.from_backend().udp(8080, UDP[0]).payload("answer"));
            run.assert_redirected(WAN_INDEX, &hosts.from_vip().udp(80, UDP[0]).payload("answer"));
            run.assert_counted_with(Reason::ReplyForwarded, events);
        }
    }
}

#[test]
fn a_flow_whose_home_is_full_lives_in_its_second_bucket_like_any_other() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts).flow_buckets(2));
        let mut ports = (1..u16::MAX).filter(|&port| lb.choices((hosts.client, port), 1) == (0, 1));
        let ports: [u16; 5] = std::array::from_fn(|_| ports.next().expect("one port in four"));
        let [crowd @ .., guest] = ports;
        for port in crowd {
            lb.plant((hosts.client, port), 1, 1, State::ESTABLISHED, 0);
        }
        let run = lb.receive(&hosts.to_vip().tcp(guest, 80).syn());
        run.assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
        let run = lb.receive(&hosts.from_backend().tcp(8080, guest).seq(7).syn().ack(1));
        run.assert_counted(Reason::ReplyForwarded, [Event::NextHopLookup]);
        let run = lb.receive(&hosts.to_vip().tcp(guest, 80).ack(8));
        run.assert_counted(Reason::RequestForwarded, [Event::FlowEstablished]);
        let run = lb.receive(&hosts.from_backend().tcp(8080, guest).ack(1).payload("data"));
        run.assert_counted(Reason::ReplyForwarded, []);
        assert_eq!((lb.flows().len(), lb.active(1)), (5, 1), "planted flows are not counted");
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
