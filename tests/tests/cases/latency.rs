//! Connect times: which handshakes are measured, and what `least-latency` makes of it.

use std::collections::BTreeMap;
use std::time::Duration;

use lb_common::latency::{Latency, UNIT};
use lb_common::service::Index;
use lb_tests::balancer::Balancer;
use lb_tests::lab::{Backend, FAMILIES, Hosts, Lab, Service};

const PORT: u16 = 40_000;
const DELAY: Duration = Duration::from_millis(2);

fn lab(hosts: &Hosts, index: Index, backends: usize) -> Lab {
    let service = (0..backends)
        .map(|at| Backend::at(hosts.backends[at], 8080))
        .fold(Service::tcp(hosts.vip, 80).by(index), Service::backend);
    Lab::new().flow_buckets(4096).service(service)
}

/// A backend's smoothed connect time, and how many handshakes it has been measured by.
fn measured(lb: &mut Balancer, backend: usize) -> (Duration, u64) {
    let rows = lb.rows();
    let latency = Latency(rows.loads[backend].latency.load());
    let times = rows
        .connect_times
        .iter()
        .enumerate()
        .filter(|(row, _)| row % rows.settings.backends as usize == backend);
    let count = times.flat_map(|(_, times)| &times.counts).map(|count| count.load()).sum();
    (Duration::from_nanos(latency.nanoseconds()), count)
}

/// The handshake of a client's port, whose backend answers after a while; then the connection ends. Returns the backend.
fn connect(lb: &mut Balancer, hosts: &Hosts, port: u16, delay: impl Fn(u16) -> Duration) -> u16 {
    lb.receive(&hosts.to_vip().tcp(port, 80).seq(7).syn());
    let flow = lb.flows().into_iter().find(|flow| flow.client.1 == port);
    let backend = flow.expect("the flow").backend;
    lb.pass_time(delay(backend));
    let from = hosts.backends[usize::from(backend) - 1];
    lb.receive(&hosts.from_backend().from(from).tcp(8080, port).seq(41).syn().ack(8));
    lb.receive(&hosts.to_vip().tcp(port, 80).seq(8).ack(42));
    lb.receive(&hosts.to_vip().tcp(port, 80).seq(8).ack(42).fin());
    backend
}

#[test]
fn a_handshake_is_measured_from_syn_to_syn_ack() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(&hosts, Index::LeastLatency, 1));
        connect(&mut lb, &hosts, PORT, |_| DELAY);
        let (time, count) = measured(&mut lb, 1);
        assert!(time + Duration::from_nanos(2 * UNIT) >= DELAY && time < 100 * DELAY, "{time:?}");
        assert_eq!(count, 1);
        let sum: u64 = lb.rows().connect_times.iter().map(|times| times.sum.load()).sum();
        assert!((sum * UNIT).abs_diff(time.as_nanos() as u64) <= UNIT, "{sum} units, {time:?}");
        // A second answer to the same SYN is no measurement, nor is anything after it.
        lb.receive(&hosts.from_backend().tcp(8080, PORT).seq(41).syn().ack(8));
        assert_eq!(measured(&mut lb, 1), (time, 1));
    }
}

#[test]
fn where_a_syn_came_twice_nothing_is_measured() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(&hosts, Index::LeastLatency, 1));
        for _ in 0..2 {
            lb.receive(&hosts.to_vip().tcp(PORT, 80).seq(7).syn());
            lb.pass_time(DELAY);
        }
        lb.receive(&hosts.from_backend().tcp(8080, PORT).seq(41).syn().ack(8));
        assert_eq!(measured(&mut lb, 1), (Duration::ZERO, 0));
        // The client's proof is heeded as ever.
        lb.receive(&hosts.to_vip().tcp(PORT, 80).seq(8).ack(42));
        assert_eq!(lb.flows()[0].state, "established");
    }
}

#[test]
fn with_other_strategies_one_handshake_of_eight_is_measured() {
    const HANDSHAKES: u16 = 320;
    for hosts in FAMILIES {
        for index in [Index::Flow, Index::LeastConnections] {
            let mut lb = balancer!(lab(&hosts, index, 1));
            for number in 0..HANDSHAKES {
                connect(&mut lb, &hosts, PORT + number, |_| DELAY);
            }
            let (time, count) = measured(&mut lb, 1);
            // 40 are expected; five standard deviations are 30.
            assert!((10..=70).contains(&count), "{index:?}: {count} of {HANDSHAKES}");
            assert!(time + Duration::from_nanos(2 * UNIT) >= DELAY && time < 100 * DELAY, "{time:?}");
        }
    }
}

#[test]
fn a_slow_backend_gets_less_than_half_of_its_fair_share() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(&hosts, Index::LeastLatency, 3));
        let slow = |backend| if backend == 2 { Duration::from_millis(5) } else { Duration::ZERO };
        let mut shares: BTreeMap<u16, u32> = BTreeMap::new();
        for port in 1..=120 {
            *shares.entry(connect(&mut lb, &hosts, port, slow)).or_default() += 1;
        }
        assert!((1..20).contains(&shares[&2]), "tried, and then avoided: {shares:?}");
        assert!(shares[&1] > 20 && shares[&3] > 20, "{shares:?}");
    }
}

#[test]
fn a_backend_that_nobody_has_measured_is_tried_by_one_flow() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(&hosts, Index::LeastLatency, 3));
        for known in [1, 2] {
            lb.rows().loads[known].latency.store(Latency::default().measured(10, 0).0);
        }
        for port in 1..=30 {
            lb.receive(&hosts.to_vip().tcp(port, 80).syn());
        }
        // It does not answer.
        let mut flows: BTreeMap<u16, u32> = BTreeMap::new();
        for flow in lb.flows() {
            *flows.entry(flow.backend).or_default() += 1;
        }
        assert!((1..=3).contains(&flows[&3]), "{flows:?}");
    }
}
