//! Tracking by exception: slots that have not changed need no flow table, and slots that have keep old flows where they
//! are.

use lb_common::reason::{Event, Reason};
use lb_common::slot::Owners;
use lb_tests::balancer::Balancer;
use lb_tests::lab::{
    Backend, FAMILIES, Hosts, LAN, LAN_INDEX, Lab, ROUTER, Service, WAN, WAN_INDEX, backend_mac,
};
use lb_tests::packet::{Packet, packet};

const PORT: u16 = 40_000;

/// A TCP and a UDP service that track by exception, with two backends each (1 and 2; 3 and 4) and one slot, which
/// belongs to the first and, if `changed`, to the second since.
fn lab(hosts: &Hosts, changed: bool) -> Lab {
    let backend = |index: usize| Backend::at(hosts.backends[index], 8080);
    let owners = if changed { Owners::clean(1).given_to(2) } else { Owners::clean(1) };
    let service = |service: Service| service.backend(backend(0)).backend(backend(1)).by_exception(&[owners]);
    Lab::new().service(service(Service::tcp(hosts.vip, 80))).service(service(Service::udp(hosts.vip, 80)))
}

fn flows(lb: &mut Balancer) -> Vec<(u16, &'static str)> {
    lb.flows().iter().map(|flow| (flow.backend, flow.state)).collect()
}

/// To the backend that is the `index`th of its service.
fn to(hosts: &Hosts, index: usize) -> Packet {
    hosts.to_backend().eth(LAN, backend_mac(index)).to(hosts.backends[index])
}

fn from(hosts: &Hosts, index: usize) -> Packet {
    hosts.from_backend().from(hosts.backends[index])
}

#[test]
fn a_clean_slot_needs_no_flow_table() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(&hosts, false));
        let run = lb.receive(&hosts.to_vip().tcp(PORT, 80).syn());
        run.assert_redirected(LAN_INDEX, &to(&hosts, 0).tcp(PORT, 8080).syn());
        run.assert_counted(Reason::RequestForwarded, []);
        // The next hop is remembered for the client, not for its flow.
        for (port, events) in [(PORT, &[Event::NextHopLookup][..]), (PORT, &[]), (PORT + 1, &[])] {
            let run = lb.receive(&from(&hosts, 0).tcp(8080, port).ack(1).payload("data"));
            run.assert_redirected(WAN_INDEX, &hosts.from_vip().tcp(80, port).ack(1).payload("data"));
            run.assert_counted_with(Reason::ReplyForwarded, events);
        }
        lb.receive(&hosts.to_vip().udp(PORT, 80)).assert_counted(Reason::RequestForwarded, []);
        lb.receive(&hosts.to_vip().tcp(PORT, 80).fin()).assert_counted(Reason::RequestForwarded, []);
        assert_eq!(flows(&mut lb), []);
    }
}

#[test]
fn the_other_backends_own_traffic_passes() {
    for hosts in FAMILIES {
        for changed in [false, true] {
            let mut lb = balancer!(lab(&hosts, changed));
            let run = lb.receive(&from(&hosts, 1).tcp(8080, PORT).ack(1));
            run.assert_untouched().assert_counted(Reason::PassReplyWithoutFlow, []);
        }
    }
}

#[test]
fn after_a_change_new_connections_go_to_the_new_owner_and_old_ones_stay() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(&hosts, true));
        let syn = lb.receive(&hosts.to_vip().tcp(PORT, 80).syn());
        syn.assert_redirected(LAN_INDEX, &to(&hosts, 1).tcp(PORT, 8080).syn());
        syn.assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
        let data = lb.receive(&hosts.to_vip().tcp(PORT + 1, 80).ack(7).payload("data"));
        data.assert_redirected(LAN_INDEX, &to(&hosts, 0).tcp(PORT + 1, 8080).ack(7).payload("data"));
        data.assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
        let datagram = lb.receive(&hosts.to_vip().udp(PORT, 80));
        datagram.assert_redirected(LAN_INDEX, &to(&hosts, 0).udp(PORT, 8080));
        let mut remembered = flows(&mut lb);
        remembered.sort_unstable();
        assert_eq!(remembered, [(1, "adopted"), (2, "half-open"), (3, "datagram")]);
    }
}

#[test]
fn the_end_of_an_old_connection_is_not_remembered() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(&hosts, true));
        for packet in [hosts.to_vip().tcp(PORT, 80).fin(), hosts.to_vip().tcp(PORT, 80).rst()] {
            lb.receive(&packet).assert_counted(Reason::RequestForwarded, []);
        }
        assert_eq!(flows(&mut lb), []);
    }
}

#[test]
fn a_forged_syn_does_not_take_an_old_flow_away() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(&hosts, true));
        lb.receive(&hosts.to_vip().tcp(PORT, 80).syn());
        let data = lb.receive(&hosts.to_vip().tcp(PORT, 80).seq(5).ack(9).payload("data"));
        data.assert_redirected(LAN_INDEX, &to(&hosts, 0).tcp(PORT, 8080).seq(5).ack(9).payload("data"));
        let reply = lb.receive(&from(&hosts, 0).tcp(8080, PORT).seq(9).ack(6).payload("more"));
        reply.assert_redirected(WAN_INDEX, &hosts.from_vip().tcp(80, PORT).seq(9).ack(6).payload("more"));
        assert_eq!(flows(&mut lb), [(2, "half-open")]);
    }
}

#[test]
fn the_right_acknowledgement_makes_an_entry_decide() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(&hosts, true));
        lb.receive(&hosts.to_vip().tcp(PORT, 80).syn());
        let answer = lb.receive(&from(&hosts, 1).tcp(8080, PORT).seq(70_000).syn().ack(1));
        answer.assert_redirected(WAN_INDEX, &hosts.from_vip().tcp(80, PORT).seq(70_000).syn().ack(1));
        lb.receive(&hosts.to_vip().tcp(PORT, 80).ack(70_001));
        assert_eq!(flows(&mut lb), [(2, "established")]);
        let data = lb.receive(&hosts.to_vip().tcp(PORT, 80).ack(70_009).payload("data"));
        data.assert_redirected(LAN_INDEX, &to(&hosts, 1).tcp(PORT, 8080).ack(70_009).payload("data"));
        // What the former owner says to the same client is its own by now.
        let run = lb.receive(&from(&hosts, 0).tcp(8080, PORT).ack(1));
        run.assert_untouched().assert_counted(Reason::PassReplyWithoutFlow, []);
    }
}

#[test]
fn a_late_answer_of_the_former_owner_is_dropped() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(&hosts, true));
        // Its SYN went to the former owner before the slot changed; the client's second one did not.
        lb.receive(&hosts.to_vip().tcp(PORT, 80).syn());
        let run = lb.receive(&from(&hosts, 0).tcp(8080, PORT).seq(1).syn().ack(1));
        run.assert_counted(Reason::ResetSynAckStale, []);
        // Where no second one came, the answer is the flow's.
        let run = lb.receive(&from(&hosts, 0).tcp(8080, PORT + 1).seq(1).syn().ack(1));
        run.assert_redirected(WAN_INDEX, &hosts.from_vip().tcp(80, PORT + 1).seq(1).syn().ack(1));
    }
}

#[test]
fn a_slot_without_an_owner_has_old_flows_only() {
    for hosts in FAMILIES {
        let owners = Owners::clean(1).given_to(0);
        let service = Service::tcp(hosts.vip, 80).backend(Backend::at(hosts.backends[0], 8080));
        let mut lb = balancer!(Lab::new().service(service.by_exception(&[owners])));
        let data = lb.receive(&hosts.to_vip().tcp(PORT, 80).ack(7));
        data.assert_redirected(LAN_INDEX, &to(&hosts, 0).tcp(PORT, 8080).ack(7));
        let syn = lb.receive(&hosts.to_vip().tcp(PORT + 1, 80).syn());
        syn.assert_counted(Reason::ResetNoBackend, []);
    }
}

#[test]
fn an_error_about_an_old_flow_reaches_its_backend_and_its_client() {
    for hosts in FAMILIES {
        for changed in [false, true] {
            let mut lb = balancer!(lab(&hosts, changed));
            let reply = hosts.from_vip().tcp(80, PORT).ack(1).payload(vec![9; 300]);
            let to_vip = packet().eth(ROUTER, WAN).ip(hosts.router, hosts.vip);
            let run = lb.receive(&to_vip.too_big(1280).quoting(&reply, 9999));
            let known = hosts.from_backend().ttl(63).tcp(8080, PORT).ack(1).payload(vec![9; 300]);
            let expected = hosts.to_backend().from(hosts.router).too_big(1280).quoting(&known, 9999);
            run.assert_redirected(LAN_INDEX, &expected).assert_counted(Reason::IcmpToBackend, []);

            let request = hosts.to_backend().tcp(PORT, 8080).ack(1).payload(vec![9; 300]);
            let to_client = packet().eth(backend_mac(0), LAN).ip(hosts.router, hosts.client);
            let run = lb.receive(&to_client.too_big(1280).quoting(&request, 9999));
            let sent = hosts.to_vip().ttl(63).tcp(PORT, 80).ack(1).payload(vec![9; 300]);
            let expected = hosts.from_vip().from(hosts.router).too_big(1280).quoting(&sent, 9999);
            run.assert_redirected(WAN_INDEX, &expected);
            run.assert_counted(Reason::IcmpToClient, [Event::NextHopLookup]);
        }
    }
}

#[test]
fn who_cannot_be_a_client_has_no_flow() {
    for hosts in FAMILIES {
        let nobody = if hosts.is_v6() { "ff02::1" } else { "224.0.0.1" };
        for changed in [false, true] {
            let mut lb = balancer!(lab(&hosts, changed));
            let run = lb.receive(&hosts.to_vip().from(nobody).tcp(PORT, 80).syn());
            run.assert_dropped().assert_counted(Reason::DropSourceInvalid, []);
            let run = lb.receive(&from(&hosts, 0).to(nobody).tcp(8080, PORT).ack(1));
            run.assert_untouched().assert_counted(Reason::PassReplyWithoutFlow, []);
        }
    }
}
