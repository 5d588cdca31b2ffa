//! What `explain` says, against what the kernel then does.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::address::{Be16, Protocol};
use lb_common::flow::{Bucket, Key};
use lb_common::service::Index;
use lb_ebpf::explain::{Explanation, explain};
use lb_ebpf::memory::MemoryTables;
use lb_tests::balancer::{Action, Balancer, tables};
use lb_tests::lab::{Backend, FAMILIES, Hosts, Lab, Service};
use lb_tests::packet::Packet;

/// New flows of each family, protocol and index function that computes a slot: 100,000 in all.
const NEW: u64 = 12_500;
/// Known flows of each family and index function: a quarter of what the table has room for.
const KNOWN: u64 = 4000;
const HASHED: [Index; 2] = [Index::Flow, Index::Source];
const ALL: [Index; 6] = [
    Index::Flow,
    Index::Source,
    Index::RoundRobin,
    Index::Random,
    Index::LeastConnections,
    Index::LeastLatency,
];

fn lab(hosts: &Hosts, index: Index) -> Lab {
    let service = |service: Service| {
        let backends = hosts.backends.iter().take(4).map(|host| Backend::at(host, 8080));
        backends.fold(service.by(index), Service::backend)
    };
    let tcp = service(Service::tcp(hosts.vip, 80));
    Lab::new().flow_buckets(4096).service(tcp).service(service(Service::udp(hosts.vip, 80)))
}

/// A client that differs with the number, and its packet that opens a flow.
struct Tuple {
    client: (IpAddr, u16),
    protocol: Protocol,
    packet: Packet,
}

fn tuple(hosts: &Hosts, protocol: Protocol, number: u64) -> Tuple {
    // SplitMix64: what is near is far apart.
    let mut word = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word ^= word >> 27;
    let [a, b, c, d, e, f, ..] = word.to_le_bytes();
    let port = u16::from_le_bytes([e, f]).max(1);
    let address: IpAddr = match hosts.vip.contains(':') {
        true => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, a.into(), b.into(), c.into(), d.into()).into(),
        false => Ipv4Addr::new(11 + a % 96, b, c, d).into(),
    };
    let packet = hosts.to_vip().from(&address.to_string());
    let packet = if protocol == Protocol::TCP { packet.tcp(port, 80).syn() } else { packet.udp(port, 80) };
    Tuple { client: (address, port), protocol, packet }
}

fn explained(host: &MemoryTables, hosts: &Hosts, tuple: &Tuple) -> Explanation {
    let vip: IpAddr = hosts.vip.parse().expect("an address");
    let (client, port) = tuple.client;
    explain(host, tuple.protocol, (client.into(), Be16::new(port)), (vip.into(), Be16::new(80)))
}

/// The address that the kernel sends a packet to.
fn sent_to(kernel: &mut Balancer, tuple: &Tuple) -> IpAddr {
    let (action, frame, _) = kernel.run(&tuple.packet.bytes());
    assert!(matches!(action, Action::Redirect | Action::Transmit), "{action:?}");
    // Behind the Ethernet header: 16 bytes into an IPv4 header, 24 into an IPv6 header.
    match tuple.client.0 {
        IpAddr::V4(_) => <[u8; 4]>::try_from(&frame[30..34]).expect("four bytes").into(),
        IpAddr::V6(_) => <[u8; 16]>::try_from(&frame[38..54]).expect("sixteen bytes").into(),
    }
}

fn address(host: &MemoryTables, backend: u16) -> IpAddr {
    host.backends[usize::from(backend)].address.into()
}

/// What is known in the kernel is known on the host.
fn copy<K: Key>(from: &[Bucket<K>], to: &mut [Bucket<K>]) {
    for (from, to) in from.iter().zip(to) {
        for (from, to) in from.ways.iter().zip(&to.ways) {
            K::load(&from.key).write(&to.key);
            to.data.store(from.data.load());
        }
    }
}

#[test]
fn of_100_000_new_flows_each_goes_to_the_backend_that_explain_names() {
    for hosts in FAMILIES {
        for index in HASHED {
            let lab = lab(&hosts, index);
            let Some(mut kernel) = crate::balancer(&lab) else { return };
            kernel.restart(&lab);
            let host = tables(&lab);
            for (protocol, number) in
                [Protocol::TCP, Protocol::UDP].into_iter().flat_map(|each| (0..NEW).map(move |n| (each, n)))
            {
                let tuple = tuple(&hosts, protocol, number);
                let Explanation::Slot { backend, .. } = explained(&host, &hosts, &tuple) else {
                    panic!("{index:?} {:?}: {:?}", tuple.client, explained(&host, &hosts, &tuple));
                };
                let sent_to = sent_to(&mut kernel, &tuple);
                assert_eq!(sent_to, address(&host, backend), "{index:?} {:?}", tuple.client);
            }
        }
    }
}

#[test]
fn known_flows_of_every_strategy_go_where_explain_says() {
    for hosts in FAMILIES {
        for index in ALL {
            let lab = lab(&hosts, index);
            let Some(mut kernel) = crate::balancer(&lab) else { return };
            kernel.restart(&lab);
            let tuples: Vec<_> = (0..KNOWN).map(|number| tuple(&hosts, Protocol::TCP, number)).collect();
            let first: Vec<_> = tuples.iter().map(|tuple| sent_to(&mut kernel, tuple)).collect();
            let mut host = tables(&lab);
            // Where a bucket was full, a flow whose handshake is not done gave way to another.
            let kept: BTreeSet<_> = kernel.flows().into_iter().map(|flow| flow.client).collect();
            assert!(kept.len() as u64 > KNOWN * 98 / 100, "{}", kept.len());
            let rows = kernel.rows();
            copy(rows.flows4, &mut host.flows4);
            copy(rows.flows6, &mut host.flows6);
            for (tuple, first) in tuples.iter().zip(first) {
                let explanation = explained(&host, &hosts, tuple);
                if !kept.contains(&tuple.client) {
                    assert!(!matches!(explanation, Explanation::Flow { .. }), "{explanation:?}");
                    continue;
                }
                let Explanation::Flow { backend, .. } = explanation else {
                    panic!("{index:?} {:?}: {explanation:?}", tuple.client);
                };
                let sent_to = sent_to(&mut kernel, tuple);
                assert_eq!([first, sent_to], [address(&host, backend); 2], "{index:?} {:?}", tuple.client);
            }
        }
    }
}
