//! The lab itself, with the kernel forwarding and no agent: what the other suites build on must hold first.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lb_tests::address::Family;
use lb_tests::checksum_errors;
use lb_tests::held::Held;
use lb_tests::http_client::HttpClient;
use lb_tests::load::{Load, Plan, Transport};
use lb_tests::netns::Namespace;
use lb_tests::server::{Protocol, Server};
use lb_tests::topology::{Shape, Topology};
use lb_tests::udp_client::UdpClient;
use lb_tests::{needs_root, residue, wait};

const PORT: u16 = 8080;
const TIMEOUT: Duration = Duration::from_secs(5);
const SHAPES: [Shape; 3] = [Shape::TwoArmed, Shape::OneArmed, Shape::NarrowPath { mtu: 1280 }];

fn forwarding(shape: Shape, backends: u8) -> Topology {
    let lab = Topology::build(shape, backends).expect("a lab can be built");
    lab.forward_without_agent().expect("the balancer can forward");
    lab
}

#[test]
fn every_shape_carries_tcp_and_udp_of_both_families() {
    needs_root!();
    for shape in SHAPES {
        let lab = forwarding(shape, 2);
        for host in &lab.backends {
            let _http = Server::start(host, Protocol::Http, PORT).unwrap();
            let _udp = Server::start(host, Protocol::UdpEcho, PORT).unwrap();
            for family in Family::BOTH {
                let target = SocketAddr::new(host.address(family), PORT);
                let answer = lab.client.run(|| HttpClient::connect(target, TIMEOUT)?.get());
                assert_eq!(answer.unwrap(), host.name, "{shape:?} {family:?}");
                let answer = lab.client.run(|| UdpClient::connect(target, TIMEOUT)?.ask(1000));
                assert_eq!(answer.unwrap(), host.name, "{shape:?} {family:?}");
            }
        }
        for (name, host) in lab.end_hosts() {
            assert_eq!(checksum_errors::count(host).unwrap(), 0, "{name} in {shape:?}");
        }
    }
}

#[test]
fn bulk_passes_a_narrow_path_in_both_directions() {
    needs_root!();
    let lab = forwarding(Shape::NarrowPath { mtu: 1280 }, 1);
    let _server = Server::start(&lab.backends[0], Protocol::Http, PORT).unwrap();
    for family in Family::BOTH {
        let target = SocketAddr::new(lab.backends[0].address(family), PORT);
        lab.client.run(|| {
            let mut http = HttpClient::connect(target, TIMEOUT).unwrap();
            assert_eq!(http.upload(1 << 20).unwrap(), "b1");
            assert_eq!(http.download(1 << 20).unwrap(), "b1");
        });
    }
}

#[test]
fn a_killed_server_resets_its_connections_and_comes_back() {
    needs_root!();
    let lab = forwarding(Shape::TwoArmed, 1);
    let mut server = Server::start(&lab.backends[0], Protocol::Http, PORT).unwrap();
    let target = SocketAddr::new(lab.backends[0].v4.into(), PORT);
    let held = Held::open(&lab.client, target, 5).unwrap();
    assert_eq!(held.spread()["b1"], 5);
    assert!(held.lost().unwrap().is_empty());

    server.kill();
    let lost = held.lost().unwrap();
    assert_eq!(lost.len(), 5);
    assert!(lost.iter().all(|lost| lost.reason == "reset"), "{lost:?}");
    let refused = lab.client.run(|| HttpClient::connect(target, TIMEOUT)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

    server.revive().unwrap();
    assert_eq!(lab.client.run(|| HttpClient::connect(target, TIMEOUT)?.get()).unwrap(), "b1");
}

#[test]
fn an_unplugged_backend_is_silent_until_it_is_plugged_in_again() {
    needs_root!();
    let lab = forwarding(Shape::TwoArmed, 1);
    let host = &lab.backends[0];
    let _server = Server::start(host, Protocol::Http, PORT).unwrap();
    for family in Family::BOTH {
        let target = SocketAddr::new(host.address(family), PORT);
        let connect = || lab.client.run(|| HttpClient::connect(target, Duration::from_millis(300))?.get());
        connect().unwrap();
        lab.unplug(host).unwrap();
        let error = connect().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
        lab.replug(host).unwrap();
        wait::until_true(TIMEOUT, "the backend answers again", || connect().is_ok()).unwrap();
    }
}

#[test]
fn load_counts_every_answer_and_every_error() {
    needs_root!();
    let lab = forwarding(Shape::OneArmed, 1);
    let host = &lab.backends[0];
    let mut servers =
        [Protocol::Http, Protocol::UdpEcho].map(|protocol| Server::start(host, protocol, PORT).unwrap());
    let target = SocketAddr::new(host.v6.into(), PORT);
    for (index, transport) in [Transport::Tcp, Transport::Udp].into_iter().enumerate() {
        let load = Load::start(&lab.client, Plan { transport, target, workers: 4, per_second: 500 }).unwrap();
        wait::until_true(TIMEOUT, "200 requests are answered", || load.tally().requests >= 200).unwrap();
        assert_eq!(load.tally().failed, 0);
        servers[index].kill();
        // Few: the backend's kernel answers datagrams to a closed port with only one ICMPv6 error a second, so most
        // clients wait for nothing.
        wait::until_true(TIMEOUT, "requests failed", || load.tally().failed >= 4).unwrap();
        let failures = load.failures_from(0);
        let total = load.stop();
        assert_eq!(total.of("b1"), servers[index].requests());
        assert_eq!(total.of("b1") + total.failed, total.requests);
        assert!(failures.iter().any(|failure| failure.reason == "refused"), "{failures:?}");
    }
}

#[test]
fn a_server_knows_which_clients_have_reached_it() {
    needs_root!();
    let lab = forwarding(Shape::TwoArmed, 2);
    let servers: Vec<_> =
        lab.backends.iter().map(|host| Server::start(host, Protocol::Http, PORT).unwrap()).collect();
    let begin = Instant::now();
    let client = lab.client.run(|| {
        let mut http = HttpClient::connect((lab.backends[0].v4, PORT).into(), TIMEOUT).unwrap();
        http.get().unwrap();
        http.local_addr().unwrap()
    });
    let end = Instant::now();
    assert!(servers[0].has_seen(client, begin..=end));
    assert!(!servers[1].has_seen(client, begin..=end));
    assert!(!servers[0].has_seen(client, end..=Instant::now()));
}

#[test]
fn a_lab_leaves_nothing_behind() {
    needs_root!();
    let namespace = Namespace::create("residue").unwrap();
    let name = namespace.name().to_owned();
    let sleeper = namespace.command("sleep").arg("600").spawn().unwrap();
    let left = || {
        residue::of(std::process::id()).into_iter().map(|leftover| leftover.to_string()).collect::<Vec<_>>()
    };
    let expected = [format!("namespace {name}"), format!("process {}", sleeper.id())];
    assert!(expected.iter().all(|thing| left().contains(thing)), "{:?}", left());
    drop(namespace);
    // Killed, and a zombie until we reap it: a zombie is in no namespace.
    assert!(!expected.iter().any(|thing| left().contains(thing)), "{:?}", left());
    let mut sleeper = sleeper;
    assert!(!sleeper.wait().unwrap().success());
}
