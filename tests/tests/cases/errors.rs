//! ICMP: echo to a virtual address, and errors about packets that were translated.

use lb_common::flow::State;
use lb_common::reason::{Event, Reason};
use lb_tests::lab::{FAMILIES, Hosts, LAN, LAN_INDEX, Lab, ROUTER, V4, V6, WAN, WAN_INDEX, backend_mac};
use lb_tests::packet::{Extension, Packet, packet};

/// A transport header by its ends' ports.
type Transport = fn(Packet, u16, u16) -> Packet;

/// The service and its only backend, which have the same number, and what they carry: TCP and UDP.
const TRANSPORTS: [(u16, Transport); 2] = [
    (1, |packet, source, destination| packet.tcp(source, destination).seq(77).ack(5).payload(vec![9; 300])),
    (2, |packet, source, destination| packet.udp(source, destination).payload(vec![9; 301])),
];

/// How much of a packet an error quotes: the least that RFC 792 asks for, all but a header, a part, all.
fn lengths(hosts: &Hosts) -> [usize; 4] {
    [hosts.header + 8, hosts.header + 18, hosts.header + 100, 9999]
}

fn from_router_to_vip(hosts: &Hosts) -> Packet {
    packet().eth(ROUTER, WAN).ip(hosts.router, hosts.vip)
}

fn from_router_to_client(hosts: &Hosts) -> Packet {
    packet().eth(backend_mac(0), LAN).ip(hosts.router, hosts.client)
}

#[test]
fn an_echo_request_to_a_vip_is_answered() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        for payload in ["", "odd", "even", "abcdefghijklmnopqrstuvwabcdefghi"] {
            let run = lb.receive(&hosts.to_vip().ttl(3).echo_request(7, 9).payload(payload));
            run.assert_transmitted(&hosts.answer().echo_reply(7, 9).payload(payload));
            run.assert_counted(Reason::EchoAnswered, []);
        }
    }
}

#[test]
fn an_echo_request_to_another_address_is_not_answered() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        for destination in [hosts.stranger, hosts.backends[0], hosts.client] {
            let run = lb.receive(&hosts.to_vip().to(destination).echo_request(7, 9));
            run.assert_untouched().assert_counted(Reason::PassNotOurs, []);
        }
    }
}

#[test]
fn other_icmp_to_a_vip_is_the_kernel_s() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        let run = lb.receive(&hosts.to_vip().echo_reply(7, 9));
        run.assert_untouched().assert_counted(Reason::PassNotOurs, []);
    }
    // A neighbour solicitation, without which nobody finds the virtual address.
    let mut lb = balancer!(Lab::web(V6));
    let run = lb.receive(&V6.to_vip().icmp(135, 0, 0).payload([0; 24]));
    run.assert_untouched().assert_counted(Reason::PassNotOurs, []);
    let run = lb.receive(&V6.to_vip().extension(Extension::HopByHop(0)).echo_request(1, 1));
    run.assert_untouched().assert_counted(Reason::PassNotOurs, []);
}

#[test]
fn an_error_about_a_reply_reaches_the_backend_in_its_own_terms() {
    for hosts in FAMILIES {
        for (service, transport) in TRANSPORTS {
            let mut lb = balancer!(Lab::web(hosts));
            lb.plant((hosts.client, 40_000), service, service, State::ESTABLISHED, 0);
            let sent = transport(hosts.from_vip(), 80, 40_000);
            let known = transport(hosts.from_backend().ttl(63), 8080, 40_000);
            for length in lengths(&hosts) {
                let run = lb.receive(&from_router_to_vip(&hosts).too_big(1280).quoting(&sent, length));
                let expected = hosts.to_backend().from(hosts.router).too_big(1280).quoting(&known, length);
                run.assert_redirected(LAN_INDEX, &expected);
                run.assert_counted(Reason::IcmpToBackend, []);
            }
        }
    }
}

#[test]
fn an_error_about_a_request_reaches_the_client_in_its_own_terms() {
    for hosts in FAMILIES {
        for (service, transport) in TRANSPORTS {
            let mut lb = balancer!(Lab::web(hosts));
            lb.plant((hosts.client, 40_000), service, service, State::ESTABLISHED, 0);
            let sent = transport(hosts.to_backend(), 40_000, 8080);
            let known = transport(hosts.to_vip().ttl(63), 40_000, 80);
            let first = [Event::NextHopLookup];
            for (length, events) in lengths(&hosts).into_iter().zip([&first[..], &[], &[], &[]]) {
                let run = lb.receive(&from_router_to_client(&hosts).time_exceeded().quoting(&sent, length));
                // A router keeps its own address: traceroute shows the way behind the balancer.
                let expected = hosts.from_vip().from(hosts.router).time_exceeded().quoting(&known, length);
                run.assert_redirected(WAN_INDEX, &expected);
                run.assert_counted_with(Reason::IcmpToClient, events);
            }
        }
    }
}

#[test]
fn an_error_from_the_backend_itself_comes_from_the_vip() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        lb.plant((hosts.client, 40_000), 2, 2, State::DATAGRAM, 0);
        let sent = hosts.to_backend().udp(40_000, 8080).payload("question");
        let known = hosts.to_vip().ttl(63).udp(40_000, 80).payload("question");
        let run = lb.receive(&hosts.from_backend().port_unreachable().quoting(&sent, 9999));
        run.assert_redirected(WAN_INDEX, &hosts.from_vip().port_unreachable().quoting(&known, 9999));
        run.assert_counted(Reason::IcmpToClient, [Event::NextHopLookup]);
    }
}

#[test]
fn a_quoted_udp_checksum_of_zero_stays_zero() {
    let mut lb = balancer!(Lab::web(V4));
    lb.plant((V4.client, 40_000), 2, 2, State::DATAGRAM, 0);
    let sent = V4.from_vip().udp(80, 40_000).udp_checksum(0).payload("answer");
    let known = V4.from_backend().ttl(63).udp(8080, 40_000).udp_checksum(0).payload("answer");
    let run = lb.receive(&from_router_to_vip(&V4).too_big(1280).quoting(&sent, 28));
    run.assert_redirected(LAN_INDEX, &V4.to_backend().from(V4.router).too_big(1280).quoting(&known, 28));
}

#[test]
fn a_quote_with_ip_options_is_translated_behind_them() {
    let mut lb = balancer!(Lab::web(V4));
    lb.plant((V4.client, 40_000), 1, 1, State::ESTABLISHED, 0);
    let sent = V4.from_vip().options(&[1; 8]).tcp(80, 40_000).ack(1);
    let known = V4.from_backend().options(&[1; 8]).ttl(63).tcp(8080, 40_000).ack(1);
    let run = lb.receive(&from_router_to_vip(&V4).too_big(1280).quoting(&sent, 9999));
    run.assert_redirected(LAN_INDEX, &V4.to_backend().from(V4.router).too_big(1280).quoting(&known, 9999));
}

/// What may stand between an IPv6 header and the transport header.
const CHAINS: [&[Extension]; 4] = [
    &[Extension::HopByHop(0)],
    &[Extension::DestinationOptions(2), Extension::Routing(1)],
    &[Extension::AtomicFragment(7)],
    &[
        Extension::HopByHop(1),
        Extension::DestinationOptions(0),
        Extension::Routing(0),
        Extension::AtomicFragment(9),
        Extension::DestinationOptions(0),
    ],
];

fn behind(packet: Packet, chain: &[Extension]) -> Packet {
    chain.iter().fold(packet, |packet, &extension| packet.extension(extension))
}

/// Bytes that a chain takes.
fn length_of(chain: &[Extension]) -> usize {
    behind(packet().ip(V6.client, V6.vip).protocol(59), chain).ip_bytes().len() - V6.header
}

#[test]
fn a_quote_with_extension_headers_is_translated_behind_them() {
    for (service, transport) in TRANSPORTS {
        for chain in CHAINS {
            let mut lb = balancer!(Lab::web(V6));
            lb.plant((V6.client, 40_000), service, service, State::ESTABLISHED, 0);
            for length in lengths(&V6).map(|length| length + length_of(chain)) {
                let sent = transport(behind(V6.from_vip(), chain), 80, 40_000);
                let known = transport(behind(V6.from_backend().ttl(63), chain), 8080, 40_000);
                let run = lb.receive(&from_router_to_vip(&V6).too_big(1280).quoting(&sent, length));
                let expected = V6.to_backend().from(V6.router).too_big(1280).quoting(&known, length);
                run.assert_redirected(LAN_INDEX, &expected);

                let sent = transport(behind(V6.to_backend(), chain), 40_000, 8080);
                let known = transport(behind(V6.to_vip().ttl(63), chain), 40_000, 80);
                let run = lb.receive(&from_router_to_client(&V6).time_exceeded().quoting(&sent, length));
                let expected = V6.from_vip().from(V6.router).time_exceeded().quoting(&known, length);
                run.assert_redirected(WAN_INDEX, &expected);
            }
        }
    }
}

#[test]
fn a_quoted_first_fragment_is_translated() {
    for hosts in FAMILIES {
        for (service, transport) in TRANSPORTS {
            let mut lb = balancer!(Lab::web(hosts));
            lb.plant((hosts.client, 40_000), service, service, State::ESTABLISHED, 0);
            let fragment =
                |packet, ports: (u16, u16)| transport(packet, ports.0, ports.1).fragment(9, 0..200);
            let sent = fragment(hosts.from_vip(), (80, 40_000));
            let known = fragment(hosts.from_backend().ttl(63), (8080, 40_000));
            let run = lb.receive(&from_router_to_vip(&hosts).too_big(1280).quoting(&sent, 9999));
            let expected = hosts.to_backend().from(hosts.router).too_big(1280).quoting(&known, 9999);
            run.assert_redirected(LAN_INDEX, &expected).assert_counted(Reason::IcmpToBackend, []);

            let sent = fragment(hosts.to_backend(), (40_000, 8080));
            let known = fragment(hosts.to_vip().ttl(63), (40_000, 80));
            let run = lb.receive(&from_router_to_client(&hosts).time_exceeded().quoting(&sent, 9999));
            let expected = hosts.from_vip().from(hosts.router).time_exceeded().quoting(&known, 9999);
            run.assert_redirected(WAN_INDEX, &expected);
        }
    }
}

#[test]
fn a_quoted_later_fragment_says_nothing_of_its_flow() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        lb.plant((hosts.client, 40_000), 2, 2, State::DATAGRAM, 0);
        let part = hosts.from_vip().udp(80, 40_000).payload([9; 900]).fragment(9, 400..800);
        let run = lb.receive(&from_router_to_vip(&hosts).too_big(1280).quoting(&part, 9999));
        run.assert_untouched().assert_counted(Reason::PassIcmpWithoutFlow, []);
        // Its payload looks like the ports of the flow.
        let ports: Vec<u8> = [80_u16, 40_000].iter().flat_map(|port| port.to_be_bytes()).collect();
        let part = hosts.from_vip().udp(80, 40_000).payload(ports.repeat(200)).fragment(9, 400..800);
        let run = lb.receive(&from_router_to_vip(&hosts).too_big(1280).quoting(&part, 9999));
        run.assert_untouched().assert_counted(Reason::PassIcmpWithoutFlow, []);
    }
}

#[test]
fn a_quote_whose_extension_headers_do_not_end_is_nobody_s() {
    let mut lb = balancer!(Lab::web(V6));
    lb.plant((V6.client, 40_000), 1, 1, State::ESTABLISHED, 0);
    let chain = CHAINS[3];
    let sent = behind(V6.from_vip(), chain).tcp(80, 40_000).ack(1);
    for bytes in 0..length_of(chain) + 4 {
        let run = lb.receive(&from_router_to_vip(&V6).too_big(1280).quoting(&sent, V6.header + bytes));
        run.assert_untouched().assert_counted(Reason::PassIcmpWithoutFlow, []);
    }
    // The ports stand behind the end of the packet, in the frame's padding.
    let error = from_router_to_vip(&V6).too_big(1280).quoting(&sent, V6.header + length_of(chain));
    let mut padded = error.bytes();
    padded.extend(sent.ip_bytes().split_off(V6.header + length_of(chain)));
    let run = lb.receive_bytes(&padded);
    run.assert_untouched().assert_counted(Reason::PassIcmpWithoutFlow, []);
    // More of them than anybody sends.
    let sent = behind(V6.from_vip(), &[Extension::DestinationOptions(0); 7]).tcp(80, 40_000).ack(1);
    let run = lb.receive(&from_router_to_vip(&V6).too_big(1280).quoting(&sent, 9999));
    run.assert_untouched().assert_counted(Reason::PassIcmpWithoutFlow, []);
}

#[test]
fn an_error_that_quotes_no_flow_of_ours_passes() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        let cases = [
            // No flow of that client; no service at that port; a quote that is not from the virtual address.
            (hosts.from_vip().tcp(80, 1), Reason::PassIcmpWithoutFlow),
            (hosts.from_vip().tcp(81, 1), Reason::PassIcmpWithoutFlow),
            (hosts.from_vip().from(hosts.stranger).tcp(80, 1), Reason::PassIcmpWithoutFlow),
            (hosts.from_vip().protocol(47).payload([0; 8]), Reason::PassIcmpWithoutFlow),
        ];
        for (quoted, reason) in cases {
            let run = lb.receive(&from_router_to_vip(&hosts).time_exceeded().quoting(&quoted, 9999));
            run.assert_untouched().assert_counted(reason, []);
        }
        let about_backend = hosts.to_backend().tcp(1, 8080);
        let run = lb.receive(&from_router_to_client(&hosts).time_exceeded().quoting(&about_backend, 9999));
        run.assert_untouched().assert_counted(Reason::PassIcmpWithoutFlow, []);
        let about_others = hosts.to_backend().tcp(1, 22);
        let run = lb.receive(&from_router_to_client(&hosts).time_exceeded().quoting(&about_others, 9999));
        run.assert_untouched().assert_counted(Reason::PassNotOurs, []);
    }
}

#[test]
fn a_quote_too_short_for_its_ports_is_nobody_s() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        lb.plant((hosts.client, 40_000), 1, 1, State::ESTABLISHED, 0);
        let sent = hosts.from_vip().tcp(80, 40_000).ack(1);
        for length in [0, hosts.header - 1, hosts.header, hosts.header + 3] {
            let run = lb.receive(&from_router_to_vip(&hosts).too_big(1280).quoting(&sent, length));
            run.assert_untouched().assert_counted(Reason::PassIcmpWithoutFlow, []);
        }
    }
}

#[test]
fn an_error_whose_own_ttl_ends_is_dropped_and_not_answered() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        lb.plant((hosts.client, 40_000), 1, 1, State::ESTABLISHED, 0);
        let sent = hosts.from_vip().tcp(80, 40_000).ack(1);
        let run = lb.receive(&from_router_to_vip(&hosts).ttl(1).too_big(1280).quoting(&sent, 9999));
        run.assert_dropped().assert_counted(Reason::DropTimeExceeded, []);
    }
}

#[test]
fn an_error_about_an_untracked_flow_finds_the_backend_that_the_flow_went_to() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts).flow_buckets(1));
        for port in 2000..2004 {
            lb.plant((hosts.client, port), 2, 2, State::DATAGRAM, 0);
        }
        lb.receive(&hosts.to_vip().udp(1000, 80))
            .assert_counted(Reason::RequestForwarded, [Event::FlowUntracked]);
        let sent = hosts.from_vip().udp(80, 1000).payload("answer");
        let run = lb.receive(&from_router_to_vip(&hosts).too_big(1280).quoting(&sent, 9999));
        run.assert_counted(Reason::IcmpToBackend, []);
    }
}

#[test]
fn an_error_about_an_error_is_left_alone() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        let inner = hosts.from_vip().echo_reply(1, 1);
        let run = lb.receive(&from_router_to_vip(&hosts).time_exceeded().quoting(&inner, 9999));
        run.assert_untouched().assert_counted(Reason::PassIcmpWithoutFlow, []);
    }
}
