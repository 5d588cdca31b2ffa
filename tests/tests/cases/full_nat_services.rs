//! What any service can have, a full-NAT service has too: prefix lists, limits, affinity, measured connect times. And what
//! no full-NAT service can have: two flows that a backend cannot tell apart.

use std::collections::BTreeSet;
use std::time::Duration;

use lb_common::flow::AFFINITY_OF;
use lb_common::latency::{Latency, UNIT};
use lb_common::reason::{Event, Reason};
use lb_common::service::Index;
use lb_tests::balancer::Balancer;
use lb_tests::lab::{Backend, FAMILIES, FIRST_POOL_PORT, Hosts, LAN_INDEX, Lab, Service, V4, V6, WAN_INDEX};
use lb_tests::packet::Packet;

const PORT: u16 = 40_000;
/// The pool's only port, where it has one.
const POOL_PORT: u16 = FIRST_POOL_PORT;
const OPENED: [Event; 2] = [Event::FlowCreated, Event::PortTaken];

/// A TCP and a UDP service with three backends, each made into something, with a pool that has room for all.
fn lab(hosts: &Hosts, make: impl Fn(Service) -> Service) -> Lab {
    let service = |service: Service, pool| {
        let backends = (0..3).map(|at| Backend::at(hosts.backends[at], 8080));
        make(backends.fold(service, Service::backend)).full_nat(pool)
    };
    let (tcp, udp) = hosts.pool.split_at(1);
    Lab::new()
        .flow_buckets(4096)
        .pool_ports(64)
        .service(service(Service::tcp(hosts.vip, 80), tcp))
        .service(service(Service::udp(hosts.vip, 80), udp))
}

fn opening(hosts: &Hosts, port: u16) -> [Packet; 2] {
    [hosts.to_vip().tcp(port, 80).syn(), hosts.to_vip().udp(port, 80)]
}

#[test]
fn a_denied_client_is_turned_away_with_an_open_connection_too() {
    for (hosts, network, prefix) in [(V4, "10.1.0.0", 24), (V6, "fd00:1::", 32)] {
        let mut lb = balancer!(lab(&hosts, |service| service));
        for packet in opening(&hosts, PORT) {
            lb.receive(&packet).assert_counted(Reason::RequestForwarded, OPENED);
        }
        let entries = lb.flows().len();
        lb.configure(&lab(&hosts, |service| service.deny(network, prefix)));
        assert_eq!(lb.flows().len(), entries, "its flows are still there");
        for packet in [
            hosts.to_vip().tcp(PORT, 80).ack(1),
            hosts.to_vip().vlan(100).udp(PORT, 80),
            hosts.to_vip().tcp(PORT, 80).ttl(1).ack(1),
            hosts.to_vip().tcp(PORT + 1, 80).syn(),
        ] {
            lb.receive(&packet).assert_dropped().assert_counted(Reason::DropDenied, []);
        }
        let run = lb.receive(&hosts.to_vip().from(hosts.stranger).tcp(PORT, 80).syn());
        run.assert_counted(Reason::RequestForwarded, OPENED);
    }
}

#[test]
fn a_flow_beyond_a_limit_gets_neither_an_entry_nor_a_port() {
    for (hosts, longest) in [(V4, 32), (V6, 128)] {
        let of_all = lab(&hosts, |service| service.new_flows(2));
        let of_each = lab(&hosts, |service| service.new_flows_of_a_source(2, longest));
        for (lab, reason) in [(of_all, Reason::DropServiceLimit), (of_each, Reason::DropSourceLimit)] {
            let mut lb = balancer!(lab);
            for flow in 0..4 {
                for packet in opening(&hosts, PORT + flow) {
                    let run = lb.receive(&packet);
                    if flow < 2 {
                        run.assert_counted(Reason::RequestForwarded, OPENED);
                    } else {
                        run.assert_dropped().assert_counted(reason, []);
                    }
                }
            }
            assert_eq!(lb.flows().len(), 4);
            // Flows that there are go on.
            for port in [PORT, PORT + 1] {
                let run = lb.receive(&hosts.to_vip().tcp(port, 80).ack(1));
                run.assert_counted(Reason::RequestForwarded, []);
            }
        }
    }
}

#[test]
fn all_flows_of_a_client_go_to_one_backend_under_every_strategy() {
    for (hosts, index) in FAMILIES.into_iter().flat_map(|hosts| Index::ALL.map(|index| (hosts, index))) {
        let mut lb = balancer!(lab(&hosts, |service| service.by(index).sticky(100)));
        for port in 1..=20 {
            for packet in opening(&hosts, port) {
                lb.receive(&packet).assert_counted(Reason::RequestForwarded, OPENED);
            }
        }
        for service in [1, 2] {
            let flows: Vec<_> =
                lb.flows().into_iter().filter(|flow| flow.service & !AFFINITY_OF == service).collect();
            assert_eq!(flows.len(), 20 + 1, "{index:?}");
            let backends: BTreeSet<_> = flows.iter().map(|flow| flow.backend).collect();
            assert_eq!(backends.len(), 1, "{index:?}");
        }
    }
}

/// One backend, and one port in the pool.
fn timed(hosts: &Hosts, index: Index) -> Lab {
    let service = Service::tcp(hosts.vip, 80).backend(Backend::at(hosts.backends[0], 8080)).by(index);
    Lab::new().service(service.full_nat(&hosts.pool[..1]))
}

fn measured(lb: &mut Balancer) -> (Duration, u64) {
    let rows = lb.rows();
    let latency = Latency(rows.loads[1].latency.load());
    let count = rows.connect_times.iter().flat_map(|times| &times.counts).map(|count| count.load()).sum();
    (Duration::from_nanos(latency.nanoseconds()), count)
}

#[test]
fn a_handshake_is_measured_from_the_first_syn_unless_there_is_a_second() {
    const DELAY: Duration = Duration::from_millis(2);
    for hosts in FAMILIES {
        for (syns, measurements) in [(1, 1), (2, 0)] {
            let mut lb = balancer!(timed(&hosts, Index::LeastLatency));
            for _ in 0..syns {
                lb.receive(&hosts.to_vip().tcp(PORT, 80).seq(7).syn());
                lb.pass_time(DELAY);
            }
            let reply = hosts.from_backend().to(hosts.pool[0]).tcp(8080, POOL_PORT);
            for _ in 0..2 {
                let run = lb.receive(&reply.clone().seq(41).syn().ack(8));
                run.assert_redirected(WAN_INDEX, &hosts.from_vip().tcp(80, PORT).seq(41).syn().ack(8));
            }
            let (time, count) = measured(&mut lb);
            assert_eq!(count, measurements, "with {syns} SYNs");
            if count > 0 {
                assert!(time + Duration::from_nanos(2 * UNIT) >= DELAY && time < 100 * DELAY, "{time:?}");
            }
            // The client's proof is heeded as ever.
            lb.receive(&hosts.to_vip().tcp(PORT, 80).seq(8).ack(42));
            assert_eq!(lb.flows()[0].state, "established");
        }
    }
}

/// Two services that keep clients' addresses and one that does not, all with the same backend.
fn beside_dnat(hosts: &Hosts) -> Lab {
    let service = |vip, port| Service::tcp(vip, port).backend(Backend::at(hosts.backends[0], 8080));
    let full_nat = service(hosts.vip, 70).full_nat(&hosts.pool[..1]);
    Lab::new().service(service(hosts.vip, 80)).service(service(hosts.other_vip, 443)).service(full_nat)
}

#[test]
fn a_client_port_s_flows_with_full_nat_and_without_it_are_in_nobody_s_way() {
    for hosts in FAMILIES {
        let with = hosts.to_vip().tcp(PORT, 70).syn();
        let without = hosts.to_vip().tcp(PORT, 80).syn();
        let clashing = hosts.to_vip().to(hosts.other_vip).tcp(PORT, 443).syn();
        for first_with in [true, false] {
            let mut lb = balancer!(beside_dnat(&hosts));
            let order = if first_with {
                [(&with, true), (&without, false)]
            } else {
                [(&without, false), (&with, true)]
            };
            for (packet, is_full_nat) in order {
                let events = if is_full_nat { &OPENED[..] } else { &OPENED[..1] };
                lb.receive(packet).assert_counted_with(Reason::RequestForwarded, events);
            }
            // The third is the same to the backend as the second without full NAT.
            lb.receive(&clashing)
                .assert_dropped()
                .assert_counted(Reason::DropTupleInUse, [Event::FlowSidestepped]);

            let run = lb.receive(&hosts.to_vip().tcp(PORT, 70).ack(1));
            run.assert_redirected(
                LAN_INDEX,
                &hosts.to_backend().from(hosts.pool[0]).tcp(POOL_PORT, 8080).ack(1),
            );
            let run = lb.receive(&hosts.from_backend().to(hosts.pool[0]).tcp(8080, POOL_PORT).ack(1));
            run.assert_redirected(WAN_INDEX, &hosts.from_vip().tcp(70, PORT).ack(1));
            let run = lb.receive(&hosts.from_backend().tcp(8080, PORT).ack(1));
            run.assert_redirected(WAN_INDEX, &hosts.from_vip().tcp(80, PORT).ack(1));
        }
    }
}
