//! What a flow meets whose backend is gone, where its service does not give it another.

use lb_common::flow::State;
use lb_common::reason::{Event, Reason};
use lb_tests::balancer::Balancer;
use lb_tests::lab::{Backend, FAMILIES, Hosts, Lab, Service};
use lb_tests::packet::Packet;

const PORT: u16 = 40_000;

/// A TCP and a UDP service that reset, each with a dead backend (1 and 3) and one that serves (2 and 4).
fn resetting(hosts: &Hosts) -> Lab {
    let [first, second] = [0, 1].map(|index| Backend::at(hosts.backends[index], 8080));
    let service =
        |service: Service| service.backend(first.clone().dead()).backend(second.clone()).resetting();
    Lab::new().service(service(Service::tcp(hosts.vip, 80))).service(service(Service::udp(hosts.vip, 80)))
}

fn states(lb: &mut Balancer) -> Vec<(u16, &'static str)> {
    lb.flows().iter().map(|flow| (flow.backend, flow.state)).collect()
}

#[test]
fn a_tcp_flow_is_reset_and_whatever_of_it_follows_too() {
    for hosts in FAMILIES {
        let mut lb = balancer!(resetting(&hosts));
        lb.plant((hosts.client, PORT), 1, 1, State::ESTABLISHED, 0);
        let active = lb.active(1);
        for sequence in [5, 9] {
            let run = lb.receive(&hosts.to_vip().tcp(PORT, 80).seq(sequence).ack(777).payload("data"));
            run.assert_transmitted(&hosts.answer().df().tcp(80, PORT).window(0).seq(777).rst());
            run.assert_counted(Reason::ResetBackendDown, []);
            assert_eq!(states(&mut lb), [(1, "closing")]);
            assert_eq!(lb.active(1), active - 1, "ended once");
        }
    }
}

#[test]
fn a_new_connection_from_the_same_port_goes_to_another_backend() {
    for hosts in FAMILIES {
        for state in [State::HALF_OPEN, State::ANSWERED, State::ESTABLISHED, State::CLOSING] {
            let mut lb = balancer!(resetting(&hosts));
            lb.plant((hosts.client, PORT), 1, 1, state, 0);
            let run = lb.receive(&hosts.to_vip().tcp(PORT, 80).syn());
            let rebalanced: &[Event] = match state {
                State::CLOSING => &[Event::FlowCreated],
                _ => &[Event::FlowCreated, Event::FlowRebalanced],
            };
            run.assert_counted_with(Reason::RequestForwarded, rebalanced);
            assert_eq!(states(&mut lb), [(2, "half-open")]);
        }
    }
}

#[test]
fn a_client_s_own_reset_is_not_answered() {
    for hosts in FAMILIES {
        let mut lb = balancer!(resetting(&hosts));
        lb.plant((hosts.client, PORT), 1, 1, State::ESTABLISHED, 0);
        let run = lb.receive(&hosts.to_vip().tcp(PORT, 80).rst());
        run.assert_dropped().assert_counted(Reason::DropBackendDown, []);
        assert_eq!(states(&mut lb), [(1, "closing")]);
    }
}

#[test]
fn a_datagram_flow_is_told_once_and_the_next_datagram_opens_another() {
    for hosts in FAMILIES {
        let mut lb = balancer!(resetting(&hosts));
        lb.plant((hosts.client, PORT), 2, 3, State::DATAGRAM, 0);
        let active = lb.active(3);
        let datagram = hosts.to_vip().udp(PORT, 80).payload("question");
        let quoted = datagram.ip_bytes().len() / 4 * 4;

        let run = lb.receive(&datagram);
        run.assert_transmitted(&hosts.answer().df().port_unreachable().quoting(&datagram, quoted));
        run.assert_counted(Reason::UnreachableBackendDown, []);
        assert_eq!((lb.flows().len(), lb.active(3)), (0, active - 1));

        lb.receive(&datagram).assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
        assert_eq!(states(&mut lb), [(4, "datagram")]);
    }
}

#[test]
fn without_an_answer_in_the_budget_the_datagram_is_dropped() {
    for hosts in FAMILIES {
        let mut lb = balancer!(resetting(&hosts).icmp_errors(0));
        lb.plant((hosts.client, PORT), 2, 3, State::DATAGRAM, 0);
        let run = lb.receive(&hosts.to_vip().udp(PORT, 80));
        run.assert_dropped().assert_counted(Reason::DropBackendDown, []);
    }
}

#[test]
fn a_later_fragment_is_not_answered_and_does_not_end_the_flow() {
    for hosts in FAMILIES {
        let mut lb = balancer!(resetting(&hosts));
        let datagram: Packet = hosts.to_vip().udp(PORT, 80).payload(vec![1; 2000]);
        lb.plant((hosts.client, PORT), 2, 4, State::DATAGRAM, 0);
        lb.receive(&datagram.clone().fragment(8, 0..1200)).assert_counted(Reason::RequestForwarded, []);
        lb.configure(&resetting(&hosts));
        lb.rows().backends[4].state.store(0);
        let run = lb.receive(&datagram.fragment(8, 1200..2008));
        run.assert_dropped().assert_counted(Reason::DropBackendDown, []);
        assert_eq!(states(&mut lb), [(4, "datagram")]);
    }
}

#[test]
fn it_does_not_matter_whether_another_backend_is_there() {
    for hosts in FAMILIES {
        let dead = Backend::at(hosts.backends[0], 8080).dead();
        let mut lb =
            balancer!(Lab::new().service(Service::tcp(hosts.vip, 80).backend(dead).resetting().silent()));
        lb.plant((hosts.client, PORT), 1, 1, State::ESTABLISHED, 0);
        lb.receive(&hosts.to_vip().tcp(PORT, 80).ack(1)).assert_counted(Reason::ResetBackendDown, []);
        // A new flow meets what the service has for it while there is no backend.
        let run = lb.receive(&hosts.to_vip().tcp(PORT, 80).syn());
        run.assert_dropped().assert_counted(Reason::DropNoBackend, []);
    }
}
