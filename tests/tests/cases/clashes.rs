//! One client port, two virtual addresses, one backend.

use lb_common::flow::State;
use lb_common::reason::{Event, Reason};
use lb_tests::balancer::Balancer;
use lb_tests::lab::{Backend, FAMILIES, Hosts, LAN, LAN_INDEX, Lab, Service, WAN_INDEX, backend_mac};

const PORT: u16 = 40_000;

fn at(hosts: &Hosts, index: usize) -> Backend {
    Backend::at(hosts.backends[index], 8080)
}

/// Two TCP services: one with the first backend (1), one with the first and the second (2 and 3), all of whose slots but
/// the last of 500 are the first's.
fn sharing(hosts: &Hosts) -> Lab {
    let mut slots = vec![2; 500];
    slots[499] = 3;
    let first = Service::tcp(hosts.vip, 80).backend(at(hosts, 0));
    let second = Service::tcp(hosts.other_vip, 443).backend(at(hosts, 0)).backend(at(hosts, 1));
    Lab::new().service(first).service(second.slots(&slots))
}

fn flows(lb: &mut Balancer) -> Vec<(u16, u16)> {
    lb.flows().iter().map(|flow| (flow.service, flow.backend)).collect()
}

#[test]
fn a_new_flow_whose_translated_tuple_is_live_goes_to_another_backend_however_few_slots_it_has() {
    for hosts in FAMILIES {
        for state in [State::HALF_OPEN, State::ESTABLISHED, State::CLOSING] {
            let mut lb = balancer!(sharing(&hosts));
            lb.plant((hosts.client, PORT), 1, 1, state, 0);

            let run = lb.receive(&hosts.to_vip().to(hosts.other_vip).tcp(PORT, 443).syn());
            let expected = hosts.to_backend().eth(LAN, backend_mac(1)).to(hosts.backends[1]);
            run.assert_redirected(LAN_INDEX, &expected.tcp(PORT, 8080).syn());
            run.assert_counted(Reason::RequestForwarded, [Event::FlowSidestepped, Event::FlowCreated]);
            assert_eq!(flows(&mut lb), [(1, 1), (2, 3)]);

            // It stays there, and both get their replies.
            let run = lb.receive(&hosts.to_vip().to(hosts.other_vip).tcp(PORT, 443).syn());
            run.assert_counted(Reason::RequestForwarded, []);
            let reply = hosts.from_backend().eth(backend_mac(1), LAN).from(hosts.backends[1]);
            let run = lb.receive(&reply.tcp(8080, PORT).syn().ack(1));
            let expected = hosts.from_vip().from(hosts.other_vip).tcp(443, PORT).syn().ack(1);
            run.assert_redirected(WAN_INDEX, &expected);
            let run = lb.receive(&hosts.from_backend().tcp(8080, PORT).ack(1));
            run.assert_redirected(WAN_INDEX, &hosts.from_vip().tcp(80, PORT).ack(1));
        }
    }
}

#[test]
fn where_every_backend_has_one_the_new_flow_is_refused() {
    for hosts in FAMILIES {
        let mut lb = balancer!(sharing(&hosts));
        lb.plant((hosts.client, PORT), 2, 2, State::ESTABLISHED, 0);
        let run = lb.receive(&hosts.to_vip().tcp(PORT, 80).syn());
        run.assert_dropped().assert_counted(Reason::DropTupleInUse, [Event::FlowSidestepped]);
        assert_eq!(flows(&mut lb), [(2, 2)]);
    }
}

#[test]
fn nobody_else_s_port_is_in_the_way() {
    for hosts in FAMILIES {
        let mut lb = balancer!(sharing(&hosts).flow_buckets(1));
        let other = if hosts.is_v6() { "fd00:1::8" } else { "10.1.0.8" };
        lb.plant((other, PORT), 1, 1, State::ESTABLISHED, 0);
        lb.plant((hosts.client, PORT + 1), 1, 1, State::ESTABLISHED, 0);
        let run = lb.receive(&hosts.to_vip().to(hosts.other_vip).tcp(PORT, 443).syn());
        assert!(!run.counters.contains_key(Event::FlowSidestepped.name()), "{:?}", run.counters);
    }
}

#[test]
fn a_backend_of_one_service_and_another_protocol_are_in_nobody_s_way() {
    for hosts in FAMILIES {
        let tcp = Service::tcp(hosts.vip, 80).backend(at(&hosts, 0));
        let udp = Service::udp(hosts.vip, 80).backend(at(&hosts, 0));
        let mut lb = balancer!(Lab::new().service(tcp).service(udp));
        lb.plant((hosts.client, PORT), 1, 1, State::ESTABLISHED, 0);
        let run = lb.receive(&hosts.to_vip().udp(PORT, 80));
        run.assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
    }
}

#[test]
fn a_connection_that_begins_anew_is_asked_too() {
    for hosts in FAMILIES {
        let mut lb = balancer!(sharing(&hosts));
        lb.plant((hosts.client, PORT), 2, 3, State::CLOSING, 0);
        lb.plant((hosts.client, PORT), 1, 1, State::ESTABLISHED, 0);
        let run = lb.receive(&hosts.to_vip().to(hosts.other_vip).tcp(PORT, 443).syn());
        run.assert_counted(Reason::RequestForwarded, [Event::FlowSidestepped, Event::FlowCreated]);
        assert_eq!(flows(&mut lb), [(1, 1), (2, 3)]);
    }
}

#[test]
fn a_backend_s_own_clients_direct_access_and_probes_pass_untouched() {
    for hosts in FAMILIES {
        let mut lb = balancer!(sharing(&hosts));
        lb.plant((hosts.client, PORT), 1, 1, State::ESTABLISHED, 0);
        for (packet, reason) in [
            // The backend as a client: out, and what comes back.
            (hosts.from_backend().to(hosts.stranger).tcp(50_000, 80).syn(), Reason::PassNotOurs),
            (
                hosts.to_vip().from(hosts.stranger).to(hosts.backends[0]).tcp(80, 50_000).syn().ack(1),
                Reason::PassNotOurs,
            ),
            // A client that talks to the backend directly, with the balancer as its router.
            (hosts.to_vip().to(hosts.backends[0]).tcp(PORT + 1, 8080).syn(), Reason::PassNotOurs),
            (hosts.from_backend().tcp(8080, PORT + 1).syn().ack(1), Reason::PassReplyWithoutFlow),
            (hosts.from_backend().udp(8080, PORT), Reason::PassNotOurs),
            // What answers a health check.
            (
                hosts.from_backend().to(hosts.clients.local).tcp(8080, PORT).syn().ack(1),
                Reason::PassReplyWithoutFlow,
            ),
        ] {
            lb.receive(&packet).assert_untouched().assert_counted(reason, []);
        }
        assert_eq!(flows(&mut lb), [(1, 1)]);
    }
}
