//! Fragments of a datagram go where its first goes.

use lb_common::reason::{Event, Reason};
use lb_tests::lab::{Backend, FAMILIES, LAN_INDEX, Lab, Service, V4, V6, WAN_INDEX};
use lb_tests::packet::Extension;

/// A datagram that takes three fragments.
fn long() -> Vec<u8> {
    (0..3400_u32).map(|at| (at * 7) as u8).collect()
}

const PARTS: [std::ops::Range<usize>; 3] = [0..1400, 1400..2800, 2800..3408];

#[test]
fn fragments_in_order_go_to_one_backend() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        for (part, events) in PARTS.into_iter().zip([&[Event::FlowCreated][..], &[], &[]]) {
            let fragment = hosts.to_vip().udp(5000, 80).payload(long()).fragment(0x1234, part.clone());
            let run = lb.receive(&fragment);
            let expected = hosts.to_backend().udp(5000, 8080).payload(long()).fragment(0x1234, part);
            run.assert_redirected(LAN_INDEX, &expected);
            run.assert_counted_with(Reason::RequestForwarded, events);
        }
    }
}

#[test]
fn fragments_of_replies_come_from_the_vip() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        lb.receive(&hosts.to_vip().udp(5000, 80));
        for (part, events) in PARTS.into_iter().zip([&[Event::NextHopLookup][..], &[], &[]]) {
            let fragment = hosts.from_backend().udp(8080, 5000).payload(long()).fragment(9, part.clone());
            let run = lb.receive(&fragment);
            run.assert_redirected(
                WAN_INDEX,
                &hosts.from_vip().udp(80, 5000).payload(long()).fragment(9, part),
            );
            run.assert_counted_with(Reason::ReplyForwarded, events);
        }
    }
}

#[test]
fn a_fragment_that_comes_before_its_first_is_dropped_and_counted() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        let fragment = |identification, part: usize| {
            hosts.to_vip().udp(5000, 80).payload(long()).fragment(identification, PARTS[part].clone())
        };
        let run = lb.receive(&fragment(1, 1));
        run.assert_dropped().assert_counted(Reason::DropFragmentBeforeFirst, []);
        // Another datagram's first does not help.
        lb.receive(&fragment(2, 0));
        let run = lb.receive(&fragment(1, 2));
        run.assert_dropped().assert_counted(Reason::DropFragmentBeforeFirst, []);
    }
}

#[test]
fn a_reply_s_fragment_that_comes_before_its_first_is_dropped_and_counted() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        lb.receive(&hosts.to_vip().udp(5000, 80));
        let fragment = |identification, part: usize| {
            let answer = hosts.from_backend().udp(8080, 5000).payload(long());
            answer.fragment(identification, PARTS[part].clone())
        };
        let run = lb.receive(&fragment(1, 1));
        run.assert_dropped().assert_counted(Reason::DropReplyFragmentBeforeFirst, []);
        // Another datagram's first does not help.
        lb.receive(&fragment(2, 0));
        let run = lb.receive(&fragment(1, 2));
        run.assert_dropped().assert_counted(Reason::DropReplyFragmentBeforeFirst, []);
        let run = lb.receive(&fragment(2, 2));
        run.assert_counted(Reason::ReplyForwarded, []);
    }
}

#[test]
fn fragments_of_a_backend_s_own_datagrams_pass_all() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        for part in PARTS {
            let own = hosts.from_backend().to(hosts.stranger).udp(53, 53).payload(long());
            let run = lb.receive(&own.fragment(3, part.clone()));
            run.assert_untouched().assert_counted(Reason::PassNotOurs, []);
            // From the very port that it serves, but of no flow.
            let own = hosts.from_backend().udp(8080, 9).payload(long());
            let run = lb.receive(&own.fragment(4, part));
            run.assert_untouched().assert_counted(Reason::PassReplyWithoutFlow, []);
        }
    }
}

#[test]
fn later_fragments_from_a_backend_of_what_it_does_not_serve_pass_without_their_first() {
    for hosts in FAMILIES {
        let backend = || Backend::at(hosts.backends[0], 8080);
        let [tcp, udp] =
            [Service::tcp, Service::udp].map(|service| service(hosts.vip, 80).backend(backend()));
        let mut lb = balancer!(Lab::new().service(tcp));
        let backup =
            hosts.from_backend().to(hosts.stranger).udp(9, 9).payload(long()).fragment(5, 1400..2800);
        lb.receive(&backup).assert_untouched().assert_counted(Reason::PassNotOurs, []);
        let tunnel = hosts.from_backend().protocol(47).payload(long()).fragment(6, 1400..2800);
        lb.receive(&tunnel).assert_untouched().assert_counted(Reason::PassNotOurs, []);
        let reply = hosts.from_backend().tcp(8080, 5000).ack(1).payload(long()).fragment(8, 1400..2800);
        lb.receive(&reply).assert_dropped().assert_counted(Reason::DropReplyFragmentBeforeFirst, []);
        // To a backend there is nothing to translate.
        let query = hosts.to_backend().to(hosts.backends[0]).tcp(5000, 8080).payload(long());
        let run = lb.receive(&query.fragment(7, 1400..2800));
        run.assert_untouched().assert_counted(Reason::PassNotOurs, []);
        lb.configure(&Lab::new().service(udp));
        lb.receive(&backup).assert_counted(Reason::DropReplyFragmentBeforeFirst, []);
    }
}

#[test]
fn a_backend_of_several_services_is_known_by_its_address_whichever_goes() {
    for hosts in FAMILIES {
        let service =
            |port, backend| Service::udp(hosts.vip, port).backend(Backend::at(hosts.backends[0], backend));
        let reply = |port| hosts.from_backend().udp(port, 5000).payload(long()).fragment(8, 1400..2800);
        let mut lb = balancer!(Lab::new().service(service(80, 8080)).service(service(81, 8081)));
        lb.receive(&reply(8081)).assert_counted(Reason::DropReplyFragmentBeforeFirst, []);
        lb.configure(&Lab::new().service(service(81, 8081)));
        lb.receive(&reply(8081)).assert_counted(Reason::DropReplyFragmentBeforeFirst, []);
        lb.configure(&Lab::new());
        lb.receive(&reply(8081)).assert_untouched().assert_counted(Reason::PassNotOurs, []);
    }
}

#[test]
fn fragments_of_other_traffic_pass() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        for part in PARTS {
            let other = hosts.to_vip().to(hosts.stranger).udp(5000, 80).payload(long());
            let run = lb.receive(&other.fragment(3, part.clone()));
            run.assert_untouched().assert_counted(Reason::PassNotOurs, []);
            let tunnelled = hosts.to_vip().protocol(47).payload(long());
            let run = lb.receive(&tunnelled.fragment(4, part.clone()));
            run.assert_untouched().assert_counted(Reason::PassNotOurs, []);
            let ping = hosts.to_vip().echo_request(1, 1).payload(long());
            let run = lb.receive(&ping.fragment(5, part));
            run.assert_untouched().assert_counted(Reason::PassNotOurs, []);
        }
    }
}

#[test]
fn fragments_to_a_vip_s_port_without_a_service_pass_all() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        for part in PARTS {
            let to_the_host = hosts.to_vip().udp(5000, 53).payload(long());
            let run = lb.receive(&to_the_host.fragment(7, part));
            run.assert_untouched().assert_counted(Reason::PassNotOurs, []);
        }
    }
}

#[test]
fn fragments_of_tcp_keep_to_their_flow() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        lb.receive(&hosts.to_vip().tcp(40_000, 80).syn());
        for part in [0..800, 800..1620] {
            let segment = hosts.to_vip().tcp(40_000, 80).ack(9).payload(vec![7; 1600]);
            let run = lb.receive(&segment.fragment(6, part.clone()));
            let expected = hosts.to_backend().tcp(40_000, 8080).ack(9).payload(vec![7; 1600]);
            run.assert_redirected(LAN_INDEX, &expected.fragment(6, part));
        }
        assert_eq!(lb.flows().len(), 1);
    }
}

#[test]
fn an_atomic_fragment_is_a_whole_packet() {
    let mut lb = balancer!(Lab::web(V6));
    let atomic = Extension::AtomicFragment(0xdead_beef);
    let run = lb.receive(&V6.to_vip().extension(atomic).udp(5000, 80).payload("whole"));
    run.assert_redirected(LAN_INDEX, &V6.to_backend().extension(atomic).udp(5000, 8080).payload("whole"));
    run.assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
}

#[test]
fn a_first_fragment_too_short_for_its_ports_is_dropped() {
    let mut lb = balancer!(Lab::web(V4));
    let run = lb.receive(&V4.to_vip().tcp(40_000, 80).syn().payload("data").fragment(1, 0..8));
    run.assert_dropped().assert_counted(Reason::DropTruncated, []);
}
