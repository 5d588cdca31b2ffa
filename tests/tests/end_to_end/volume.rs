//! Many connections and many bytes: nothing lost, nothing changed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use lb_tests::address::Family;
use lb_tests::http_client::HttpClient;
use lb_tests::setup::{Setup, web_vip};
use lb_tests::tools::{RealServer, iperf3};
use lb_tests::topology::Shape;
use lb_tests::{needs_program, needs_root};

use crate::traffic::assert_no_checksum_errors;

/// A hundredth of the usual speed would still do.
const TIMEOUT: Duration = Duration::from_secs(300);
const GIGABYTE: u64 = 1_000_000_000;

#[test]
fn ten_thousand_curls_in_a_row_all_succeed() {
    needs_root!();
    needs_program!("curl");
    let setup = Setup::serving(Shape::TwoArmed, 3).unwrap();
    for family in Family::BOTH {
        // HTTP/1.0: the server closes after each answer, so every request is a connection of its own.
        let url = format!("http://{}/[1-10000]", web_vip(family));
        let curl = ["curl", "--silent", "--show-error", "--fail", "--http1.0", "--max-time", "5", &url];
        let answers = setup.lab.client.must(&curl, TIMEOUT).unwrap();
        let mut spread = BTreeMap::<_, u32>::new();
        for answer in answers.lines() {
            *spread.entry(answer.split(' ').next().unwrap()).or_default() += 1;
        }
        assert_eq!(spread.values().sum::<u32>(), 10_000, "{family:?}: {spread:?}");
        // A fair draw of 10,000 leaves each within 3333 +- 240 at five standard deviations.
        let fair = spread.len() == 3 && spread.values().all(|count| (3093..=3573).contains(count));
        assert!(fair, "{family:?}: {spread:?}");
    }
    assert_no_checksum_errors(&setup);
}

#[test]
fn a_gigabyte_down_arrives_byte_for_byte() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 2).unwrap();
    for family in Family::BOTH {
        let download = || HttpClient::connect(web_vip(family), Duration::from_secs(10))?.download(GIGABYTE);
        let backend = setup.lab.client.run(download).unwrap();
        assert!(["b1", "b2"].contains(&backend.as_str()), "{backend}");
    }
    assert_no_checksum_errors(&setup);
}

#[test]
fn a_gigabyte_up_arrives() {
    needs_root!();
    needs_program!("iperf3");
    let setup = Setup::serving(Shape::OneArmed, 1).unwrap();
    let port = 5201;
    let _server = RealServer::iperf3(&setup.lab.backends[0], port).unwrap();
    for family in Family::BOTH {
        let vip = SocketAddr::new(family.vip(), port);
        let name = format!("bulk{}", family.number());
        setup.add_service(&name, vip, "tcp", "none").unwrap();
        setup.agent.must(["backend", "add", &name, &setup.lab.backends[0].endpoint(family, port)]).unwrap();
        let report = iperf3(&setup.lab.client, vip, &["--bytes", "1G"], TIMEOUT).unwrap();
        let received = report["end"]["sum_received"]["bytes"].as_u64().unwrap();
        assert!(received >= GIGABYTE, "{family:?}: {received} bytes");
    }
    assert_no_checksum_errors(&setup);
}
