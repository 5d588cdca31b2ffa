//! Packets that are not simply a request or a reply.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use lb_tests::address::{self, Family};
use lb_tests::agent::Settings;
use lb_tests::bulk::Pattern;
use lb_tests::http_client::HttpClient;
use lb_tests::icmp::IcmpListener;
use lb_tests::server::{Protocol, Server};
use lb_tests::setup::{Setup, echo_vip, web, web_vip};
use lb_tests::topology::Shape;
use lb_tests::udp_client::UdpClient;
use lb_tests::{needs_program, needs_root};

use crate::traffic::{SOON, assert_no_checksum_errors};

#[test]
fn bulk_passes_a_router_with_a_small_mtu_behind_the_balancer() {
    needs_root!();
    let setup = Setup::serving(Shape::NarrowPath { mtu: 1280 }, 2).unwrap();
    for family in Family::BOTH {
        setup.lab.client.run(|| {
            let mut http = HttpClient::connect(web_vip(family), SOON).unwrap();
            http.upload(1 << 20).unwrap_or_else(|error| panic!("{family:?} up: {error}"));
            http.download(1 << 20).unwrap_or_else(|error| panic!("{family:?} down: {error}"));
        });
        // What the client's kernel has learned it can only have from a translated ICMP error.
        let vip = family.vip().to_string();
        let route = setup.lab.client.must(&["ip", "route", "get", &vip], SOON).unwrap();
        assert!(route.contains("mtu 1280"), "{family:?}: {route}");
    }
    assert_no_checksum_errors(&setup);
}

#[test]
fn a_vip_answers_ping_and_so_does_the_balancer_itself() {
    needs_root!();
    needs_program!("ping");
    let setup = Setup::serving(Shape::TwoArmed, 1).unwrap();
    let own: [IpAddr; 2] = [address::FRONT_V4.into(), address::FRONT_V6.into()];
    for target in Family::BOTH.map(Family::vip).into_iter().chain(own) {
        let target = target.to_string();
        for size in ["56", "1400"] {
            let ping = ["ping", "-c", "5", "-i", "0.1", "-W", "2", "-s", size, &target];
            let report = setup.lab.client.must(&ping, SOON).unwrap();
            assert!(report.contains(" 5 received"), "{report}");
        }
    }
    assert_no_checksum_errors(&setup);
}

#[test]
fn a_fragmented_datagram_and_its_fragmented_answer_stay_together() {
    needs_root!();
    for shape in [Shape::TwoArmed, Shape::OneArmed] {
        let setup = Setup::serving(shape, 3).unwrap();
        for family in Family::BOTH {
            let mut backends = std::collections::BTreeSet::new();
            for flow in 0..30 {
                let ask = || UdpClient::connect(echo_vip(family), Duration::from_secs(2))?.ask(5000);
                let backend = setup.lab.client.run(ask);
                backends.insert(
                    backend.unwrap_or_else(|error| panic!("{shape:?} {family:?} flow {flow}: {error}")),
                );
            }
            assert_eq!(backends.len(), 3, "{shape:?} {family:?}: all went to {backends:?}");
        }
        assert_no_checksum_errors(&setup);
    }
}

#[test]
fn a_udp_flow_keeps_its_backend() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 3).unwrap();
    for family in Family::BOTH {
        setup.lab.client.run(|| {
            let mut udp = UdpClient::connect(echo_vip(family), SOON).unwrap();
            let backend = udp.ask(100).unwrap();
            for _ in 0..50 {
                assert_eq!(udp.ask(1000).unwrap(), backend);
            }
        });
    }
}

#[test]
fn a_half_closed_connection_still_delivers() {
    needs_root!();
    let setup = Setup::bare(Shape::TwoArmed, 1, Settings::default()).unwrap();
    let port = 8007;
    let _server = Server::start(&setup.lab.backends[0], Protocol::TcpEcho, port).unwrap();
    for family in Family::BOTH {
        let name = format!("half{}", family.number());
        setup.add_service(&name, web_vip(family), "tcp", "none").unwrap();
        setup.agent.must(["backend", "add", &name, &setup.lab.backends[0].endpoint(family, port)]).unwrap();
        setup.lab.client.run(|| {
            let mut stream = TcpStream::connect_timeout(&web_vip(family), SOON).unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            let mut sent = vec![0; 30_000];
            Pattern::default().fill(&mut sent);
            stream.write_all(&sent).unwrap();
            // Our FIN is out before the first echoed byte is read: the answer travels on a flow that is half closed.
            stream.shutdown(Shutdown::Write).unwrap();
            let mut received = Vec::new();
            stream.read_to_end(&mut received).unwrap();
            assert!(
                received == [b"b1\n", &sent[..]].concat(),
                "{family:?}: {} bytes came back",
                received.len()
            );
        });
    }
    assert_no_checksum_errors(&setup);
}

#[test]
fn a_packet_at_the_end_of_its_hops_is_answered_from_the_vip() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 1).unwrap();
    for family in Family::BOTH {
        setup.lab.client.run(|| {
            let icmp = IcmpListener::open(family, SOON).unwrap();
            let sent = UdpClient::connect(echo_vip(family), SOON).unwrap();
            sent.send_with_hops(1, b"how far?").unwrap();
            let answer = icmp.time_exceeded().unwrap();
            assert_eq!(answer.from, family.vip(), "{family:?}");
            assert_eq!(answer.quoted_destination, family.vip(), "{family:?}");
            let ports = (sent.local_addr().unwrap().port(), echo_vip(family).port());
            assert_eq!(answer.quoted_ports, ports, "{family:?}");
        });
    }
    assert_no_checksum_errors(&setup);
}

#[test]
fn without_a_backend_new_connections_are_reset_at_once() {
    needs_root!();
    let setup = Setup::bare(Shape::TwoArmed, 0, Settings::default()).unwrap();
    for family in Family::BOTH {
        setup.add_service(&web(family), web_vip(family), "tcp", "none").unwrap();
        let error = setup.lab.client.run(|| HttpClient::connect(web_vip(family), SOON)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{family:?}: {error}");
    }
    assert_no_checksum_errors(&setup);
}

#[test]
fn without_a_backend_new_connections_are_dropped_where_that_is_set() {
    needs_root!();
    let setup = Setup::bare(Shape::TwoArmed, 0, Settings::default()).unwrap();
    for family in Family::BOTH {
        let state = setup.agent.directory().join("state.toml");
        let (name, vip) = (web(family), web_vip(family));
        let service = format!(
            "[[service]]\nname = {name:?}\nvip = \"{vip}\"\nprotocol = \"tcp\"\non-no-backend = \"drop\"\n"
        );
        std::fs::write(&state, service).unwrap();
        setup.agent.must(["apply".as_ref(), "-f".as_ref(), state.as_os_str()]).unwrap();
        let connect = || HttpClient::connect(vip, Duration::from_millis(1500));
        let error = setup.lab.client.run(connect).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{family:?}: {error}");
    }
}

#[test]
fn a_closed_port_of_a_vip_is_not_ours_and_refused_by_the_kernel() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 1).unwrap();
    for family in Family::BOTH {
        let closed = SocketAddr::new(family.vip(), 81);
        let error = setup.lab.client.run(|| HttpClient::connect(closed, SOON)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{family:?}: {error}");
    }
}
