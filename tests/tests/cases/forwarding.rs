//! Requests to a backend and replies to the client.

use lb_common::reason::{Event, Reason};
use lb_tests::lab::{FAMILIES, LAN_INDEX, Lab, WAN_INDEX};

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
fn a_reply_without_a_flow_is_the_backend_s_own_traffic_and_passes() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::web(hosts));
        let run = lb.receive(&hosts.from_backend().tcp(8080, 40_000).ack(1));
        run.assert_untouched().assert_counted(Reason::PassReplyWithoutFlow, []);
    }
}
