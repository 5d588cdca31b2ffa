//! Programs that everyone has, through a VIP.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use lb_tests::address::Family;
use lb_tests::agent::Settings;
use lb_tests::setup::{Setup, web_vip};
use lb_tests::tools::{RealServer, iperf3};
use lb_tests::topology::Shape;
use lb_tests::{needs_program, needs_root};

use crate::traffic::assert_no_checksum_errors;

const NGINX_PORT: u16 = 8081;
const IPERF_PORT: u16 = 5201;
const TIMEOUT: Duration = Duration::from_secs(60);

/// A lab whose `web` services lead to nginx on every backend.
fn nginx_setup(shape: Shape) -> (Vec<RealServer>, Setup) {
    let setup = Setup::bare(shape, 3, Settings::default()).unwrap();
    let servers =
        setup.lab.backends.iter().map(|host| RealServer::nginx(host, NGINX_PORT).unwrap()).collect();
    for family in Family::BOTH {
        let name = format!("nginx{}", family.number());
        setup.add_service(&name, web_vip(family), "tcp", "none").unwrap();
        for host in &setup.lab.backends {
            setup.agent.must(["backend", "add", &name, &host.endpoint(family, NGINX_PORT)]).unwrap();
        }
    }
    (servers, setup)
}

#[test]
fn curl_reaches_every_nginx_through_either_shape_and_family() {
    needs_root!();
    needs_program!("curl");
    needs_program!("nginx");
    for shape in [Shape::TwoArmed, Shape::OneArmed] {
        let (_servers, setup) = nginx_setup(shape);
        for family in Family::BOTH {
            let url = format!("http://{}/[1-60]", web_vip(family));
            let curl = ["curl", "--silent", "--show-error", "--fail", "--http1.0", "--max-time", "5", &url];
            let answers = setup.lab.client.must(&curl, TIMEOUT).unwrap();
            assert_eq!(answers.lines().count(), 60, "{shape:?} {family:?}: {answers}");
            let backends: BTreeSet<_> = answers.lines().collect();
            assert_eq!(backends, BTreeSet::from(["b1", "b2", "b3"]), "{shape:?} {family:?}");
        }
        assert_no_checksum_errors(&setup);
    }
}

#[test]
fn wrk_sees_no_error_on_kept_and_on_new_connections() {
    needs_root!();
    needs_program!("wrk");
    needs_program!("nginx");
    let (_servers, setup) = nginx_setup(Shape::TwoArmed);
    for family in Family::BOTH {
        let url = format!("http://{}/", web_vip(family));
        for header in ["Connection: keep-alive", "Connection: close"] {
            let wrk =
                ["wrk", "--threads", "1", "--connections", "20", "--duration", "2s", "-H", header, &url];
            let report = setup.lab.client.must(&wrk, TIMEOUT).unwrap();
            assert!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{header}: {report}");
            let requests =
                report.split(" requests in ").next().and_then(|head| head.split_whitespace().last());
            let requests: u64 = requests.unwrap().parse().unwrap();
            assert!(requests > 100, "{family:?} {header}: {report}");
        }
    }
    assert_no_checksum_errors(&setup);
}

#[test]
fn iperf3_measures_tcp_and_udp() {
    needs_root!();
    needs_program!("iperf3");
    let setup = Setup::bare(Shape::TwoArmed, 1, Settings::default()).unwrap();
    let _server = RealServer::iperf3(&setup.lab.backends[0], IPERF_PORT).unwrap();
    for family in Family::BOTH {
        let vip = SocketAddr::new(family.vip(), IPERF_PORT);
        // The control connection and the data are flows of their own: with one backend they end up together.
        for protocol in ["tcp", "udp"] {
            let name = format!("iperf-{protocol}{}", family.number());
            setup.add_service(&name, vip, protocol, "none").unwrap();
            let backend = setup.lab.backends[0].endpoint(family, IPERF_PORT);
            setup.agent.must(["backend", "add", &name, &backend]).unwrap();
        }
        for direction in [&[][..], &["--reverse"]] {
            let tcp = [&["--time", "2"], direction].concat();
            let report = iperf3(&setup.lab.client, vip, &tcp, TIMEOUT).unwrap();
            let received = report["end"]["sum_received"]["bytes"].as_u64().unwrap();
            assert!(received > 10 << 20, "{family:?} {tcp:?}: {received} bytes in 2 s");

            // A rate that the slowest machine keeps up with, so that a lost datagram is the balancer's loss.
            let udp = [&["--udp", "--bitrate", "20M", "--time", "2", "--length", "1200"], direction].concat();
            let report = iperf3(&setup.lab.client, vip, &udp, TIMEOUT).unwrap();
            let sum = &report["end"]["sum"];
            assert!(sum["packets"].as_u64().unwrap() > 1000, "{family:?} {udp:?}: {sum}");
            assert!(sum["lost_percent"].as_f64().unwrap() < 1.0, "{family:?} {udp:?}: {sum}");
        }
    }
    assert_no_checksum_errors(&setup);
}
