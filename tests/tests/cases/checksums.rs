//! Checksum fields with a meaning of their own, and sums at which a carry is easily lost.

use lb_common::reason::{Event, Reason};
use lb_tests::balancer::Action;
use lb_tests::lab::{FAMILIES, LAN_INDEX, Lab, V4, V6};
use lb_tests::packet::{checksums_valid, describe};

/// Where a plain IPv4 or IPv6 packet's UDP checksum is in the frame.
fn udp_checksum(header: usize, frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[14 + header + 6], frame[14 + header + 7]])
}

#[test]
fn udp_over_ipv4_without_a_checksum_stays_without() {
    let mut lb = balancer!(Lab::web(V4));
    let run = lb.receive(&V4.to_vip().udp(1, 80).udp_checksum(0).payload("data"));
    run.assert_redirected(LAN_INDEX, &V4.to_backend().udp(1, 8080).udp_checksum(0).payload("data"));
    run.assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
    let run = lb.receive(&V4.from_backend().udp(8080, 1).udp_checksum(0).payload("data"));
    assert_eq!(udp_checksum(20, &run.output), 0);
}

#[test]
fn udp_over_ipv6_without_a_checksum_is_dropped() {
    let mut lb = balancer!(Lab::web(V6));
    let run = lb.receive(&V6.to_vip().udp(1, 80).udp_checksum(0).payload("data"));
    run.assert_dropped().assert_counted(Reason::DropUdpChecksumZero, []);
}

#[test]
fn a_udp_checksum_that_comes_out_as_zero_is_sent_as_all_ones() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        let sums_to_zero = |payload: &[u8; 2]| {
            udp_checksum(hosts.header, &hosts.to_backend().udp(1, 8080).payload(*payload).bytes()) == 0xffff
        };
        let payload = (0..=u16::MAX).map(u16::to_be_bytes).find(sums_to_zero).expect("one in 65,536 does");

        let run = lb.receive(&hosts.to_vip().udp(1, 80).payload(payload));

        assert_eq!(udp_checksum(hosts.header, &run.output), 0xffff);
        run.assert_redirected(LAN_INDEX, &hosts.to_backend().udp(1, 8080).payload(payload));
    }
}

#[test]
fn every_udp_checksum_survives_the_translation() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        for payload in (0..=u16::MAX).step_by(17).map(u16::to_be_bytes) {
            let (action, output, _) = lb.run(&hosts.to_vip().udp(1, 80).payload(payload).bytes());
            assert_eq!(action, Action::Redirect);
            assert_eq!(checksums_valid(&output), Ok(()), "{}", describe(&output));
        }
    }
}

#[test]
fn every_echo_checksum_survives_the_answer_without_a_lost_carry() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        // The sums at which adding the difference of the types overflows are a few hundred of all.
        for sequence in 0..=u16::MAX {
            let (action, output, _) = lb.run(&hosts.to_vip().echo_request(0, sequence).bytes());
            assert_eq!(action, Action::Transmit);
            assert_eq!(checksums_valid(&output), Ok(()), "{}", describe(&output));
        }
    }
}
