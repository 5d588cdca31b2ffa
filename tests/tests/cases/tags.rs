//! VLAN tags: those of the way in end here, those of the way out begin here.

use lb_common::reason::{Event, Reason};
use lb_tests::lab::{Backend, FAMILIES, Hosts, LAN_INDEX, Lab, Service, V4, lan_hop, with_tags};
use lb_tests::packet::{Packet, packet};

/// No tag, one, two.
const STACKS: [&[(u16, u16)]; 3] = [&[], &[(0x8100, 0x6064)], &[(0x88a8, 200), (0x8100, 100)]];

fn tagged(packet: Packet, tags: &[(u16, u16)]) -> Packet {
    tags.iter().fold(packet, |packet, &(ethertype, control)| packet.tag(ethertype, control))
}

fn lab(hosts: &Hosts, tags: &[(u16, u16)]) -> Lab {
    let backend = Backend::at(hosts.backends[0], 8080).by(with_tags(lan_hop(0), tags));
    Lab::new().service(Service::tcp(hosts.vip, 80).backend(backend))
}

#[test]
fn a_request_leaves_with_the_tags_of_its_next_hop_whatever_it_came_with() {
    for hosts in FAMILIES {
        for outbound in STACKS {
            let mut lb = balancer!(lab(&hosts, outbound));
            for (inbound, port) in STACKS.into_iter().zip(1000..) {
                let run = lb.receive(&tagged(hosts.to_vip(), inbound).tcp(port, 80).syn());
                let expected = tagged(hosts.to_backend(), outbound).tcp(port, 8080).syn();
                run.assert_redirected(LAN_INDEX, &expected);
                run.assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
            }
        }
    }
}

#[test]
fn an_answer_keeps_the_tags_of_what_it_answers() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        for tags in STACKS {
            let request = tagged(hosts.to_vip(), tags);
            let run = lb.receive(&request.clone().echo_request(1, 1));
            run.assert_transmitted(&tagged(hosts.answer(), tags).echo_reply(1, 1));
            let expired = request.ttl(1).udp(1, 80);
            let run = lb.receive(&expired);
            run.assert_transmitted(
                &tagged(hosts.answer(), tags).df().time_exceeded().quoting(&expired, 9999),
            );
        }
    }
}

#[test]
fn a_third_tag_is_not_looked_behind() {
    let mut lb = balancer!(Lab::web(V4));
    let run = lb.receive(&V4.to_vip().vlan(1).vlan(2).vlan(3).tcp(1, 80).syn());
    run.assert_untouched().assert_counted(Reason::PassNotIp, []);
}

#[test]
fn tagged_frames_that_are_not_ours_pass_with_their_tags() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        let run = lb.receive(&packet().vlan(100).ethertype(0x0806).padded(46));
        run.assert_untouched().assert_counted(Reason::PassNotIp, []);
        let run = lb.receive(&hosts.to_vip().vlan(100).tcp(1, 81).syn());
        run.assert_untouched().assert_counted(Reason::PassNotOurs, []);
    }
}
