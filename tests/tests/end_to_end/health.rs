//! Dead backends: taken out when the checks say so, and taken in again.

use std::time::Duration;

use lb_tests::address::Family;
use lb_tests::http_client::HttpClient;
use lb_tests::needs_root;
use lb_tests::server::Server;
use lb_tests::setup::{Setup, web, web_vip};
use lb_tests::topology::Shape;
use lb_tests::wait;

use crate::traffic::SOON;

/// Waits until the checks of both `web` services say this of the backend.
fn await_health(setup: &Setup, backend: usize, health: &str) {
    for family in Family::BOTH {
        let endpoint = setup.http(backend, family);
        setup.agent.await_backend(&web(family), &endpoint, "health", health, 2 * SOON).unwrap();
    }
}

/// Who answers 60 new connections; all must be answered.
fn answering(setup: &Setup, family: Family) -> std::collections::BTreeSet<String> {
    let ask = |_| setup.lab.client.run(|| HttpClient::connect(web_vip(family), SOON)?.get_and_close());
    (0..60).map(ask).collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_killed_server_is_taken_out_and_comes_back() {
    needs_root!();
    let mut setup = Setup::serving(Shape::TwoArmed, 3).unwrap();
    await_health(&setup, 1, "healthy");
    setup.servers[1].iter_mut().for_each(Server::kill);
    await_health(&setup, 1, "unhealthy");
    for family in Family::BOTH {
        assert!(!answering(&setup, family).contains("b2"), "{family:?}");
        assert_eq!(setup.service(&web(family)).unwrap()["healthy_backends"], 2);
    }
    setup.servers[1].iter_mut().try_for_each(Server::revive).unwrap();
    await_health(&setup, 1, "healthy");
    for family in Family::BOTH {
        let three = || Ok(answering(&setup, family).contains("b2").then_some(()));
        wait::until(SOON, "the backend that came back answers", three).unwrap();
    }
}

#[test]
fn a_silent_backend_is_taken_out_by_the_timeout_of_its_checks() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 3).unwrap();
    await_health(&setup, 0, "healthy");
    setup.lab.unplug(&setup.lab.backends[0]).unwrap();
    await_health(&setup, 0, "unhealthy");
    for family in Family::BOTH {
        assert!(!answering(&setup, family).contains("b1"), "{family:?}");
    }
    setup.lab.replug(&setup.lab.backends[0]).unwrap();
    await_health(&setup, 0, "healthy");
}

#[test]
fn a_backend_that_never_answered_is_taken_out_too() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 2).unwrap();
    let family = Family::V4;
    // Nobody has this address: not even the neighbour can be resolved.
    let nobody = "10.0.1.250:8080";
    setup.agent.must(["backend", "add", &web(family), nobody]).unwrap();
    setup.agent.await_backend(&web(family), nobody, "health", "unhealthy", 2 * SOON).unwrap();
    assert_eq!(answering(&setup, family).len(), 2);
}

#[test]
fn with_every_backend_dead_connections_are_reset_until_one_is_back() {
    needs_root!();
    let mut setup = Setup::serving(Shape::OneArmed, 2).unwrap();
    setup.servers.iter_mut().flatten().for_each(Server::kill);
    (0..2).for_each(|backend| await_health(&setup, backend, "unhealthy"));
    for family in Family::BOTH {
        let error = setup.lab.client.run(|| HttpClient::connect(web_vip(family), SOON)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{family:?}: {error}");
    }
    setup.servers[0].iter_mut().try_for_each(Server::revive).unwrap();
    await_health(&setup, 0, "healthy");
    for family in Family::BOTH {
        let back =
            || setup.lab.client.run(|| HttpClient::connect(web_vip(family), Duration::from_secs(2))?.get());
        let back = wait::until(SOON, "the service answers again", || Ok(back().ok())).unwrap();
        assert_eq!(back, "b1", "{family:?}");
    }
}
