//! Frames that are cut off or contradict themselves: dropped where they are ours, passed where they are not.

use lb_common::reason::{Event, Reason};
use lb_tests::lab::{FAMILIES, Lab, V4, V6};

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

#[test]
fn a_request_cut_off_behind_its_ip_header_is_dropped() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        for whole in
            [hosts.to_vip().tcp(1, 80).syn().payload("data"), hosts.to_vip().udp(1, 80).payload("data")]
        {
            let bytes = whole.bytes();
            for length in ETHERNET + hosts.header..bytes.len() {
                let run = lb.receive_bytes(&bytes[..length]);
                run.assert_dropped().assert_counted(Reason::DropTruncated, []);
            }
        }
    }
}

#[test]
fn a_frame_cut_off_before_its_addresses_is_nobody_s_and_passes() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        let bytes = hosts.to_vip().tcp(1, 80).syn().bytes();
        for length in ETHERNET..ETHERNET + hosts.header {
            let run = lb.receive_bytes(&bytes[..length]);
            run.assert_untouched().assert_counted(Reason::PassNotOurs, []);
        }
    }
}

#[test]
fn a_frame_of_others_passes_however_short() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        for whole in [
            hosts.to_vip().to(hosts.stranger).tcp(1, 80).syn().payload("data"),
            hosts.to_vip().to(hosts.stranger).echo_request(1, 1),
        ] {
            let bytes = whole.bytes();
            for length in ETHERNET..bytes.len() {
                lb.receive_bytes(&bytes[..length]).assert_untouched().assert_counted(Reason::PassNotOurs, []);
            }
        }
    }
}

#[test]
fn a_length_that_ends_within_the_transport_header_is_dropped() {
    let mut lb = balancer!(Lab::web(V4));
    let mut frame = V4.to_vip().tcp(1, 80).syn().bytes();
    frame[ETHERNET + 2..ETHERNET + 4].copy_from_slice(&39_u16.to_be_bytes());
    lb.receive_bytes(&frame).assert_dropped().assert_counted(Reason::DropTruncated, []);

    lb.restart(&Lab::web(V6));
    let mut frame = V6.to_vip().tcp(1, 80).syn().bytes();
    frame[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&19_u16.to_be_bytes());
    lb.receive_bytes(&frame).assert_dropped().assert_counted(Reason::DropTruncated, []);
}

#[test]
fn lengths_that_contradict_each_other_are_dropped() {
    let mut lb = balancer!(Lab::web(V4));
    // A header of four words, one of fifteen in a packet of twenty bytes, a version that is not the EtherType's.
    for (at, value) in [(0, 0x44), (0, 0x4f), (0, 0x65)] {
        let mut frame = V4.to_vip().udp(1, 80).bytes();
        frame[ETHERNET + at] = value;
        lb.receive_bytes(&frame).assert_dropped().assert_counted(Reason::DropMalformed, []);
    }

    lb.restart(&Lab::web(V6));
    // A jumbogram, a length that wraps, a version that is not the EtherType's.
    for (at, value) in [(4, [0, 0]), (4, [0xff, 0xff]), (0, [0x40, 0])] {
        let mut frame = V6.to_vip().udp(1, 80).bytes();
        frame[ETHERNET + at..ETHERNET + at + 2].copy_from_slice(&value);
        lb.receive_bytes(&frame).assert_dropped().assert_counted(Reason::DropMalformed, []);
    }
}

#[test]
fn an_extension_header_beyond_the_packet_s_end_is_dropped() {
    let mut lb = balancer!(Lab::web(V6));
    // In the frame, but behind the stated length.
    let mut frame = V6.to_vip().extension(lb_tests::packet::Extension::HopByHop(2)).udp(1, 80).bytes();
    frame[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&16_u16.to_be_bytes());
    lb.receive_bytes(&frame).assert_dropped().assert_counted(Reason::DropMalformed, []);
    // Beyond the frame.
    let mut frame = V6.to_vip().extension(lb_tests::packet::Extension::HopByHop(0)).udp(1, 80).bytes();
    frame[ETHERNET + 41] = 200;
    lb.receive_bytes(&frame).assert_dropped().assert_counted(Reason::DropMalformed, []);
}

#[test]
fn a_reply_cut_off_in_its_transport_header_is_not_recognised_and_passes() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        lb.receive(&hosts.to_vip().tcp(1, 80).syn())
            .assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
        let bytes = hosts.from_backend().tcp(8080, 1).syn().ack(1).bytes();
        let run = lb.receive_bytes(&bytes[..bytes.len() - 1]);
        run.assert_untouched().assert_counted(Reason::PassNotOurs, []);
    }
}
