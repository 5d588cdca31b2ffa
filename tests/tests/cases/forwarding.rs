//! Requests to a backend and replies to the client; everything else passes.

use lb_common::reason::{Event, Reason};
use lb_tests::lab::{Backend, FAMILIES, LAN_INDEX, Lab, Service, V4, V6, WAN_INDEX, lan_hop};
use lb_tests::packet::packet;

#[test]
fn a_syn_goes_to_a_backend_and_is_remembered() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));

        let run = lb.receive(&hosts.to_vip().tcp(40_000, 80).syn());

        run.assert_redirected(LAN_INDEX, &hosts.to_backend().tcp(40_000, 8080).syn());
        run.assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
        let flows = lb.flows();
        assert_eq!(flows.len(), 1);
        assert_eq!((flows[0].client.1, flows[0].service, flows[0].backend), (40_000, 1, 1));
        assert_eq!(flows[0].state, "half-open");
    }
}

#[test]
fn a_datagram_goes_to_a_backend_and_its_reply_comes_from_the_vip() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));

        let run = lb.receive(&hosts.to_vip().udp(5000, 80).payload("question"));
        run.assert_redirected(LAN_INDEX, &hosts.to_backend().udp(5000, 8080).payload("question"));
        run.assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);

        // The first reply finds the way to the client, the second knows it.
        for events in [&[Event::NextHopLookup][..], &[]] {
            let run = lb.receive(&hosts.from_backend().udp(8080, 5000).payload("answer"));
            run.assert_redirected(WAN_INDEX, &hosts.from_vip().udp(80, 5000).payload("answer"));
            run.assert_counted_with(Reason::ReplyForwarded, events);
        }
    }
}

#[test]
fn a_backend_behind_the_interface_that_requests_come_in_by_is_sent_to_without_a_redirect() {
    for hosts in FAMILIES {
        let mut hop = lan_hop(0);
        hop.ifindex = lb_tests::lab::INGRESS_INDEX;
        let backend = Backend::at(hosts.backends[0], 8080).by(hop);
        let mut lb = balancer!(Lab::new().service(Service::tcp(hosts.vip, 80).backend(backend)));
        let run = lb.receive(&hosts.to_vip().tcp(40_000, 80).syn());
        run.assert_transmitted(&hosts.to_backend().tcp(40_000, 8080).syn());
    }
}

#[test]
fn padding_behind_a_short_packet_stays_where_it_is() {
    let mut lb = balancer!(Lab::web(V4));
    let run = lb.receive(&V4.to_vip().tcp(40_000, 80).syn().padded(6));
    run.assert_redirected(LAN_INDEX, &V4.to_backend().tcp(40_000, 8080).syn().padded(6));
}

#[test]
fn a_reply_without_a_flow_is_the_backend_s_own_traffic_and_passes() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        let run = lb.receive(&hosts.from_backend().tcp(8080, 40_000).ack(1));
        run.assert_untouched().assert_counted(Reason::PassReplyWithoutFlow, []);
    }
}

#[test]
fn what_is_not_ip_passes() {
    let mut lb = balancer!(Lab::web(V4));
    for ethertype in [0x0806, 0x88cc, 0x0000, 0x8863] {
        let run = lb.receive(&packet().ethertype(ethertype).padded(46));
        run.assert_untouched().assert_counted(Reason::PassNotIp, []);
    }
}

#[test]
fn what_goes_to_no_service_passes() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        for ours_no_more in [
            hosts.to_vip().tcp(40_000, 81).syn(),
            hosts.to_vip().udp(40_000, 81),
            hosts.to_vip().protocol(47).payload("tunnelled"),
            hosts.to_vip().to(hosts.stranger).tcp(40_000, 80).syn(),
            hosts.to_vip().to(hosts.stranger).echo_request(1, 1),
            hosts.to_vip().to(hosts.backends[0]).tcp(40_000, 8080).syn(),
            hosts.to_vip().ttl(1).to(hosts.stranger).tcp(40_000, 80).syn(),
        ] {
            let run = lb.receive(&ours_no_more);
            run.assert_untouched().assert_counted(Reason::PassNotOurs, []);
        }
    }
}

#[test]
fn a_tcp_service_s_address_is_not_a_udp_service_s() {
    for hosts in FAMILIES {
        let backend = Backend::at(hosts.backends[0], 8080);
        let mut lb = balancer!(Lab::new().service(Service::tcp(hosts.vip, 80).backend(backend)));
        let run = lb.receive(&hosts.to_vip().udp(40_000, 80));
        run.assert_untouched().assert_counted(Reason::PassNotOurs, []);
    }
}

#[test]
fn a_source_that_cannot_be_a_client_opens_no_flow() {
    let no_clients = [
        (V4, &["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"][..]),
        (V6, &["::", "::1", "ff02::1", "ff0e::7"][..]),
    ];
    for (hosts, sources) in no_clients {
        let mut lb = balancer!(Lab::web(hosts));
        for source in sources {
            for packet in [hosts.to_vip().tcp(40_000, 80).syn(), hosts.to_vip().udp(40_000, 80)] {
                let run = lb.receive(&packet.from(source));
                run.assert_dropped().assert_counted(Reason::DropSourceInvalid, []);
            }
        }
        assert_eq!(lb.flows(), []);
    }
}

#[test]
fn tables_that_contradict_each_other_drop_the_packet_and_say_so() {
    for hosts in FAMILIES {
        let service = |slot| {
            let own = Backend::at(hosts.backends[0], 8080);
            let foreign = Service::tcp(hosts.other_vip, 80).backend(own.clone());
            Lab::new().service(Service::tcp(hosts.vip, 80).backend(own).slots(&[slot])).service(foreign)
        };
        // Nobody's row, another service's, one beyond the array.
        for slot in [0, 2, 40_000] {
            let mut lb = balancer!(service(slot));
            let run = lb.receive(&hosts.to_vip().tcp(40_000, 80).syn());
            run.assert_dropped().assert_counted(Reason::DropInternal, []);
        }
    }
}

#[test]
fn an_endpoint_of_two_services_replies_as_the_one_that_was_asked() {
    for hosts in FAMILIES {
        let backend = Backend::at(hosts.backends[0], 8080);
        let first = Service::tcp(hosts.vip, 80).backend(backend.clone());
        let second = Service::tcp(hosts.other_vip, 443).backend(backend);
        let mut lb = balancer!(Lab::new().service(first).service(second));
        lb.receive(&hosts.to_vip().tcp(1000, 80).syn());
        lb.receive(&hosts.to_vip().to(hosts.other_vip).tcp(2000, 443).syn());

        let run = lb.receive(&hosts.from_backend().tcp(8080, 2000).syn().ack(1));
        run.assert_redirected(WAN_INDEX, &hosts.from_vip().from(hosts.other_vip).tcp(443, 2000).syn().ack(1));
        let run = lb.receive(&hosts.from_backend().tcp(8080, 1000).syn().ack(1));
        run.assert_redirected(WAN_INDEX, &hosts.from_vip().tcp(80, 1000).syn().ack(1));
    }
}

#[test]
fn another_backend_s_packet_is_no_reply_to_a_flow_that_it_does_not_have() {
    for hosts in FAMILIES {
        let [first, second] = [0, 1].map(|index| Backend::at(hosts.backends[index], 8080));
        let service = Service::tcp(hosts.vip, 80).backend(first).backend(second).slots(&[1]);
        let mut lb = balancer!(Lab::new().service(service));
        lb.receive(&hosts.to_vip().tcp(40_000, 80).syn());

        let run = lb.receive(&hosts.from_backend().from(hosts.backends[1]).tcp(8080, 40_000).syn().ack(1));

        run.assert_untouched().assert_counted(Reason::PassReplyWithoutFlow, []);
    }
}
