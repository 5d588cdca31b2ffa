//! Full NAT: a backend sees an address and a port of the pool, its client the virtual address.
//!
//! Where the pool has one port, everybody knows which port a flow gets.

use lb_common::flow::State;
use lb_common::port::{Life, PortState};
use lb_common::reason::{Event, Reason};
use lb_tests::lab::{
    Backend, FAMILIES, FIRST_POOL_PORT, Hosts, LAN, LAN_INDEX, Lab, ROUTER, Service, V4, WAN, WAN_INDEX,
    backend_mac,
};
use lb_tests::packet::{Packet, packet};

/// The pool's first port.
const PORT: u16 = FIRST_POOL_PORT;

/// A TCP and a UDP service, each with a pool of one address and the first backend at port 8080.
fn lab(hosts: Hosts) -> Lab {
    let backend = || Backend::at(hosts.backends[0], 8080);
    let tcp = Service::tcp(hosts.vip, 80).backend(backend()).full_nat(&hosts.pool[..1]);
    let udp = Service::udp(hosts.vip, 80).backend(backend()).full_nat(&hosts.pool[1..]);
    Lab::new().service(tcp).service(udp)
}

/// What the first backend gets from the TCP service's address of the pool.
fn to_backend(hosts: &Hosts) -> Packet {
    hosts.to_backend().from(hosts.pool[0])
}

/// What it sends back.
fn from_backend(hosts: &Hosts) -> Packet {
    hosts.from_backend().to(hosts.pool[0])
}

/// The new flow's events.
const OPENED: [Event; 2] = [Event::FlowCreated, Event::PortTaken];

#[test]
fn a_connection_goes_to_the_backend_from_the_pool_and_back_to_the_client() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(hosts));

        let run = lb.receive(&hosts.to_vip().tcp(40_000, 80).syn().seq(7));
        run.assert_redirected(LAN_INDEX, &to_backend(&hosts).tcp(PORT, 8080).syn().seq(7));
        run.assert_counted(Reason::RequestForwarded, OPENED);

        let run = lb.receive(&from_backend(&hosts).tcp(8080, PORT).syn().seq(99).ack(8));
        run.assert_redirected(WAN_INDEX, &hosts.from_vip().tcp(80, 40_000).syn().seq(99).ack(8));
        run.assert_counted(Reason::ReplyForwarded, [Event::NextHopLookup]);

        let run = lb.receive(&hosts.to_vip().tcp(40_000, 80).seq(8).ack(100).payload("question"));
        let expected = to_backend(&hosts).tcp(PORT, 8080).seq(8).ack(100).payload("question");
        run.assert_redirected(LAN_INDEX, &expected);
        run.assert_counted(Reason::RequestForwarded, [Event::FlowEstablished]);
        assert_eq!(lb.flows()[0].state, "established");
        assert_eq!(lb.active(1), 1);

        let run = lb.receive(&from_backend(&hosts).tcp(8080, PORT).seq(100).ack(16).payload("answer"));
        run.assert_redirected(
            WAN_INDEX,
            &hosts.from_vip().tcp(80, 40_000).seq(100).ack(16).payload("answer"),
        );
        run.assert_counted(Reason::ReplyForwarded, []);

        for (packet, state) in [
            (hosts.to_vip().tcp(40_000, 80).seq(16).ack(106).fin(), "closing"),
            (from_backend(&hosts).tcp(8080, PORT).seq(106).ack(17).fin(), "closing"),
        ] {
            lb.receive(&packet);
            assert_eq!(lb.flows()[0].state, state);
        }
        assert_eq!(lb.active(1), 0);
        assert_eq!(lb.traffic(1)[0], 3, "packets from the client");
    }
}

#[test]
fn a_datagram_goes_to_the_backend_from_the_pool_and_its_reply_to_the_client() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(hosts));
        let run = lb.receive(&hosts.to_vip().udp(5000, 80).payload("question"));
        let to_backend = hosts.to_backend().from(hosts.pool[1]);
        run.assert_redirected(LAN_INDEX, &to_backend.udp(PORT, 8080).payload("question"));
        run.assert_counted(Reason::RequestForwarded, OPENED);
        let from_backend = hosts.from_backend().to(hosts.pool[1]);
        let run = lb.receive(&from_backend.udp(8080, PORT).payload("answer"));
        run.assert_redirected(WAN_INDEX, &hosts.from_vip().udp(80, 5000).payload("answer"));
        run.assert_counted(Reason::ReplyForwarded, [Event::NextHopLookup]);
    }
}

#[test]
fn a_datagram_without_a_checksum_stays_without() {
    let mut lb = balancer!(lab(V4));
    let run = lb.receive(&V4.to_vip().udp(5000, 80).udp_checksum(0).payload("question"));
    let to_backend = V4.to_backend().from(V4.pool[1]);
    run.assert_redirected(LAN_INDEX, &to_backend.udp(PORT, 8080).udp_checksum(0).payload("question"));
}

#[test]
fn tags_options_and_extension_headers_stay() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(hosts));
        let sent = hosts.to_vip().vlan(100).options(&[1; 8]).tcp(40_000, 80).syn();
        let expected = to_backend(&hosts).options(&[1; 8]).tcp(PORT, 8080).syn();
        lb.receive(&sent).assert_redirected(LAN_INDEX, &expected);
    }
}

#[test]
fn a_backend_that_is_a_client_of_its_own_service_gets_its_answer_from_the_vip() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(hosts));
        let call = packet().eth(backend_mac(0), LAN).ip(hosts.backends[0], hosts.vip);
        let run = lb.receive(&call.tcp(8080, 80).syn());
        run.assert_redirected(LAN_INDEX, &to_backend(&hosts).tcp(PORT, 8080).syn());
        let run = lb.receive(&from_backend(&hosts).tcp(8080, PORT).syn().ack(1));
        let answer = packet().eth(LAN, backend_mac(0)).ip(hosts.vip, hosts.backends[0]).ttl(63);
        run.assert_redirected(LAN_INDEX, &answer.tcp(80, 8080).syn().ack(1));
    }
}

#[test]
fn where_every_port_is_in_use_new_flows_are_dropped_and_counted() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(hosts));
        lb.receive(&hosts.to_vip().tcp(40_000, 80).syn());
        for _ in 0..2 {
            let run = lb.receive(&hosts.to_vip().tcp(40_001, 80).syn());
            run.assert_dropped().assert_counted(Reason::DropPortsExhausted, [Event::FlowCreated]);
        }
        assert_eq!(lb.flows().len(), 1, "what has no port is no flow");
        // The one that has the port goes on, a repeated SYN included.
        let run = lb.receive(&hosts.to_vip().tcp(40_000, 80).syn());
        run.assert_redirected(LAN_INDEX, &to_backend(&hosts).tcp(PORT, 8080).syn());
        run.assert_counted(Reason::RequestForwarded, []);
    }
}

#[test]
fn a_datagram_that_gets_no_port_counts_no_active_flow() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(hosts));
        lb.receive(&hosts.to_vip().udp(5000, 80));
        let run = lb.receive(&hosts.to_vip().udp(5001, 80));
        run.assert_dropped().assert_counted(Reason::DropPortsExhausted, [Event::FlowCreated]);
        assert_eq!(lb.active(2), 1);
    }
}

#[test]
fn every_port_is_given_once() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(hosts).pool_ports(48));
        let mut ports: Vec<Vec<u8>> = Vec::new();
        for client in 0..60 {
            let run = lb.receive(&hosts.to_vip().tcp(40_000 + client, 80).syn());
            if run.counters.contains_key(Reason::RequestForwarded.name()) {
                let at = 14 + hosts.header;
                ports.push(run.output[at..at + 2].to_vec());
            } else {
                run.assert_counted(Reason::DropPortsExhausted, [Event::FlowCreated]);
            }
        }
        ports.sort();
        let expected: Vec<_> = (PORT..PORT + 48).map(|port| port.to_be_bytes().to_vec()).collect();
        assert_eq!(ports, expected);
    }
}

#[test]
fn the_port_of_an_idle_flow_is_taken_where_no_other_is_free() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(hosts));
        lb.receive(&hosts.to_vip().udp(5000, 80));
        lb.age((hosts.client, 5000), 2, 200);
        let run = lb.receive(&hosts.to_vip().udp(5001, 80));
        let taken = [Event::FlowCreated, Event::PortTaken, Event::PortReclaimed];
        run.assert_counted(Reason::RequestForwarded, taken);
        assert_eq!(lb.active(2), 1);
        // The answer to the one before must not reach the one that has the port now: it is the same backend's, and
        // nothing tells them apart. But the flow before gets another port, or none.
        let run = lb.receive(&hosts.to_vip().udp(5000, 80));
        run.assert_dropped().assert_counted(Reason::DropPortsExhausted, [Event::FlowCreated]);
    }
}

#[test]
fn the_port_of_a_flow_that_is_gone_is_taken_where_no_other_is_free() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(hosts));
        lb.receive(&hosts.to_vip().udp(5000, 80));
        lb.forget((hosts.client, 5000), 2);
        let run = lb.receive(&hosts.to_vip().udp(5001, 80));
        run.assert_counted(
            Reason::RequestForwarded,
            [Event::FlowCreated, Event::PortTaken, Event::PortReclaimed],
        );
    }
}

#[test]
fn a_port_that_rests_is_not_given() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(hosts));
        let now = lb.tick();
        for (rested, reason) in [(63, Reason::DropPortsExhausted), (64, Reason::RequestForwarded)] {
            lb.rows().ports[0].state.store(PortState(0).resting(now.wrapping_sub(rested)).0);
            let run = lb.receive(&hosts.to_vip().tcp(40_000, 80).syn());
            assert_eq!(run.counters.get(reason.name()), Some(&1), "{}", run.report(None));
        }
    }
}

#[test]
fn a_flow_whose_port_another_has_gets_another_or_none_but_never_that_one() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(hosts));
        lb.receive(&hosts.to_vip().tcp(40_000, 80).syn());
        lb.receive(&from_backend(&hosts).tcp(8080, PORT).syn().ack(1));
        // As if the row had been given to another flow.
        let row = &lb.rows().ports[0];
        row.flow.store(row.flow.load() ^ 1 << 20);
        let other = 40_000 ^ 0x1000;
        lb.plant((hosts.client, other), 1, 1, State::ESTABLISHED, 0);
        let run = lb.receive(&from_backend(&hosts).tcp(8080, PORT).ack(1));
        run.assert_redirected(WAN_INDEX, &hosts.from_vip().tcp(80, other).ack(1));
        let run = lb.receive(&hosts.to_vip().tcp(40_000, 80).ack(1));
        run.assert_dropped();
        assert_eq!(run.counters.get(Reason::DropPortsExhausted.name()), Some(&1), "{}", run.report(None));
    }
}

#[test]
fn what_is_no_reply_of_a_flow_s_backend_passes() {
    for hosts in FAMILIES {
        let [first, second] = [0, 1].map(|index| Backend::at(hosts.backends[index], 8080));
        let service = Service::tcp(hosts.vip, 80).backend(first).backend(second).slots(&[1]);
        let mut lb = balancer!(Lab::new().service(service.full_nat(&hosts.pool)).pool_ports(2));
        lb.receive(&hosts.to_vip().tcp(40_000, 80).syn());
        let (address, port) = (0..2)
            .flat_map(|address| (0..2).map(move |port| (address, port)))
            .find(|&(address, port)| {
                PortState(lb.rows().ports[usize::from(address * 2 + port)].state.load()).is(Life::Used)
            })
            .expect("the flow has a port");
        let reply = |from: usize, address: u16, port| {
            let frame = packet()
                .eth(backend_mac(from), LAN)
                .ip(hosts.backends[from], hosts.pool[usize::from(address)]);
            frame.tcp(8080, PORT + port).syn().ack(1)
        };
        for other in [reply(1, address, port), reply(0, 1 - address, port), reply(0, address, 1 - port)] {
            lb.receive(&other).assert_untouched().assert_counted(Reason::PassPoolWithoutFlow, []);
        }
        // Another port of the backend; a port of the address that is not the pool's; a protocol that it does not serve.
        let frame = packet().eth(backend_mac(0), LAN).ip(hosts.backends[0], hosts.pool[usize::from(address)]);
        for (other, reason) in [
            (frame.clone().tcp(22, PORT + port).syn().ack(1), Reason::PassNotOurs),
            (frame.clone().tcp(8080, PORT + 2).syn().ack(1), Reason::PassReplyWithoutFlow),
            (frame.clone().tcp(8080, PORT - 1).syn().ack(1), Reason::PassReplyWithoutFlow),
            (frame.udp(8080, PORT + port), Reason::PassNotOurs),
        ] {
            lb.receive(&other).assert_untouched().assert_counted(reason, []);
        }
        lb.receive(&reply(0, address, port)).assert_counted(Reason::ReplyForwarded, [Event::NextHopLookup]);
    }
}

#[test]
fn an_endpoint_of_a_full_nat_service_and_another_serves_both() {
    for hosts in FAMILIES {
        let backend = || Backend::at(hosts.backends[0], 8080);
        let plain = Service::tcp(hosts.other_vip, 443).backend(backend());
        let full = Service::tcp(hosts.vip, 80).backend(backend()).full_nat(&hosts.pool[..1]);
        let mut lb = balancer!(Lab::new().service(plain).service(full));
        lb.receive(&hosts.to_vip().tcp(1000, 80).syn());
        lb.receive(&hosts.to_vip().to(hosts.other_vip).tcp(1000, 443).syn());
        let run = lb.receive(&hosts.from_backend().tcp(8080, 1000).syn().ack(1));
        run.assert_redirected(WAN_INDEX, &hosts.from_vip().from(hosts.other_vip).tcp(443, 1000).syn().ack(1));
        let run = lb.receive(&from_backend(&hosts).tcp(8080, PORT).syn().ack(1));
        run.assert_redirected(WAN_INDEX, &hosts.from_vip().tcp(80, 1000).syn().ack(1));
    }
}

#[test]
fn a_dead_backend_s_flow_goes_to_another_from_another_port() {
    for hosts in FAMILIES {
        let backends = |first: Backend| {
            let service =
                Service::udp(hosts.vip, 80).backend(first).backend(Backend::at(hosts.backends[1], 8080));
            Lab::new().service(service.full_nat(&hosts.pool[..1])).pool_ports(2)
        };
        let first = || Backend::at(hosts.backends[0], 8080);
        let service = |slots: &[u16]| {
            let service =
                Service::udp(hosts.vip, 80).backend(first()).backend(Backend::at(hosts.backends[1], 8080));
            Lab::new().service(service.slots(slots).full_nat(&hosts.pool[..1])).pool_ports(2)
        };
        let mut lb = balancer!(service(&[1]));
        lb.receive(&hosts.to_vip().udp(5000, 80));
        lb.configure(&backends(first().dead()));
        let run = lb.receive(&hosts.to_vip().udp(5000, 80));
        assert_eq!(run.counters.get(Reason::RequestForwarded.name()), Some(&1), "{}", run.report(None));
        assert_eq!(run.counters.get(Event::FlowRebalanced.name()), Some(&1), "{}", run.report(None));
        assert_eq!(run.output[..6], backend_mac(1).0);
    }
}

#[test]
fn what_belongs_to_no_flow_and_opens_none_is_dropped() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(hosts));
        for ending in [hosts.to_vip().tcp(1, 80).rst(), hosts.to_vip().tcp(1, 80).ack(1).fin()] {
            lb.receive(&ending).assert_dropped().assert_counted(Reason::DropWithoutPort, []);
        }
        // Where both its buckets are full of flows that stay.
        lb.configure(&lab(hosts).flow_buckets(1));
        for port in 2000..2004 {
            lb.plant((hosts.client, port), 2, 2, State::DATAGRAM, 0);
        }
        let run = lb.receive(&hosts.to_vip().udp(1000, 80));
        run.assert_dropped().assert_counted(Reason::DropWithoutPort, [Event::FlowUntracked]);
    }
}

#[test]
fn fragments_of_either_way_follow_their_first() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(hosts));
        let payload: Vec<u8> = (0..1600u32).map(|n| n as u8).collect();
        let request = hosts.to_vip().udp(5000, 80).payload(payload.clone());
        let sent = hosts.to_backend().from(hosts.pool[1]).udp(PORT, 8080).payload(payload.clone());
        for range in [0..800, 800..1608] {
            let run = lb.receive(&request.clone().fragment(7, range.clone()));
            run.assert_redirected(LAN_INDEX, &sent.clone().fragment(7, range));
        }
        let reply = hosts.from_backend().to(hosts.pool[1]).udp(8080, PORT).payload(payload.clone());
        let sent = hosts.from_vip().udp(80, 5000).payload(payload);
        for range in [0..800, 800..1608] {
            let run = lb.receive(&reply.clone().fragment(9, range.clone()));
            run.assert_redirected(WAN_INDEX, &sent.clone().fragment(9, range));
        }
    }
}

#[test]
fn what_must_be_answered_is_answered_from_the_address_that_its_sender_knows() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(hosts));
        let run = lb.receive(&hosts.to_vip().ttl(1).tcp(40_000, 80).syn());
        let quoted = hosts.to_vip().ttl(1).tcp(40_000, 80).syn();
        run.assert_transmitted(&hosts.answer().df().time_exceeded().quoting(&quoted, hosts.max_quote));
        lb.receive(&hosts.to_vip().tcp(40_000, 80).syn());
        let reply = from_backend(&hosts).ttl(1).tcp(8080, PORT).syn().ack(1);
        let run = lb.receive(&reply);
        let answer = packet().eth(LAN, backend_mac(0)).ip(hosts.pool[0], hosts.backends[0]).df();
        run.assert_transmitted(&answer.time_exceeded().quoting(&reply, hosts.max_quote));
    }
}

/// How much of a packet an error quotes: the least that RFC 792 asks for, all but a header, a part, all.
fn lengths(hosts: &Hosts) -> [usize; 4] {
    [hosts.header + 8, hosts.header + 18, hosts.header + 100, 9999]
}

#[test]
fn an_error_about_a_reply_reaches_the_backend_from_the_pool() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(hosts));
        lb.receive(&hosts.to_vip().tcp(40_000, 80).syn());
        let sent = hosts.from_vip().tcp(80, 40_000).seq(77).ack(5).payload(vec![9; 300]);
        let known = from_backend(&hosts).ttl(63).tcp(8080, PORT).seq(77).ack(5).payload(vec![9; 300]);
        for length in lengths(&hosts) {
            let error = packet().eth(ROUTER, WAN).ip(hosts.router, hosts.vip);
            let run = lb.receive(&error.too_big(1280).quoting(&sent, length));
            run.assert_redirected(LAN_INDEX, &to_backend(&hosts).too_big(1280).quoting(&known, length));
            run.assert_counted(Reason::IcmpToBackend, []);
        }
    }
}

#[test]
fn an_error_about_a_request_reaches_the_client_in_its_own_terms() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(hosts));
        lb.receive(&hosts.to_vip().udp(5000, 80));
        let sent = hosts.to_backend().from(hosts.pool[1]).udp(PORT, 8080).payload(vec![9; 301]);
        let known = hosts.to_vip().ttl(63).udp(5000, 80).payload(vec![9; 301]);
        let first = [Event::NextHopLookup];
        for (length, events) in lengths(&hosts).into_iter().zip([&first[..], &[], &[], &[]]) {
            let error = packet().eth(backend_mac(0), LAN).ip(hosts.router, hosts.pool[1]);
            let run = lb.receive(&error.time_exceeded().quoting(&sent, length));
            let expected = hosts.from_vip().from(hosts.router).time_exceeded().quoting(&known, length);
            run.assert_redirected(WAN_INDEX, &expected);
            run.assert_counted_with(Reason::IcmpToClient, events);
        }
        let error = hosts.from_backend().to(hosts.pool[1]).port_unreachable().quoting(&sent, 9999);
        let expected = hosts.from_vip().port_unreachable().quoting(&known, 9999);
        lb.receive(&error).assert_redirected(WAN_INDEX, &expected);
    }
}

#[test]
fn an_error_that_quotes_no_flow_of_the_pool_passes() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(hosts));
        let about_request = hosts.to_backend().from(hosts.pool[0]).tcp(PORT, 8080);
        let about_reply = hosts.from_vip().tcp(80, 40_000);
        for error in [
            packet()
                .eth(backend_mac(0), LAN)
                .ip(hosts.router, hosts.pool[0])
                .time_exceeded()
                .quoting(&about_request, 99),
            packet().eth(ROUTER, WAN).ip(hosts.router, hosts.vip).time_exceeded().quoting(&about_reply, 99),
        ] {
            lb.receive(&error).assert_untouched().assert_counted(Reason::PassIcmpWithoutFlow, []);
        }
    }
}
