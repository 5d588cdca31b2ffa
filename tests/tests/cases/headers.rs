//! What may stand between the link-layer header and the transport header.

use lb_common::reason::{Event, Reason};
use lb_tests::lab::{LAN_INDEX, Lab, V4, V6, WAN_INDEX};
use lb_tests::packet::Extension;

#[test]
fn ipv4_options_travel_on() {
    let mut lb = balancer!(Lab::web(V4));
    for length in [4, 8, 40] {
        // Record route, without room, and no-operations.
        let mut options = vec![1_u8; length];
        options[..3].copy_from_slice(&[7, 3, 4]);
        let run = lb.receive(&V4.to_vip().options(&options).udp(length as u16, 80).payload("odd"));
        let expected = V4.to_backend().options(&options).udp(length as u16, 8080).payload("odd");
        run.assert_redirected(LAN_INDEX, &expected);
        run.assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
    }
    let run = lb.receive(&V4.from_backend().options(&[1; 8]).udp(8080, 40).payload("odd"));
    run.assert_redirected(WAN_INDEX, &V4.from_vip().options(&[1; 8]).udp(80, 40).payload("odd"));
}

#[test]
fn ipv6_extension_headers_travel_on() {
    use Extension::{AtomicFragment, DestinationOptions, HopByHop, Routing};
    let mut lb = balancer!(Lab::web(V6));
    let chains = [
        vec![HopByHop(0)],
        vec![DestinationOptions(3)],
        vec![HopByHop(1), DestinationOptions(0), Routing(2), AtomicFragment(7), DestinationOptions(1)],
        vec![HopByHop(255)],
    ];
    for (chain, port) in chains.into_iter().zip(1000..) {
        // A chain of 2,048 bytes is longer than the link to the backend takes: that one is answered.
        let fits = !chain.contains(&HopByHop(255));
        let request = chain.iter().fold(V6.to_vip(), |packet, &next| packet.extension(next));
        let run = lb.receive(&request.tcp(port, 80).syn());
        if fits {
            let expected = chain.iter().fold(V6.to_backend(), |packet, &next| packet.extension(next));
            run.assert_redirected(LAN_INDEX, &expected.tcp(port, 8080).syn());
            run.assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
        } else {
            run.assert_counted(Reason::TooBig, [Event::FlowCreated]);
        }
    }
}

#[test]
fn a_chain_of_six_extension_headers_is_walked_and_one_of_seven_is_not() {
    let mut lb = balancer!(Lab::web(V6));
    let chain = |length| {
        let options = Extension::DestinationOptions(0);
        (0..length).fold(V6.to_vip(), |packet, _| packet.extension(options)).udp(1, 80)
    };
    lb.receive(&chain(6)).assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
    lb.receive(&chain(7)).assert_dropped().assert_counted(Reason::DropMalformed, []);
    let elsewhere = chain(7).to(V6.stranger);
    lb.receive(&elsewhere).assert_untouched().assert_counted(Reason::PassNotOurs, []);
}

#[test]
fn a_protocol_of_nobody_s_behind_extension_headers_passes() {
    let mut lb = balancer!(Lab::web(V6));
    let run = lb.receive(&V6.to_vip().extension(Extension::HopByHop(0)).protocol(50).payload("sealed"));
    run.assert_untouched().assert_counted(Reason::PassNotOurs, []);
}

#[test]
fn dscp_and_flow_label_travel_on() {
    for (hosts, at) in [(V4, 15), (V6, 15)] {
        let mut lb = balancer!(Lab::web(hosts));
        let mut frame = hosts.to_vip().udp(1, 80).bytes();
        let old = frame[at];
        frame[at] = 0xb8;
        if !hosts.is_v6() {
            // The header's checksum, for the one byte that changed: 0xb800 more under a field that was sent inverted.
            let field = u16::from_be_bytes([frame[24], frame[25]]);
            let sum = u32::from(!field) + 0xb8;
            frame[24..26].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
            assert_eq!(old, 0);
        }
        let run = lb.receive_bytes(&frame);
        assert_eq!(run.output[at], 0xb8);
        assert_eq!(lb_tests::packet::checksums_valid(&run.output), Ok(()), "{}", run.report(None));
    }
}
