//! A backend that refuses or does not answer: its flow is given another, before its client notices.

use lb_common::reason::{Event, Reason};
use lb_common::suspicion::Suspicion;
use lb_common::syn::SynRow;
use lb_tests::balancer::Balancer;
use lb_tests::lab::{
    Backend, FAMILIES, FIRST_POOL_PORT, Hosts, LAN, LAN_INDEX, Lab, Service, WAN_INDEX, backend_mac,
};
use lb_tests::packet::Packet;

const PORT: u16 = 40_000;
/// The client's initial sequence number.
const SEQUENCE: u32 = 0x8000_0007;

/// A TCP service of three backends, 1 to 3, that retries.
fn service(hosts: &Hosts) -> Service {
    let backend = |index: usize| Backend::at(hosts.backends[index], 8080);
    Service::tcp(hosts.vip, 80).backend(backend(0)).backend(backend(1)).backend(backend(2)).retrying()
}

fn syn(hosts: &Hosts) -> Packet {
    hosts.to_vip().tcp(PORT, 80).syn().seq(SEQUENCE).window(12_345)
}

/// The backend that the only flow is on.
fn backend(lb: &mut Balancer) -> usize {
    let flows = lb.flows();
    assert_eq!(flows.len(), 1);
    usize::from(flows[0].backend)
}

/// The SYN as a backend gets it.
fn at(hosts: &Hosts, backend: usize, client: Packet) -> Packet {
    let packet = client.eth(LAN, backend_mac(backend - 1)).to(hosts.backends[backend - 1]);
    packet.tcp(PORT, 8080).syn().seq(SEQUENCE).window(12_345)
}

/// A packet of a backend to the client.
fn from(hosts: &Hosts, backend: usize) -> Packet {
    let packet = hosts.from_backend().eth(backend_mac(backend - 1), LAN).from(hosts.backends[backend - 1]);
    packet.tcp(8080, PORT)
}

fn refusal(hosts: &Hosts, backend: usize) -> Packet {
    from(hosts, backend).rst().ack(SEQUENCE.wrapping_add(1))
}

/// As many jiffies as a second has pass for the SYNs that are kept. The lab's own seconds are endless.
fn a_second_passes(lb: &mut Balancer) {
    const JIFFIES: u16 = 1000;
    let rows = lb.rows();
    rows.settings.jiffies_per_second = JIFFIES.into();
    rows.syns.iter().for_each(|row| row.backdate(JIFFIES));
}

fn is_suspect(lb: &mut Balancer, backend: usize) -> bool {
    Suspicion(lb.rows().loads[backend].suspicion.load()).is_suspect()
}

#[test]
fn a_refused_connection_goes_from_backend_to_backend_and_its_client_gets_the_last_reset() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::new().service(service(&hosts)));
        lb.receive(&syn(&hosts)).assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
        let first = backend(&mut lb);
        let mut tried = vec![first];
        for _ in 0..2 {
            let refusing = tried[tried.len() - 1];
            let run = lb.receive(&refusal(&hosts, refusing));
            let next = backend(&mut lb);
            run.assert_counted(Reason::RequestRetried, [Event::FlowRetried]);
            run.assert_redirected(LAN_INDEX, &at(&hosts, next, hosts.to_backend()).df());
            assert!(!tried.contains(&next), "{next} again, after {tried:?}");
            assert!(is_suspect(&mut lb, refusing) && !is_suspect(&mut lb, next));
            let rows = lb.rows();
            let (was, is) = (&rows.loads[refusing], &rows.loads[next]);
            assert_eq!(
                (was.active.load(), was.refused.load(), is.active.load(), is.retried.load()),
                (0, 1, 1, 1)
            );
            tried.push(next);
        }
        let run = lb.receive(&refusal(&hosts, tried[2]));
        let reset = hosts.from_vip().tcp(80, PORT).rst().ack(SEQUENCE.wrapping_add(1));
        run.assert_redirected(WAN_INDEX, &reset);
        assert_eq!(lb.flows()[0].state, "closing");
        assert!((1..=3).all(|backend| lb.rows().loads[backend].active.load() == 0));
    }
}

#[test]
fn an_answer_of_the_next_backend_is_the_flow_s_and_those_of_the_one_before_are_not() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::new().service(service(&hosts)));
        lb.receive(&syn(&hosts));
        let left = backend(&mut lb);
        lb.receive(&refusal(&hosts, left));
        let next = backend(&mut lb);

        let late = from(&hosts, left).syn().seq(70).ack(SEQUENCE.wrapping_add(1));
        let run = lb.receive(&late);
        let reset = hosts.from_backend().eth(LAN, backend_mac(left - 1)).ttl(64).df();
        let run_reset = reset.from(hosts.client).to(hosts.backends[left - 1]).tcp(PORT, 8080);
        run.assert_transmitted(&run_reset.rst().seq(SEQUENCE.wrapping_add(1)).window(0));
        run.assert_counted(Reason::ResetSynAckStale, []);
        let run = lb.receive(&refusal(&hosts, left));
        run.assert_dropped().assert_counted(Reason::DropResetStale, []);

        let answer = from(&hosts, next).syn().seq(80).ack(SEQUENCE.wrapping_add(1));
        lb.receive(&answer).assert_counted(Reason::ReplyForwarded, [Event::NextHopLookup]);
        assert_eq!((backend(&mut lb), lb.flows()[0].state), (next, "answered"));
        // Whoever has answered is above suspicion, and a reset of it is its client's.
        assert!(!is_suspect(&mut lb, next));
        let run = lb.receive(&refusal(&hosts, next));
        run.assert_redirected(WAN_INDEX, &hosts.from_vip().tcp(80, PORT).rst().ack(SEQUENCE.wrapping_add(1)));
    }
}

#[test]
fn a_reset_of_another_connection_changes_nothing() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::new().service(service(&hosts)));
        lb.receive(&syn(&hosts));
        let first = backend(&mut lb);
        for stale in [from(&hosts, first).rst().ack(SEQUENCE), from(&hosts, first).rst().seq(1)] {
            let run = lb.receive(&stale);
            run.assert_dropped().assert_counted(Reason::DropResetStale, []);
            assert_eq!((backend(&mut lb), lb.flows()[0].state), (first, "half-open"));
        }
    }
}

#[test]
fn a_reset_whose_syn_is_forgotten_is_dropped_and_the_client_s_next_syn_goes_elsewhere() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::new().service(service(&hosts)));
        lb.receive(&syn(&hosts));
        let first = backend(&mut lb);
        lb.rows().syns.fill(SynRow::default());
        let run = lb.receive(&refusal(&hosts, first));
        run.assert_dropped().assert_counted(Reason::DropRefused, [Event::FlowRetried]);
        let next = backend(&mut lb);
        assert!(next != first && is_suspect(&mut lb, first));
        let run = lb.receive(&syn(&hosts));
        run.assert_redirected(LAN_INDEX, &at(&hosts, next, hosts.to_backend()));
        run.assert_counted(Reason::RequestForwarded, []);
        // Now it is known, and where it was before too.
        let run = lb.receive(&refusal(&hosts, next));
        run.assert_counted(Reason::RequestRetried, [Event::FlowRetried]);
        let last = backend(&mut lb);
        assert!(![first, next].contains(&last));
    }
}

#[test]
fn a_syn_that_comes_again_unanswered_goes_to_another_backend_and_a_copy_does_not() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::new().service(service(&hosts)));
        lb.receive(&syn(&hosts));
        let first = backend(&mut lb);
        lb.receive(&syn(&hosts)).assert_counted(Reason::RequestForwarded, []);
        assert_eq!(backend(&mut lb), first);
        a_second_passes(&mut lb);
        let run = lb.receive(&syn(&hosts));
        run.assert_counted(Reason::RequestForwarded, [Event::FlowRetried]);
        let next = backend(&mut lb);
        assert_ne!(next, first);
        run.assert_redirected(LAN_INDEX, &at(&hosts, next, hosts.to_backend()));
        assert_eq!(lb.rows().loads[first].unanswered.load(), 1);
        assert!(!is_suspect(&mut lb, first), "one packet may have been lost");
    }
}

#[test]
fn new_flows_avoid_a_suspect_backend_while_there_is_another() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::new().service(service(&hosts)));
        let jiffies = lb.jiffies();
        for suspect in [2, 3] {
            let word = Suspicion::default().refused(jiffies + 1_000_000, 250);
            lb.rows().loads[suspect].suspicion.store(word.0);
        }
        let mut avoided = 0;
        for port in PORT..PORT + 30 {
            let run = lb.receive(&hosts.to_vip().tcp(port, 80).syn());
            avoided += run.counters.get(Event::SuspectAvoided.name()).copied().unwrap_or(0);
        }
        assert!(lb.flows().iter().all(|flow| flow.backend == 1));
        assert!((10..=28).contains(&avoided), "{avoided} of 30");
        // Where all are, the strategy decides.
        let word = Suspicion::default().refused(jiffies + 1_000_000, 250);
        lb.rows().loads[1].suspicion.store(word.0);
        for port in PORT + 30..PORT + 60 {
            lb.receive(&hosts.to_vip().tcp(port, 80).syn())
                .assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
        }
        assert!(lb.flows().iter().any(|flow| flow.backend != 1));
    }
}

#[test]
fn full_nat_keeps_the_port_while_it_goes_from_backend_to_backend() {
    for hosts in FAMILIES {
        let mut lb = balancer!(Lab::new().service(service(&hosts).full_nat(&hosts.pool[..1])));
        lb.receive(&syn(&hosts));
        let first = backend(&mut lb);
        let refusal = |backend: usize| {
            let packet =
                hosts.from_backend().eth(backend_mac(backend - 1), LAN).from(hosts.backends[backend - 1]);
            packet.to(hosts.pool[0]).tcp(8080, FIRST_POOL_PORT).rst().ack(SEQUENCE.wrapping_add(1))
        };
        let run = lb.receive(&refusal(first));
        run.assert_counted(Reason::RequestRetried, [Event::FlowRetried]);
        let next = backend(&mut lb);
        let client = hosts.to_backend().from(hosts.pool[0]).df();
        let client = client.eth(LAN, backend_mac(next - 1)).to(hosts.backends[next - 1]);
        run.assert_redirected(
            LAN_INDEX,
            &client.tcp(FIRST_POOL_PORT, 8080).syn().seq(SEQUENCE).window(12_345),
        );
        let run = lb.receive(&refusal(first));
        run.assert_dropped().assert_counted(Reason::DropResetStale, []);
        a_second_passes(&mut lb);
        let run = lb.receive(&syn(&hosts));
        run.assert_counted(Reason::RequestForwarded, [Event::FlowRetried]);
        let last = backend(&mut lb);
        assert!(![first, next].contains(&last));
        lb.receive(&refusal(last));
        assert_eq!(lb.flows()[0].state, "closing");
    }
}

#[test]
fn without_retry_the_client_gets_the_first_reset() {
    for hosts in FAMILIES {
        let backend = |index: usize| Backend::at(hosts.backends[index], 8080);
        let service = Service::tcp(hosts.vip, 80).backend(backend(0)).backend(backend(1));
        let mut lb = balancer!(Lab::new().service(service));
        lb.receive(&syn(&hosts));
        let first = self::backend(&mut lb);
        let run = lb.receive(&refusal(&hosts, first));
        run.assert_redirected(WAN_INDEX, &hosts.from_vip().tcp(80, PORT).rst().ack(SEQUENCE.wrapping_add(1)));
    }
}
