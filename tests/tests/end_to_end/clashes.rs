//! One client port, two virtual addresses, shared backends: a backend could not tell the connections apart.

use std::net::SocketAddr;
use std::time::Duration;

use lb_tests::address::Family;
use lb_tests::agent::Settings;
use lb_tests::http_client::{HttpClient, reason};
use lb_tests::needs_root;
use lb_tests::setup::{Setup, web_vip};
use lb_tests::topology::Shape;

use crate::traffic::{SOON, assert_no_checksum_errors};

/// Less than a SYN's first retransmission takes: whoever is refused has sent one.
const ONE_SYN: Duration = Duration::from_millis(800);

/// The port of the second service.
const OTHER_PORT: u16 = 81;

fn other_vip(family: Family) -> SocketAddr {
    SocketAddr::new(family.vip(), OTHER_PORT)
}

/// A service of the first backend alone, and another of as many as are told.
fn sharing(backends: u8) -> Setup {
    let setup = Setup::bare(Shape::TwoArmed, backends, Settings::default()).unwrap();
    for family in Family::BOTH {
        let [one, other] = ["one", "other"].map(|name| format!("{name}{}", family.number()));
        setup.add_service(&one, web_vip(family), "tcp", "none").unwrap();
        setup.add_service(&other, other_vip(family), "tcp", "none").unwrap();
        setup.agent.must(["backend", "add", &one, &setup.http(0, family)]).unwrap();
        for backend in 0..usize::from(backends) {
            setup.agent.must(["backend", "add", &other, &setup.http(backend, family)]).unwrap();
        }
    }
    setup
}

/// A connection from that port, which must get through.
fn open(setup: &Setup, port: u16, target: SocketAddr) -> (HttpClient, String) {
    setup.lab.client.run(|| {
        let mut http = HttpClient::connect_from(from(target, port), target, SOON).unwrap();
        let backend = http.get().unwrap();
        (http, backend)
    })
}

/// That port of the client, in the target's family.
fn from(target: SocketAddr, port: u16) -> SocketAddr {
    let address = if target.is_ipv4() {
        lb_tests::address::CLIENT_V4.into()
    } else {
        lb_tests::address::CLIENT_V6.into()
    };
    SocketAddr::new(address, port)
}

#[test]
fn a_port_that_is_in_use_at_a_shared_backend_is_given_another() {
    needs_root!();
    let setup = sharing(2);
    let mut connections = Vec::new();
    for family in Family::BOTH {
        for port in 20_000..20_020 {
            let (first, backend) = open(&setup, port, web_vip(family));
            assert_eq!(backend, "b1", "{family:?}: the only one of its service");
            connections.push((first, backend));
            let (second, backend) = open(&setup, port, other_vip(family));
            assert_eq!(backend, "b2", "{family:?}: the other's connection of port {port} is b1's");
            connections.push((second, backend));
        }
    }
    // Each was the first backend's in one of two cases.
    let sidestepped = setup.agent.counter("flow_sidestepped").unwrap();
    assert!((8..=32).contains(&sidestepped), "{sidestepped} of 40");
    assert_eq!(setup.agent.counter("drop_tuple_in_use").unwrap(), 0);
    for (http, backend) in &mut connections {
        assert_eq!(http.get().unwrap(), *backend);
    }
    assert_no_checksum_errors(&setup);
}

#[test]
fn a_port_that_is_in_use_at_every_backend_is_refused_until_it_is_free() {
    needs_root!();
    const PORT: u16 = 21_000;
    let setup = sharing(1);
    for family in Family::BOTH {
        let before = setup.agent.counter("drop_tuple_in_use").unwrap();
        let (mut first, _) = open(&setup, PORT, web_vip(family));
        let target = other_vip(family);
        let refused = setup
            .lab
            .client
            .run(|| HttpClient::connect_from(from(target, PORT), target, ONE_SYN).map(drop).unwrap_err());
        assert_eq!(reason(&refused), "timed out", "{family:?}");
        assert_eq!(setup.agent.counter("drop_tuple_in_use").unwrap(), before + 1, "{family:?}");
        // Another port is in nobody's way, and the first connection has not noticed.
        assert_eq!(open(&setup, PORT + 1, target).1, "b1");
        assert_eq!(first.get().unwrap(), "b1");

        // With its row the first connection's flow goes, and with that the port's other use.
        setup
            .agent
            .must([
                "backend",
                "remove",
                &format!("one{}", family.number()),
                &setup.http(0, family),
                "--force",
            ])
            .unwrap();
        assert_eq!(open(&setup, PORT, target).1, "b1", "{family:?}: nobody has the port any more");
    }
}
