//! A flood of SYNs from everywhere, while established connections carry data.

use lb_common::flow::State;
use lb_tests::balancer::Balancer;
use lb_tests::kernel::Runner;
use lb_tests::lab::{Backend, FAMILIES, Hosts, Lab, Service};

/// Connections of one client, from a port each.
const ESTABLISHED: u16 = 50_000;
const FIRST_PORT: u16 = 1024;
const SYNS: u32 = 1_000_000;
/// So many SYNs for one packet of data: each connection sends some during the flood.
const SYNS_PER_DATA: u32 = 20;
/// Three quarters full by the connections alone, of what the table is made for.
const BUCKETS: u32 = 32_768;
const SEQUENCE: u32 = 7000;

const SOURCE: usize = 26;
const DESTINATION: usize = 30;
const IP_CHECKSUM: usize = 24;
const SOURCE_PORT: usize = 34;
const DESTINATION_PORT: usize = 36;
const TCP_CHECKSUM: usize = 50;

/// `XDP_REDIRECT`.
const REDIRECT: u32 = 4;

/// Replaces a 16-bit field, and what it does to checksums (RFC 1624).
fn patch(frame: &mut [u8], at: usize, new: [u8; 2], checksums: &[usize]) {
    let word = |frame: &[u8], at: usize| u32::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let old = word(frame, at);
    for &checksum in checksums {
        let mut sum =
            (!word(frame, checksum) & 0xffff) + (!old & 0xffff) + u32::from(u16::from_be_bytes(new));
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        frame[checksum..checksum + 2].copy_from_slice(&(!sum as u16).to_be_bytes());
    }
    frame[at..at + 2].copy_from_slice(&new);
}

/// The packets of a connection: by a template for each kind, and the port.
struct Client<'a> {
    runner: Runner<'a>,
    request: Vec<u8>,
    frame: Vec<u8>,
}

impl Client<'_> {
    /// Sends a template's packet with another client port; the backend's address where it went to one.
    fn send(&mut self, template: &[u8], port: u16, at: usize) -> Option<[u8; 4]> {
        self.frame.clear();
        self.frame.extend_from_slice(template);
        patch(&mut self.frame, at, port.to_be_bytes(), &[TCP_CHECKSUM]);
        let verdict = self.runner.run(&mut self.frame).expect("a frame that the kernel takes");
        (verdict == REDIRECT).then(|| self.frame[DESTINATION..][..4].try_into().expect("four bytes"))
    }

    /// A SYN from anywhere.
    fn flood(&mut self, template: &[u8], random: u64) {
        self.frame.clear();
        self.frame.extend_from_slice(template);
        let [a, b, c, d, e, f, ..] = random.to_le_bytes();
        patch(&mut self.frame, SOURCE, [a % 96 + 11, b], &[IP_CHECKSUM, TCP_CHECKSUM]);
        patch(&mut self.frame, SOURCE + 2, [c, d], &[IP_CHECKSUM, TCP_CHECKSUM]);
        patch(&mut self.frame, SOURCE_PORT, [e, f], &[TCP_CHECKSUM]);
        let verdict = self.runner.run(&mut self.frame).expect("a frame that the kernel takes");
        assert_eq!(verdict, REDIRECT, "a SYN is balanced, with an entry or without");
    }
}

fn ports() -> std::ops::Range<u16> {
    FIRST_PORT..FIRST_PORT + ESTABLISHED
}

/// Plays the handshakes; the backend's address of each connection.
fn establish(client: &mut Client<'_>, hosts: &Hosts) -> Vec<[u8; 4]> {
    let syn = hosts.to_vip().tcp(1, 80).syn().bytes();
    let ack = hosts.to_vip().tcp(1, 80).ack(SEQUENCE + 1).bytes();
    let accepted = [0, 1].map(|index| {
        let from = hosts.from_backend().from(hosts.backends[index]);
        from.tcp(8080, 1).seq(SEQUENCE).syn().ack(1).bytes()
    });
    let of_port = |port| {
        let backend = client.send(&syn, port, SOURCE_PORT).expect("balanced");
        let answer = accepted.iter().find(|answer| answer[SOURCE..][..4] == backend).expect("one of two");
        client.send(answer, port, DESTINATION_PORT).expect("translated");
        assert_eq!(client.send(&ack, port, SOURCE_PORT), Some(backend));
        backend
    };
    ports().map(of_port).collect()
}

/// The client's established flows, by port.
fn established(lb: &mut Balancer) -> Vec<(u16, u16)> {
    let flows = lb.flows().into_iter().filter(|flow| flow.state == State::ESTABLISHED.name());
    flows.map(|flow| (flow.client.1, flow.backend)).collect()
}

#[test]
fn a_million_syns_displace_no_established_connection_and_move_none() {
    let [hosts, _] = FAMILIES;
    let backends = [0, 1].map(|index| Backend::at(hosts.backends[index], 8080));
    let service = backends.into_iter().fold(Service::tcp(hosts.vip, 80), Service::backend);
    let lab = Lab::new().flow_buckets(BUCKETS).service(service);
    let Some(mut lb) = crate::balancer(&lab) else { return };
    let request = hosts.to_vip().tcp(1, 80).ack(SEQUENCE + 1).payload("data").bytes();
    let syn = hosts.to_vip().tcp(1, 80).syn().bytes();

    let runner = lb.runner().expect("the kernel's side");
    let mut client = Client { runner, request, frame: Vec::new() };
    let chosen = establish(&mut client, &hosts);
    drop(client);
    let before = established(&mut lb);
    // At three quarters of the rated load one in some thousand finds no room in either bucket.
    assert!(before.len() > usize::from(ESTABLISHED) * 998 / 1000, "{} tracked", before.len());

    let runner = lb.runner().expect("the kernel's side");
    let request = hosts.to_vip().tcp(1, 80).ack(SEQUENCE + 1).payload("data").bytes();
    let mut client = Client { runner, request, frame: Vec::new() };
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut sent = 0;
    for number in 0..SYNS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        client.flood(&syn, random.wrapping_mul(0x2545_f491_4f6c_dd1d));
        if number % SYNS_PER_DATA == 0 {
            let flow = sent % usize::from(ESTABLISHED);
            let template = client.request.clone();
            let backend = client.send(&template, FIRST_PORT + flow as u16, SOURCE_PORT);
            assert_eq!(backend, Some(chosen[flow]), "connection {flow} after {number} SYNs");
            sent += 1;
        }
    }
    drop(client);
    assert_eq!(sent, usize::from(ESTABLISHED));
    assert_eq!(established(&mut lb), before, "established entries after the flood");
    let counters = lb.counters();
    assert!(counters["flow_evicted"] > u64::from(SYNS / 2), "the flood displaced itself: {counters:?}");
}
