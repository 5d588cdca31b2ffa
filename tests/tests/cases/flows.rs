//! Which backend a flow has, and for how long.

use lb_common::flow::State;
use lb_common::reason::{Event, Reason};
use lb_tests::lab::{Backend, FAMILIES, LAN, LAN_INDEX, Lab, Service, backend_mac};

const PORT: u16 = 40_000;

#[test]
fn a_flow_of_a_dead_backend_gets_another() {
    for hosts in FAMILIES {
        let first = Backend::at(hosts.backends[0], 8080).dead();
        let second = Backend::at(hosts.backends[1], 8080);
        let mut lb =
            balancer!(Lab::new().service(Service::tcp(hosts.vip, 80).backend(first).backend(second)));
        lb.plant((hosts.client, PORT), 1, 1, State::ESTABLISHED, 0);

        let run = lb.receive(&hosts.to_vip().tcp(PORT, 80).ack(1));

        let expected = hosts.to_backend().eth(LAN, backend_mac(1)).to(hosts.backends[1]);
        run.assert_redirected(LAN_INDEX, &expected.tcp(PORT, 8080).ack(1));
        run.assert_counted(Reason::RequestForwarded, [Event::FlowCreated, Event::FlowRebalanced]);
        let flows = lb.flows();
        assert_eq!((flows.len(), flows[0].backend, flows[0].state), (1, 2, "adopted"));
    }
}

#[test]
fn a_dead_backend_s_last_replies_still_reach_its_clients() {
    for hosts in FAMILIES {
        let backend = Backend::at(hosts.backends[0], 8080).dead();
        let mut lb = balancer!(Lab::new().service(Service::tcp(hosts.vip, 80).backend(backend)));
        lb.plant((hosts.client, PORT), 1, 1, State::ESTABLISHED, 0);
        let run = lb.receive(&hosts.from_backend().tcp(8080, PORT).ack(1).payload("last words"));
        run.assert_counted(Reason::ReplyForwarded, [Event::NextHopLookup]);
    }
}

#[test]
fn an_established_flow_stays_while_the_slots_change() {
    for hosts in FAMILIES {
        let [first, second] = [0, 1].map(|index| Backend::at(hosts.backends[index], 8080));
        let service = Service::tcp(hosts.vip, 80).backend(first).backend(second).slots(&[2, 2, 2]);
        let mut lb = balancer!(Lab::new().service(service));
        lb.plant((hosts.client, PORT), 1, 1, State::ESTABLISHED, 0);
        let run = lb.receive(&hosts.to_vip().tcp(PORT, 80).ack(1));
        run.assert_redirected(LAN_INDEX, &hosts.to_backend().tcp(PORT, 8080).ack(1));
        run.assert_counted(Reason::RequestForwarded, []);
    }
}

#[test]
fn one_client_port_may_have_a_flow_to_each_service() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        lb.receive(&hosts.to_vip().tcp(PORT, 80).syn());
        lb.receive(&hosts.to_vip().udp(PORT, 80));
        let flows = lb.flows();
        let services: Vec<_> = flows.iter().map(|flow| (flow.service, flow.state)).collect();
        assert_eq!(services, [(1, "half-open"), (2, "datagram")]);
    }
}

#[test]
fn new_flows_spread_over_the_slots() {
    for hosts in FAMILIES {
        let backends = [0, 1, 2, 3].map(|index| Backend::at(hosts.backends[index], 8080));
        let service = backends.into_iter().fold(Service::udp(hosts.vip, 80), Service::backend);
        let mut lb = balancer!(Lab::new().flow_buckets(4096).service(service));
        for port in 1..=2000 {
            lb.run(&hosts.to_vip().udp(port, 80).bytes());
        }
        let flows = lb.flows();
        for backend in 1..=4 {
            let share = flows.iter().filter(|flow| flow.backend == backend).count();
            // 500 expected; 5 standard deviations of a binomial share of a quarter are 97.
            assert!((403..=597).contains(&share), "backend {backend}: {share} of {}", flows.len());
        }
    }
}
