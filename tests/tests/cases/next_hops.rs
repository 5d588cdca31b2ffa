//! The way to a neighbour: known, stale, unknown, none.

use lb_common::flow::State;
use lb_common::next_hop::{NextHop, RowState};
use lb_common::reason::{Event, Reason};
use lb_tests::lab::{Backend, FAMILIES, Hosts, LAN_INDEX, Lab, Service, WAN_INDEX, lan_hop};
use lb_tests::packet::{Mac, Packet, packet};

fn lab(hosts: &Hosts, backend: Backend) -> Lab {
    Lab::new().service(Service::tcp(hosts.vip, 80).backend(backend))
}

fn request(hosts: &Hosts) -> Packet {
    hosts.to_vip().tcp(40_000, 80).syn()
}

#[test]
fn a_backend_s_neighbour_is_looked_up_once() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(&hosts, Backend::at(hosts.backends[0], 8080).unresolved()));
        for events in [&[Event::FlowCreated, Event::NextHopLookup][..], &[]] {
            let run = lb.receive(&request(&hosts));
            run.assert_redirected(LAN_INDEX, &hosts.to_backend().tcp(40_000, 8080).syn());
            run.assert_counted_with(Reason::RequestForwarded, events);
        }
    }
}

#[test]
fn a_packet_to_an_unknown_neighbour_is_rewritten_and_left_to_the_kernel_which_counts_the_hop() {
    for hosts in FAMILIES {
        let backend = hosts.special_backends.unknown_neighbour;
        let mut lb = balancer!(lab(&hosts, Backend::at(backend, 8080).unresolved()));
        let run = lb.receive(&request(&hosts).vlan(100));
        run.assert_passed_as(&hosts.to_vip().vlan(100).to(backend).tcp(40_000, 8080).syn());
        run.assert_counted(Reason::PassNeighbourUnknown, [Event::FlowCreated, Event::NextHopLookup]);
    }
}

#[test]
fn a_reply_to_a_client_with_an_unknown_neighbour_is_rewritten_and_left_to_the_kernel() {
    for hosts in FAMILIES {
        let client = hosts.clients.unknown_neighbour;
        let mut lb = balancer!(Lab::web(hosts));
        lb.plant((client, 40_000), 1, 1, State::ESTABLISHED, 0);
        for _ in 0..2 {
            let run = lb.receive(&hosts.from_backend().to(client).tcp(8080, 40_000).ack(1));
            run.assert_passed_as(&hosts.from_backend().from(hosts.vip).to(client).tcp(80, 40_000).ack(1));
            run.assert_counted(Reason::PassNeighbourUnknown, [Event::NextHopLookup]);
        }
    }
}

#[test]
fn a_route_that_xdp_cannot_follow_is_left_to_the_kernel() {
    for hosts in FAMILIES {
        let backend = hosts.special_backends.local;
        let mut lb = balancer!(lab(&hosts, Backend::at(backend, 8080).unresolved()));
        let run = lb.receive(&request(&hosts));
        run.assert_passed_as(&hosts.to_vip().to(backend).tcp(40_000, 8080).syn());
        run.assert_counted(Reason::PassForRouting, [Event::FlowCreated, Event::NextHopLookup]);
    }
}

#[test]
fn a_route_to_nowhere_drops() {
    for hosts in FAMILIES {
        let special = hosts.special_backends;
        for backend in [special.blackhole, special.unreachable, special.prohibited] {
            let mut lb = balancer!(lab(&hosts, Backend::at(backend, 8080).unresolved()));
            let run = lb.receive(&request(&hosts));
            run.assert_dropped();
            run.assert_counted(Reason::DropNoRoute, [Event::FlowCreated, Event::NextHopLookup]);
        }
        let mut lb = balancer!(Lab::web(hosts));
        lb.plant((hosts.clients.blackhole, 40_000), 1, 1, State::ESTABLISHED, 0);
        let run = lb.receive(&hosts.from_backend().to(hosts.clients.blackhole).tcp(8080, 40_000).ack(1));
        run.assert_dropped().assert_counted(Reason::DropNoRoute, [Event::NextHopLookup]);
    }
}

#[test]
fn a_way_through_a_vlan_interface_is_taken_through_the_physical_one_with_its_tags() {
    let mac = |interface, end| Mac([2, 0, 0, 0, interface, end]);
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        let (once, twice) = (hosts.clients.tagged, hosts.clients.double_tagged);
        for client in [once, twice] {
            lb.plant((client, 40_000), 1, 1, State::ESTABLISHED, 0);
        }
        let reply = |client| hosts.from_backend().to(client).tcp(8080, 40_000).ack(1);
        let expected = |client, interface| {
            let link = packet().eth(mac(interface, 1), mac(interface, 2));
            link.ip(hosts.vip, client).ttl(63).tcp(80, 40_000).ack(1)
        };
        lb.receive(&reply(once)).assert_transmitted(&expected(once, 0x31).vlan(100));
        let run = lb.receive(&reply(twice));
        run.assert_redirected(WAN_INDEX, &expected(twice, 0x41).tag(0x88a8, 7).vlan(100));
    }
}

#[test]
fn a_stale_next_hop_is_confirmed_by_one_look_up() {
    for hosts in FAMILIES {
        let stale = Backend::at(hosts.backends[0], 8080).by_stale(lan_hop(0));
        let mut lb = balancer!(lab(&hosts, stale));
        for events in [&[Event::FlowCreated, Event::NextHopLookup][..], &[]] {
            let run = lb.receive(&request(&hosts));
            run.assert_redirected(LAN_INDEX, &hosts.to_backend().tcp(40_000, 8080).syn());
            run.assert_counted_with(Reason::RequestForwarded, events);
        }
    }
}

#[test]
fn a_next_hop_that_no_longer_leads_there_is_retired() {
    for hosts in FAMILIES {
        let mut old = lan_hop(0);
        old.destination = Mac::local(0x99).0;
        let mut lb = balancer!(lab(&hosts, Backend::at(hosts.backends[0], 8080).by_stale(old)));
        let run = lb.receive(&request(&hosts));
        run.assert_redirected(LAN_INDEX, &hosts.to_backend().tcp(40_000, 8080).syn());
        let rows = lb.rows();
        let holds_old = |row: &&NextHop| row.holds(&old.to_words());
        let retired = rows.next_hops.iter().find(holds_old).expect("the row that was planted");
        assert_eq!(retired.state.load() & 3, RowState::Retired as u64);
    }
}

#[test]
fn a_next_hop_without_room_in_the_table_is_used_all_the_same() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(&hosts, Backend::at(hosts.backends[0], 8080).unresolved()));
        for (row, number) in lb.rows().next_hops.iter().zip(0..).skip(1) {
            row.hop[0].store(number);
            row.state.store(NextHop::live(1 << 60));
        }
        for events in [&[Event::FlowCreated][..], &[]] {
            let run = lb.receive(&request(&hosts));
            run.assert_redirected(LAN_INDEX, &hosts.to_backend().tcp(40_000, 8080).syn());
            let uncached = [Event::NextHopLookup, Event::NextHopUncached];
            run.assert_counted_with(Reason::RequestForwarded, &[events, &uncached].concat());
        }
    }
}
