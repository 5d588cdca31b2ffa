//! Answers of the balancer's own.

use lb_common::flow::State;
use lb_common::reason::{Event, Reason};
use lb_tests::lab::{Backend, FAMILIES, Hosts, LAN, Lab, Service, V4, V6, backend_mac};
use lb_tests::packet::{Packet, packet};

/// Services without any backend, at ports 80.
fn empty(hosts: &Hosts) -> Lab {
    Lab::new().service(Service::tcp(hosts.vip, 80)).service(Service::udp(hosts.vip, 80))
}

/// The error that answers a request.
fn error(hosts: &Hosts, message: impl Fn(Packet) -> Packet, about: &Packet) -> Packet {
    message(hosts.answer().df()).quoting(about, quoted(hosts, about))
}

/// The error that answers a backend's reply.
fn error_to_backend(hosts: &Hosts, message: impl Fn(Packet) -> Packet, about: &Packet) -> Packet {
    let answer = packet().eth(LAN, backend_mac(0)).ip(hosts.vip, hosts.backends[0]).df();
    message(answer).quoting(about, quoted(hosts, about))
}

/// Whole words, and no more than fits.
fn quoted(hosts: &Hosts, about: &Packet) -> usize {
    (about.ip_bytes().len() / 4 * 4).min(hosts.max_quote)
}

#[test]
fn a_request_whose_ttl_ends_here_is_answered_from_the_vip() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        for ttl in [0, 1] {
            let expired = hosts.to_vip().ttl(ttl).tcp(40_000, 80).syn();
            let run = lb.receive(&expired);
            run.assert_transmitted(&error(&hosts, Packet::time_exceeded, &expired));
            run.assert_counted(Reason::TimeExceeded, []);
            let expired = hosts.to_vip().ttl(ttl).udp(40_000, 80).payload(vec![5; 1401]);
            let run = lb.receive(&expired);
            run.assert_transmitted(&error(&hosts, Packet::time_exceeded, &expired));
        }
        assert_eq!(lb.flows(), [], "an expired packet opens no flow");
    }
}

#[test]
fn a_reply_whose_ttl_ends_here_is_answered_from_the_vip() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        lb.plant((hosts.client, 40_000), 1, 1, State::ESTABLISHED, 0);
        let expired = hosts.from_backend().ttl(1).tcp(8080, 40_000).ack(1).payload("data!");
        let run = lb.receive(&expired);
        run.assert_transmitted(&error_to_backend(&hosts, Packet::time_exceeded, &expired));
        run.assert_counted(Reason::TimeExceeded, []);
    }
}

#[test]
fn a_request_too_big_for_the_way_to_the_backend_is_answered_with_its_mtu() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        let long = hosts.to_vip().df().tcp(40_000, 80).ack(1).payload(vec![7; 1501 - hosts.header - 20]);
        let run = lb.receive(&long);
        run.assert_transmitted(&error(&hosts, |answer| answer.too_big(1500), &long));
        run.assert_counted(Reason::TooBig, [Event::FlowCreated]);
        let fits = hosts.to_vip().df().tcp(40_000, 80).ack(1).payload(vec![7; 1500 - hosts.header - 20]);
        lb.receive(&fits).assert_counted(Reason::RequestForwarded, []);
    }
}

#[test]
fn a_reply_too_big_for_the_way_to_the_client_is_answered_with_its_mtu() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        let client = hosts.clients.narrow;
        lb.plant((client, 40_000), 1, 1, State::ESTABLISHED, 0);
        let long = hosts.from_backend().to(client).df().tcp(8080, 40_000).ack(1).payload(vec![7; 1400]);
        let run = lb.receive(&long);
        run.assert_transmitted(&error_to_backend(&hosts, |answer| answer.too_big(1280), &long));
        run.assert_counted(Reason::TooBig, [Event::NextHopLookup]);
    }
}

#[test]
fn a_packet_too_big_that_may_be_fragmented_is_rewritten_and_left_to_the_kernel() {
    let mut lb = balancer!(Lab::web(V4));
    let long = V4.to_vip().udp(40_000, 80).payload(vec![7; 1600]);
    let run = lb.receive(&long);
    // The kernel takes the hop off the TTL, and finds the neighbour.
    run.assert_passed_as(&long.clone().to(V4.backends[0]).udp(40_000, 8080));
    run.assert_counted(Reason::PassForFragmentation, [Event::FlowCreated]);

    let client = V4.clients.narrow;
    lb.plant((client, 40_000), 1, 1, State::ESTABLISHED, 0);
    let long = V4.from_backend().to(client).tcp(8080, 40_000).ack(1).payload(vec![7; 1400]);
    let run = lb.receive(&long);
    run.assert_passed_as(
        &V4.from_backend().from(V4.vip).to(client).tcp(80, 40_000).ack(1).payload(vec![7; 1400]),
    );
    run.assert_counted(Reason::PassForFragmentation, [Event::NextHopLookup]);
}

#[test]
fn a_syn_to_a_service_without_backends_is_reset() {
    for hosts in FAMILIES {
        let mut lb = balancer!(empty(&hosts));
        let run = lb.receive(&hosts.to_vip().tcp(40_000, 80).seq(u32::MAX).syn().payload("early data"));
        // SYN and ten bytes of data, over the end of the sequence space.
        run.assert_transmitted(&hosts.answer().df().tcp(80, 40_000).window(0).rst().ack(10));
        run.assert_counted(Reason::ResetNoBackend, []);
        assert_eq!(lb.flows(), []);
    }
}

#[test]
fn a_segment_in_mid_stream_without_backends_is_reset_where_its_client_expects_it() {
    for hosts in FAMILIES {
        let mut lb = balancer!(empty(&hosts));
        let run = lb.receive(&hosts.to_vip().tcp(40_000, 80).seq(5).ack(777).payload("data").padded(3));
        let reset = hosts.answer().df().tcp(80, 40_000).window(0).seq(777).rst();
        run.assert_transmitted(&reset);
        let run = lb.receive(&hosts.to_vip().tcp(40_000, 80).seq(5).fin());
        run.assert_transmitted(&hosts.answer().df().tcp(80, 40_000).window(0).rst().ack(6));
    }
}

#[test]
fn a_reset_is_never_answered() {
    for hosts in FAMILIES {
        let mut lb = balancer!(empty(&hosts));
        for reset in [hosts.to_vip().tcp(40_000, 80).rst(), hosts.to_vip().tcp(40_000, 80).rst().ack(4)] {
            lb.receive(&reset).assert_dropped().assert_counted(Reason::DropNoBackend, []);
        }
    }
}

#[test]
fn a_datagram_to_a_service_without_backends_is_unreachable() {
    for hosts in FAMILIES {
        let mut lb = balancer!(empty(&hosts));
        let datagram = hosts.to_vip().udp(5000, 80).payload("question");
        let run = lb.receive(&datagram);
        run.assert_transmitted(&error(&hosts, Packet::port_unreachable, &datagram));
        run.assert_counted(Reason::UnreachableNoBackend, []);
    }
}

#[test]
fn a_silent_service_without_backends_drops() {
    for hosts in FAMILIES {
        let services = [Service::tcp(hosts.vip, 80).silent(), Service::udp(hosts.vip, 80).silent()];
        let mut lb = balancer!(services.into_iter().fold(Lab::new(), Lab::service));
        for packet in [hosts.to_vip().tcp(1, 80).syn(), hosts.to_vip().udp(1, 80)] {
            lb.receive(&packet).assert_dropped().assert_counted(Reason::DropNoBackend, []);
        }
    }
}

#[test]
fn errors_beyond_the_budget_are_not_sent() {
    for hosts in FAMILIES {
        let mut lb = balancer!(empty(&hosts).icmp_errors(2));
        let expired = hosts.to_vip().ttl(1).udp(1, 80);
        let refused = hosts.to_vip().udp(1, 80);
        lb.receive(&expired).assert_counted(Reason::TimeExceeded, []);
        lb.receive(&refused).assert_counted(Reason::UnreachableNoBackend, []);
        lb.receive(&expired).assert_dropped().assert_counted(Reason::DropTimeExceeded, []);
        lb.receive(&refused).assert_dropped().assert_counted(Reason::DropUnreachable, []);
        // A reset is the end of a connection, not an error about one: it has no budget.
        lb.receive(&hosts.to_vip().tcp(1, 80).syn()).assert_counted(Reason::ResetNoBackend, []);

        lb.restart(&Lab::web(hosts).icmp_errors(0));
        let long = hosts.to_vip().df().udp(1, 80).payload(vec![7; 1600]);
        lb.receive(&long).assert_dropped().assert_counted(Reason::DropTooBig, [Event::FlowCreated]);
    }
}

#[test]
fn no_error_is_sent_about_a_later_fragment() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        let datagram = hosts.to_vip().udp(5000, 80).payload(vec![1; 2000]);
        lb.receive(&datagram.clone().fragment(8, 0..1200));
        let run = lb.receive(&datagram.ttl(1).fragment(8, 1200..2008));
        run.assert_dropped().assert_counted(Reason::DropTimeExceeded, []);
    }
}

#[test]
fn no_error_is_sent_to_a_source_that_is_not_one_host() {
    for (hosts, source) in [(V4, "255.255.255.255"), (V4, "224.0.0.5"), (V6, "ff02::1"), (V6, "::")] {
        let mut lb = balancer!(Lab::web(hosts));
        let run = lb.receive(&hosts.to_vip().from(source).ttl(1).udp(1, 80));
        run.assert_dropped().assert_counted(Reason::DropTimeExceeded, []);
    }
}

#[test]
fn a_packet_with_options_is_quoted_with_them() {
    let mut lb = balancer!(Lab::web(V4));
    let expired = V4.to_vip().ttl(1).options(&[1; 12]).udp(1, 80).payload("data");
    lb.receive(&expired).assert_transmitted(&error(&V4, Packet::time_exceeded, &expired));
    lb.restart(&Lab::new().service(Service::tcp(V4.vip, 80)));
    let run = lb.receive(&V4.to_vip().options(&[1; 12]).tcp(9, 80).seq(4).syn());
    run.assert_transmitted(&V4.answer().df().tcp(80, 9).window(0).rst().ack(5));
}

#[test]
fn a_backend_that_comes_back_ends_the_refusals() {
    for hosts in FAMILIES {
        let mut lb = balancer!(empty(&hosts));
        lb.receive(&hosts.to_vip().tcp(1, 80).syn()).assert_counted(Reason::ResetNoBackend, []);
        let backend = Backend::at(hosts.backends[0], 8080);
        lb.configure(&Lab::new().service(Service::tcp(hosts.vip, 80).backend(backend)));
        let run = lb.receive(&hosts.to_vip().tcp(1, 80).syn());
        run.assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
    }
}
