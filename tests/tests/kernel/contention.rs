//! Both CPUs at the same few buckets: inserting, evicting, establishing, closing, as fast as they can.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use lb_common::flow::{Bucket, Data, Key, LOCK, State};
use lb_tests::balancer::Balancer;
use lb_tests::kernel::Runner;
use lb_tests::lab::{Backend, FAMILIES, Hosts, Lab, Service};
use lb_tests::packet::Packet;

/// Clients' ports. Their flows fill the table's ways one and a half times.
const PORTS: [u16; 24] = {
    let mut ports = [0; 24];
    let mut at = 0;
    while at < ports.len() {
        ports[at] = 5000 + at as u16;
        at += 1;
    }
    ports
};
const BUCKETS: u32 = 4;
/// Packets of each CPU.
const PACKETS: u32 = 60_000;
/// What backends answer a SYN with.
const SEQUENCE: u32 = 7000;

/// Where an IP header's destination lies in a frame without tags.
fn destination(frame: &[u8]) -> &[u8] {
    if frame[12..14] == [8, 0] { &frame[30..34] } else { &frame[38..54] }
}

/// What clients and backends of one flow send, and how often one is sent among 16.
fn packets(hosts: &Hosts, port: u16, backend: usize) -> Vec<Vec<u8>> {
    let request = || hosts.to_vip().tcp(port, 80);
    let reply = || hosts.from_backend().from(hosts.backends[backend]).tcp(8080, port);
    let weighted: [(usize, Packet); 7] = [
        (5, request().syn()),
        (3, reply().seq(SEQUENCE).syn().ack(1)),
        (3, request().ack(SEQUENCE + 1)),
        (2, reply().ack(1)),
        (1, request().fin().ack(SEQUENCE + 1)),
        (1, reply().rst()),
        (1, request().rst()),
    ];
    weighted.into_iter().flat_map(|(times, packet)| std::iter::repeat_n(packet.bytes(), times)).collect()
}

/// One CPU's packets. Returns how many requests went elsewhere than to the flow's backend.
fn storm(runner: &Runner<'_>, cpu: usize, frames: &[(Vec<u8>, Vec<Vec<u8>>)]) -> usize {
    runner.enter(cpu).expect("a CPU and the namespace");
    let mut random = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(cpu as u64 + 1);
    let mut strays = 0;
    for _ in 0..PACKETS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let (backend, packets) = &frames[(random >> 8) as usize % frames.len()];
        let mut frame = packets[(random >> 40) as usize % packets.len()].clone();
        let vip = destination(&frames[0].1[0]);
        let is_request = destination(&frame) == vip;
        runner.run(&mut frame).expect("a frame that the kernel takes");
        strays += usize::from(is_request && destination(&frame) != backend.as_slice());
    }
    strays
}

#[test]
fn two_cpus_at_the_same_buckets_lose_no_update_and_make_no_flow_twice() {
    for hosts in FAMILIES {
        let backends = [0, 1].map(|index| Backend::at(hosts.backends[index], 8080));
        let service = backends.into_iter().fold(Service::tcp(hosts.vip, 80), Service::backend);
        let lab = Lab::new().flow_buckets(BUCKETS).service(service);
        let Some(mut lb) = crate::balancer(&lab) else { return };
        let frames = learned(&mut lb, &hosts);
        lb.restart(&lab);

        let runner = lb.runner().expect("the kernel's side");
        let strays: usize = thread::scope(|scope| {
            let cpus = [0, 1].map(|cpu| {
                let (runner, frames) = (&runner, &frames);
                scope.spawn(move || storm(runner, cpu, frames))
            });
            cpus.into_iter().map(|cpu| cpu.join().expect("no panic")).sum()
        });
        assert_eq!(strays, 0, "requests that went to another flow's backend");
        drop(runner);
        assert_sound(&mut lb, &hosts, &frames);
    }
}

/// For each port where its slot leads, by asking, and its packets.
fn learned(lb: &mut Balancer, hosts: &Hosts) -> Vec<(Vec<u8>, Vec<Vec<u8>>)> {
    let of_port = |&port: &u16| {
        let (_, output, _) = lb.run(&hosts.to_vip().tcp(port, 80).syn().bytes());
        let address = destination(&output).to_vec();
        let to = |index: usize| hosts.to_vip().to(hosts.backends[index]).tcp(port, 80).bytes();
        let index = (0..2).find(|&index| destination(&to(index)) == address).expect("one of the two");
        (address, packets(hosts, port, index))
    };
    PORTS.iter().map(of_port).collect()
}

/// Nothing is held, no flow is there twice, each has its own backend, and the counts are the table's.
fn assert_sound(lb: &mut Balancer, hosts: &Hosts, frames: &[(Vec<u8>, Vec<Vec<u8>>)]) {
    let rows = lb.rows();
    rows.flows4.iter().for_each(assert_idle);
    rows.flows6.iter().for_each(assert_idle);
    let flows = lb.flows();
    assert!(flows.len() > PORTS.len() / 4, "{flows:?}");
    let clients: BTreeSet<_> = flows.iter().map(|flow| flow.client).collect();
    assert_eq!(clients.len(), flows.len(), "a flow has two entries: {flows:?}");
    let mut active = BTreeMap::from([(1, 0), (2, 0)]);
    for flow in &flows {
        let at = PORTS.iter().position(|&port| port == flow.client.1).expect("a client's port");
        let to = hosts.to_vip().to(hosts.backends[usize::from(flow.backend) - 1]).tcp(1, 1).bytes();
        assert_eq!(destination(&to), frames[at].0, "{flow:?}");
        let is_active = [State::ESTABLISHED, State::ADOPTED].iter().any(|state| state.name() == flow.state);
        *active.entry(flow.backend).or_default() += i64::from(is_active);
    }
    let counted: BTreeMap<u16, i64> =
        [1, 2].into_iter().map(|backend| (backend, lb.active(backend))).collect();
    assert_eq!(counted, active, "active connections as counted, and as there are");
}

fn assert_idle<K: Key>(bucket: &Bucket<K>) {
    assert_eq!(bucket.ways[0].data.load() & LOCK, 0, "a lock is held: {bucket:?}");
    let claimed = |data: Data| data.state() == State::CLAIMED;
    assert!(!bucket.ways.iter().any(|entry| claimed(Data(entry.data.load()))), "{bucket:?}");
}
