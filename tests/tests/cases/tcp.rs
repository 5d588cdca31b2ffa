//! The life of a TCP connection, as its entry in the flow table has it.

use lb_common::flow::State;
use lb_common::reason::{Event, Reason};
use lb_tests::balancer::Balancer;
use lb_tests::lab::{Backend, FAMILIES, Hosts, LAN_INDEX, Lab, Service, backend_mac};

const PORT: u16 = 40_000;

/// The state of the only flow.
fn state(lb: &mut Balancer) -> &'static str {
    let flows = lb.flows();
    assert_eq!(flows.len(), 1, "{flows:?}");
    flows[0].state
}

/// A client that has its SYN answered; the SYN-ACK's sequence number is 7000.
fn answered(lb: &mut Balancer, hosts: &Hosts) {
    lb.receive(&hosts.to_vip().tcp(PORT, 80).seq(100).syn());
    lb.receive(&hosts.from_backend().tcp(8080, PORT).seq(7000).syn().ack(101));
    assert_eq!(state(lb), "answered");
}

#[test]
fn a_connection_is_established_by_the_ack_of_its_syn_ack_and_closes_with_a_fin() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        let syn = lb.receive(&hosts.to_vip().tcp(PORT, 80).seq(100).syn());
        syn.assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
        let syn_ack = lb.receive(&hosts.from_backend().tcp(8080, PORT).seq(7000).syn().ack(101));
        syn_ack.assert_counted(Reason::ReplyForwarded, [Event::NextHopLookup]);
        assert_eq!((state(&mut lb), lb.active(1)), ("answered", 0));

        let ack = lb.receive(&hosts.to_vip().tcp(PORT, 80).seq(101).ack(7001));
        ack.assert_redirected(LAN_INDEX, &hosts.to_backend().tcp(PORT, 8080).seq(101).ack(7001));
        ack.assert_counted(Reason::RequestForwarded, [Event::FlowEstablished]);
        assert_eq!((state(&mut lb), lb.active(1)), ("established", 1));

        let fin = lb.receive(&hosts.to_vip().tcp(PORT, 80).seq(101).ack(7001).fin());
        fin.assert_counted(Reason::RequestForwarded, []);
        assert_eq!((state(&mut lb), lb.active(1)), ("closing", 0));
        let last = lb.receive(&hosts.from_backend().tcp(8080, PORT).seq(7001).ack(102).fin());
        last.assert_counted(Reason::ReplyForwarded, []);
        assert_eq!((state(&mut lb), lb.active(1)), ("closing", 0));
    }
}

#[test]
fn a_reset_from_either_side_closes() {
    for hosts in FAMILIES {
        for reset in [
            hosts.to_vip().tcp(PORT, 80).seq(101).rst(),
            hosts.from_backend().tcp(8080, PORT).seq(7001).rst().ack(101),
        ] {
            let mut lb = balancer!(Lab::web(hosts));
            answered(&mut lb, &hosts);
            lb.receive(&hosts.to_vip().tcp(PORT, 80).seq(101).ack(7001));
            lb.receive(&reset);
            assert_eq!((state(&mut lb), lb.active(1)), ("closing", 0));
        }
    }
}

#[test]
fn a_blind_ack_proves_nothing() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        answered(&mut lb, &hosts);
        for guess in [7000, 7002, 0] {
            let run = lb.receive(&hosts.to_vip().tcp(PORT, 80).seq(101).ack(guess));
            run.assert_counted(Reason::RequestForwarded, []);
        }
        assert_eq!((state(&mut lb), lb.active(1)), ("answered", 0));
    }
}

#[test]
fn a_backend_s_syn_ack_alone_proves_nothing() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        answered(&mut lb, &hosts);
        lb.receive(&hosts.from_backend().tcp(8080, PORT).seq(7001).ack(101).payload("early"));
        assert_eq!((state(&mut lb), lb.active(1)), ("answered", 0));
    }
}

#[test]
fn a_retransmitted_syn_stays_with_its_backend() {
    for hosts in FAMILIES {
        let [first, second] = [0, 1].map(|index| Backend::at(hosts.backends[index], 8080));
        let service = Service::tcp(hosts.vip, 80).backend(first).backend(second);
        let mut lb = balancer!(Lab::new().service(service.clone().slots(&[1])));
        lb.receive(&hosts.to_vip().tcp(PORT, 80).syn());
        lb.configure(&Lab::new().service(service.slots(&[2])));

        let run = lb.receive(&hosts.to_vip().tcp(PORT, 80).syn());

        run.assert_redirected(LAN_INDEX, &hosts.to_backend().tcp(PORT, 8080).syn());
        run.assert_counted(Reason::RequestForwarded, []);
        assert_eq!(state(&mut lb), "half-open");
    }
}

#[test]
fn a_syn_on_a_closing_flow_picks_a_backend_anew() {
    for hosts in FAMILIES {
        let [first, second] = [0, 1].map(|index| Backend::at(hosts.backends[index], 8080));
        let service = Service::tcp(hosts.vip, 80).backend(first).backend(second);
        let mut lb = balancer!(Lab::new().service(service.slots(&[2])));
        lb.plant((hosts.client, PORT), 1, 1, State::CLOSING, 0);

        let run = lb.receive(&hosts.to_vip().tcp(PORT, 80).syn());

        let expected = hosts.to_backend().eth(lb_tests::lab::LAN, backend_mac(1)).to(hosts.backends[1]);
        run.assert_redirected(LAN_INDEX, &expected.tcp(PORT, 8080).syn());
        run.assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
        assert_eq!((state(&mut lb), lb.flows()[0].backend), ("half-open", 2));
    }
}

#[test]
fn a_syn_does_not_overwrite_a_live_flow() {
    for hosts in FAMILIES {
        let [first, second] = [0, 1].map(|index| Backend::at(hosts.backends[index], 8080));
        let service = Service::tcp(hosts.vip, 80).backend(first).backend(second);
        let mut lb = balancer!(Lab::new().service(service.slots(&[2])));
        lb.plant((hosts.client, PORT), 1, 1, State::ESTABLISHED, 0);

        let run = lb.receive(&hosts.to_vip().tcp(PORT, 80).seq(9).syn());

        run.assert_redirected(LAN_INDEX, &hosts.to_backend().tcp(PORT, 8080).seq(9).syn());
        run.assert_counted(Reason::RequestForwarded, []);
        assert_eq!((state(&mut lb), lb.flows()[0].backend), ("established", 1));
    }
}

#[test]
fn a_connection_met_in_mid_stream_is_adopted() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        let run = lb.receive(&hosts.to_vip().tcp(PORT, 80).seq(5).ack(6).payload("more"));
        run.assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
        assert_eq!((state(&mut lb), lb.active(1)), ("adopted", 1));
    }
}

#[test]
fn the_end_of_an_unknown_connection_is_forwarded_but_not_remembered() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        for end in [hosts.to_vip().tcp(PORT, 80).ack(1).fin(), hosts.to_vip().tcp(PORT, 80).rst()] {
            let run = lb.receive(&end);
            run.assert_counted(Reason::RequestForwarded, []);
        }
        assert_eq!(lb.flows(), []);
    }
}
