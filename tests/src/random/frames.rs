//! Valid frames: requests, replies, errors, fragments, other people's traffic, weighted so that every way is taken.

use lb_common::service::Index;
use lb_common::slot::Owners;

use super::Random;
use crate::lab::{
    Backend, FAMILIES, FIRST_POOL_PORT, Hosts, LAN, Lab, ROUTER, Service, WAN, backend_mac, lan_hop,
    with_tags,
};
use crate::packet::{Extension, Packet, packet};

/// The port of the services whose backends are reached without ado.
const OPEN: u16 = 80;
/// The port of the full-NAT services, whose pools have fewer ports than there are clients.
const FULL_NAT: u16 = 70;
const POOL_PORTS: u32 = 8;
/// The first of the ports of services that are special in one way each.
const FIRST_SPECIAL: u16 = 81;
/// How many of those there are, of each protocol and family.
const SPECIALS: usize = 16;
/// The port of the services whose backends die.
const FRAIL: u16 = FIRST_SPECIAL + 10;
/// The port of the services that track by exception: the one before.
const HANDED_OVER: u16 = FRAIL - 1;
/// The port of those that take few new flows, of those that turn clients away, and of those whose backend is others' too.
const GUARDED: [u16; 3] = [FRAIL + 1, FRAIL + 2, FRAIL + 3];
/// The port of the services that retry, and of their backends.
const RETRYING: u16 = FRAIL + 4;
/// Ports of clients, from there on. Few, so that flows are met again.
const FIRST_CLIENT_PORT: u16 = 1000;
const CLIENT_PORTS: usize = 100;

/// A balancer on which all of it has a meaning.
#[must_use]
pub fn lab() -> Lab {
    build(|service| service, false)
}

/// The same later: some services' backends have died.
#[must_use]
pub fn later_lab() -> Lab {
    build(|service| service, true)
}

/// The same with tables that contradict each other: some services' slots name a row that is nobody's.
#[must_use]
pub fn contradictory_lab() -> Lab {
    build(|service| service.slots(&[0]), false)
}

/// The same later.
#[must_use]
pub fn later_contradictory_lab() -> Lab {
    build(|service| service.slots(&[0]), true)
}

fn build(last: fn(Service) -> Service, later: bool) -> Lab {
    let mut lab = Lab::new().flow_buckets(32).icmp_errors(40).pool_ports(POOL_PORTS);
    for hosts in FAMILIES {
        for service in [Service::tcp, Service::udp] {
            lab = lab.service(open(service(hosts.vip, OPEN), &hosts));
            let full_nat = service(hosts.vip, FULL_NAT).backend(Backend::at(hosts.backends[0], 8080));
            lab = lab.service(full_nat.full_nat(&hosts.pool[..1]));
            for (special, port) in specials(&hosts, last, later).into_iter().zip(FIRST_SPECIAL..) {
                lab = lab.service(special(service(hosts.vip, port)));
            }
        }
    }
    lab
}

fn open(service: Service, hosts: &Hosts) -> Service {
    let tagged = with_tags(lan_hop(1), &[(0x8100, 100)]);
    service
        .backend(Backend::at(hosts.backends[0], 8080))
        .backend(Backend::at(hosts.backends[1], 8080).by(tagged))
        .backend(Backend::at(hosts.backends[2], 8080).unresolved())
}

/// What to make of a service.
type Special = Box<dyn Fn(Service) -> Service>;

fn specials(hosts: &Hosts, last: fn(Service) -> Service, later: bool) -> [Special; SPECIALS] {
    let by = move |address: &'static str| -> Special {
        Box::new(move |service| service.backend(Backend::at(address, 8080).unresolved()))
    };
    let backends = hosts.backends;
    let drawn = |index: Index| -> Special {
        Box::new(move |service| {
            let [first, second] = [0, 1].map(|at| Backend::at(backends[at], 8080));
            service.by(index).backend(first).backend(second)
        })
    };
    let ways = hosts.special_backends;
    let frail = Backend::at(hosts.backends[3], 8080);
    let (limited, guarded) = (frail.clone(), frail.clone());
    let frail = if later { frail.dead() } else { frail };
    let shared = Backend::at(hosts.backends[0], 8080);
    let (client, whole) = (hosts.client, if hosts.is_v6() { 128 } else { 32 });
    [
        Box::new(|service| service),
        Box::new(Service::silent),
        by(ways.unknown_neighbour),
        by(ways.blackhole),
        by(ways.local),
        Box::new(move |service| by(ways.narrow)(service).by(Index::Source)),
        {
            let turns = drawn(Index::RoundRobin);
            Box::new(move |service| turns(service).sticky(100))
        },
        drawn(Index::Random),
        drawn(Index::LeastConnections),
        Box::new(by_exception(hosts)),
        Box::new(move |service| service.backend(frail.clone()).resetting()),
        Box::new(move |service| {
            service.backend(limited.clone()).new_flows(3).new_flows_of_a_source(2, whole)
        }),
        Box::new(move |service| service.backend(guarded.clone()).deny(client, whole)),
        Box::new(move |service| service.backend(shared.clone())),
        Box::new(move |service| {
            let service = [0, 1]
                .into_iter()
                .fold(service, |service, at| service.backend(Backend::at(backends[at], RETRYING)));
            service.backend(Backend::at(ways.unknown_neighbour, RETRYING).unresolved()).retrying()
        }),
        Box::new(last),
    ]
}

/// The port of backends whose services track by exception: such an endpoint is in one service only.
const BY_EXCEPTION: u16 = 8090;

/// Slots that have not changed, have changed, and have changed back.
fn by_exception(hosts: &Hosts) -> impl Fn(Service) -> Service + use<> {
    let backends = [0, 1].map(|index| Backend::at(hosts.backends[index], BY_EXCEPTION));
    let changed = Owners::clean(1).given_to(2);
    move |service| {
        let service = backends.iter().cloned().fold(service, Service::backend);
        service.by_exception(&[Owners::clean(1), changed, changed.given_to(1), Owners::clean(2).given_to(0)])
    }
}

/// Any frame that a balancer may meet.
pub fn any_frame(random: &mut Random) -> Packet {
    let hosts = random.pick(&FAMILIES);
    let frame = match random.below(115) {
        0..26 => request(random, &hosts),
        26..31 => to_full_nat(random, &hosts),
        31..37 => to_frail(random, &hosts),
        37..44 => to_guarded(random, &hosts),
        44..60 => reply(random, &hosts),
        60..65 => from_full_nat(random, &hosts),
        65..75 => about_reply(random, &hosts),
        75..85 => about_request(random, &hosts),
        85..90 => echo(random, &hosts),
        100..105 => handed_over(random, &hosts),
        105..115 => refused(random, &hosts),
        _ => other(random, &hosts),
    };
    decorate(random, &hosts, frame)
}

/// A request to a service that not everybody gets into.
fn to_guarded(random: &mut Random, hosts: &Hosts) -> Packet {
    let (client, port) = (client(random, hosts), client_port(random));
    let destination = random.pick(&GUARDED);
    transport(random, packet().eth(ROUTER, WAN).ip(client, hosts.vip), port, destination)
}

/// A handshake with a service that tracks by exception, of one of a few flows: its SYN, or an answer of either backend.
fn handed_over(random: &mut Random, hosts: &Hosts) -> Packet {
    let port = FIRST_CLIENT_PORT + random.below(8) as u16;
    if random.once_in(2) {
        return packet().eth(ROUTER, WAN).ip(hosts.client, hosts.vip).tcp(port, HANDED_OVER).syn();
    }
    let backend = random.below(2);
    let frame = packet().eth(backend_mac(backend), LAN).ip(hosts.backends[backend], hosts.client);
    frame.tcp(BY_EXCEPTION, port).seq(random.below(3) as u32).syn().ack(1)
}

/// A connection to a service that retries, of one of a few flows: its SYN, or a backend's refusal or acceptance of it.
fn refused(random: &mut Random, hosts: &Hosts) -> Packet {
    let port = FIRST_CLIENT_PORT + random.below(8) as u16;
    let sequence = 7 + u32::from(random.once_in(8));
    if random.once_in(3) {
        let frame = packet().eth(ROUTER, WAN).ip(hosts.client, hosts.vip);
        return frame.tcp(port, RETRYING).syn().seq(sequence);
    }
    let backend = random.below(3);
    let address = [hosts.backends[0], hosts.backends[1], hosts.special_backends.unknown_neighbour][backend];
    let frame = packet().eth(backend_mac(backend), LAN).ip(address, hosts.client).tcp(RETRYING, port);
    if random.once_in(20) { frame.syn().ack(sequence + 1) } else { frame.rst().ack(sequence + 1) }
}

/// A plain request to a service whose backends serve: protocol and flow at random.
pub fn valid_request(random: &mut Random) -> Packet {
    let hosts = random.pick(&FAMILIES);
    let frame = packet().eth(ROUTER, WAN).ip(client(random, &hosts), hosts.vip);
    let port = client_port(random);
    transport(random, frame, port, OPEN)
}

fn client(random: &mut Random, hosts: &Hosts) -> &'static str {
    let special = hosts.clients;
    match random.below(24) {
        0 => special.unknown_neighbour,
        1 => special.blackhole,
        2 => special.local,
        3 => special.tagged,
        4 => special.double_tagged,
        5 => special.narrow,
        _ => hosts.client,
    }
}

fn client_port(random: &mut Random) -> u16 {
    FIRST_CLIENT_PORT + random.below(CLIENT_PORTS) as u16
}

fn request(random: &mut Random, hosts: &Hosts) -> Packet {
    let port = match random.below(2) {
        0 => FIRST_SPECIAL + random.below(SPECIALS) as u16,
        _ => OPEN,
    };
    let source = match random.below(30) {
        0 if hosts.is_v6() => random.pick(&["::", "::1", "ff02::1"]),
        0 => random.pick(&["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"]),
        _ => client(random, hosts),
    };
    let client_port = client_port(random);
    transport(random, packet().eth(ROUTER, WAN).ip(source, hosts.vip), client_port, port)
}

/// A request to a service whose backends die, of one of a few flows, so that they are met again afterwards.
fn to_frail(random: &mut Random, hosts: &Hosts) -> Packet {
    let client_port = FIRST_CLIENT_PORT + random.below(4) as u16;
    transport(random, packet().eth(ROUTER, WAN).ip(hosts.client, hosts.vip), client_port, FRAIL)
}

/// A request to a full-NAT service.
fn to_full_nat(random: &mut Random, hosts: &Hosts) -> Packet {
    let (client, port) = (client(random, hosts), client_port(random));
    transport(random, packet().eth(ROUTER, WAN).ip(client, hosts.vip), port, FULL_NAT)
}

/// What a full-NAT service's backend sends to the pool: to a port of it, or to the first that is not.
fn from_full_nat(random: &mut Random, hosts: &Hosts) -> Packet {
    let frame = packet().eth(backend_mac(0), LAN).ip(hosts.backends[0], hosts.pool[0]);
    let port = pool_port(random);
    transport(random, frame, 8080, port)
}

fn pool_port(random: &mut Random) -> u16 {
    FIRST_POOL_PORT + random.below(POOL_PORTS as usize + 1) as u16
}

fn reply(random: &mut Random, hosts: &Hosts) -> Packet {
    let backend = random.below(3);
    let frame = packet().eth(backend_mac(backend), LAN);
    let frame = frame.ip(hosts.backends[backend], client(random, hosts));
    let port = client_port(random);
    let service = if random.once_in(3) { BY_EXCEPTION } else { 8080 };
    transport(random, frame, service, port)
}

/// TCP or UDP, of any kind and length.
fn transport(random: &mut Random, frame: Packet, source: u16, destination: u16) -> Packet {
    let length = match random.below(10) {
        0 => 1200 + random.below(500),
        1..4 => 0,
        _ => random.below(64),
    };
    let payload: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
    if random.once_in(2) {
        let datagram = frame.udp(source, destination).payload(payload);
        return if random.once_in(16) { datagram.udp_checksum(0) } else { datagram };
    }
    // Few sequence numbers, so that some acknowledgements are right.
    let sequence = random.below(3) as u32;
    let segment = frame.tcp(source, destination).seq(sequence);
    let number = random.below(3) as u32;
    let segment = match random.below(8) {
        0 | 1 => segment.syn(),
        2 => segment.syn().ack(number),
        3 => segment.ack(number).fin(),
        4 => segment.rst(),
        _ => segment.ack(number),
    };
    segment.payload(payload)
}

/// An error about what a client was sent.
fn about_reply(random: &mut Random, hosts: &Hosts) -> Packet {
    let port = client_port(random);
    let sent = packet().ip(hosts.vip, client(random, hosts));
    let service = random.pick(&[OPEN, OPEN, OPEN, FULL_NAT]);
    let sent = transport(random, sent, service, port);
    let error = packet().eth(ROUTER, WAN).ip(hosts.router, hosts.vip);
    quoting(random, error, &sent)
}

/// An error about what a backend was sent.
fn about_request(random: &mut Random, hosts: &Hosts) -> Packet {
    if random.once_in(4) {
        return about_full_nat_request(random, hosts);
    }
    let backend = random.below(3);
    let client = client(random, hosts);
    let port = client_port(random);
    let sent = transport(random, packet().ip(client, hosts.backends[backend]), port, 8080);
    let source = random.pick(&[hosts.router, hosts.backends[backend]]);
    let error = packet().eth(backend_mac(backend), LAN).ip(source, client);
    quoting(random, error, &sent)
}

/// The same, from an address of the pool.
fn about_full_nat_request(random: &mut Random, hosts: &Hosts) -> Packet {
    let port = pool_port(random);
    let sent = transport(random, packet().ip(hosts.pool[0], hosts.backends[0]), port, 8080);
    let source = random.pick(&[hosts.router, hosts.backends[0]]);
    quoting(random, packet().eth(backend_mac(0), LAN).ip(source, hosts.pool[0]), &sent)
}

fn quoting(random: &mut Random, error: Packet, sent: &Packet) -> Packet {
    let error = match random.below(3) {
        0 => error.too_big(1280),
        1 => error.time_exceeded(),
        _ => error.port_unreachable(),
    };
    let sent = match random.below(8) {
        0 => {
            let start = random.pick(&[0, 0, 64]);
            sent.clone().fragment(random.below(12) as u32, start..start + 64)
        }
        1 => sent.clone().extension(any_extension(random)).extension(any_extension(random)),
        _ => sent.clone(),
    };
    let length = random.pick(&[28, 48, 60, 100, 500, 1600]);
    error.quoting(&sent, length)
}

fn any_extension(random: &mut Random) -> Extension {
    random.pick(&[
        Extension::HopByHop(0),
        Extension::DestinationOptions(1),
        Extension::Routing(0),
        Extension::AtomicFragment(3),
    ])
}

fn echo(random: &mut Random, hosts: &Hosts) -> Packet {
    let destination = random.pick(&[hosts.vip, hosts.vip, hosts.stranger]);
    let frame = packet().eth(ROUTER, WAN).ip(hosts.client, destination);
    let frame = frame.echo_request(random.next() as u16, random.next() as u16);
    frame.payload(vec![0; random.below(4)])
}

fn other(random: &mut Random, hosts: &Hosts) -> Packet {
    let frame = packet().eth(ROUTER, WAN);
    let to_stranger = frame.clone().ip(hosts.client, hosts.stranger);
    match random.below(5) {
        0 => frame.ethertype(0x0806).padded(46),
        1 => frame.ip(hosts.client, hosts.vip).protocol(random.next() as u8).payload([0; 40]),
        2 => frame.ip(hosts.client, hosts.vip).tcp(1, 22).syn(),
        3 => to_stranger.udp(53, 53).payload("somebody's"),
        _ => frame.ip(hosts.backends[0], hosts.client).tcp(8080, 9).ack(1),
    }
}

/// What any packet may have besides.
fn decorate(random: &mut Random, hosts: &Hosts, mut frame: Packet) -> Packet {
    if random.once_in(12) {
        frame = frame.ttl(random.below(3) as u8);
    }
    if random.once_in(2) {
        frame = frame.df();
    }
    if random.once_in(6) {
        frame = frame.vlan(100);
    }
    if random.once_in(12) {
        frame = frame.tag(0x88a8, 7);
    }
    if random.once_in(10) {
        frame = frame.options(&[1; 8]);
    }
    if hosts.is_v6() && random.once_in(10) {
        frame = frame.extension(any_extension(random));
    }
    if random.once_in(10) {
        let start = random.pick(&[0, 0, 8, 16, 1200]);
        let end = start + 8 * (1 + random.below(60));
        frame = frame.fragment(random.below(12) as u32, start..end);
    }
    if random.once_in(6) {
        frame = frame.padded(random.below(18));
    }
    frame
}
