//! Changes made while traffic runs: none of them may be felt.

use lb_tests::address::Family;
use lb_tests::needs_root;
use lb_tests::setup::{Setup, echo, web, web_vip};
use lb_tests::topology::Shape;

use crate::traffic::{SOON, Traffic, assert_no_checksum_errors, everywhere};

#[test]
fn a_backend_is_added_and_removed_under_load_without_a_failed_request() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 3).unwrap();
    everywhere(&setup, "drain", 2, &[]);
    let traffic = Traffic::start(&setup);
    assert_eq!(traffic.next_begun(400).of("b3"), 0);

    everywhere(&setup, "enable", 2, &[]);
    assert!(traffic.next_begun(600).of("b3") > 100);

    traffic.hang_up("b1");
    everywhere(&setup, "remove", 0, &["--drain-timeout", "1s"]);
    for family in Family::BOTH {
        setup.agent.await_removed(&web(family), &setup.http(0, family), 3 * SOON).unwrap();
        setup.agent.await_removed(&echo(family), &setup.udp(0, family), 3 * SOON).unwrap();
    }
    assert_eq!(traffic.next_begun(400).of("b1"), 0);

    everywhere(&setup, "add", 0, &[]);
    assert!(traffic.next_begun(600).of("b1") > 100);
    traffic.assert_undisturbed();
    assert_no_checksum_errors(&setup);
}

#[test]
fn a_draining_backend_keeps_its_flows_and_gets_no_new_ones() {
    needs_root!();
    let setup = Setup::serving(Shape::OneArmed, 3).unwrap();
    let traffic = Traffic::start(&setup);
    let standing = traffic.standing("b2");
    assert!(standing > 0);
    everywhere(&setup, "drain", 1, &[]);
    for family in Family::BOTH {
        let row = setup.agent.backend(&web(family), &setup.http(1, family)).unwrap().unwrap();
        assert_eq!(row["admin"], "draining", "{row}");
    }
    assert_eq!(traffic.next_begun(1000).of("b2"), 0);
    traffic.assert_undisturbed();
    assert_eq!(traffic.standing("b2"), standing);

    everywhere(&setup, "enable", 1, &[]);
    assert!(traffic.next_begun(600).of("b2") > 100);
    traffic.assert_undisturbed();
}

#[test]
fn remove_waits_for_the_last_flow_and_force_does_not() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 3).unwrap();
    let traffic = Traffic::start(&setup);
    let listed =
        |backend, family| setup.agent.backend(&web(family), &setup.http(backend, family)).unwrap().is_some();
    everywhere(&setup, "remove", 1, &["--drain-timeout", "5m"]);
    assert_eq!(traffic.next_begun(1000).of("b2"), 0);
    assert!(
        Family::BOTH.into_iter().all(|family| listed(1, family)),
        "its long-lived connections still stand"
    );
    traffic.assert_undisturbed();

    // The UDP services' backend may be gone already: it had no flow to wait for, or not for long.
    for family in Family::BOTH {
        setup.agent.must(["backend", "remove", &web(family), &setup.http(1, family), "--force"]).unwrap();
    }
    assert!(!Family::BOTH.into_iter().any(|family| listed(1, family)));
    traffic.next_begun(400);
    traffic.assert_lost_only_with(&["b2"]);
}

#[test]
fn the_strategy_changes_live_and_no_connection_moves() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 4).unwrap();
    let traffic = Traffic::start(&setup);
    for strategy in ["consistent-hash", "maglev", "consistent-hash"] {
        for family in Family::BOTH {
            for service in [web(family), echo(family)] {
                setup.agent.must(["service", "set", &service, "--strategy", strategy]).unwrap();
                assert_eq!(setup.service(&service).unwrap()["strategy"], strategy);
            }
        }
        let tally = traffic.next_begun(800);
        assert_eq!(tally.spread.len(), 4, "{strategy}: {tally:?}");
    }
    traffic.assert_undisturbed();
}

#[test]
fn of_ten_backends_one_is_taken_out_and_every_flow_stays() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 10).unwrap();
    let traffic = Traffic::start(&setup);
    let names: Vec<String> = setup.lab.backends.iter().map(|host| host.name.clone()).collect();
    let before: Vec<usize> = names.iter().map(|name| traffic.standing(name)).collect();
    assert_eq!(before.iter().sum::<usize>(), 40);
    everywhere(&setup, "drain", 4, &[]);
    assert_eq!(traffic.next_begun(800).of("b5"), 0);
    traffic.assert_undisturbed();
    let after: Vec<usize> = names.iter().map(|name| traffic.standing(name)).collect();
    assert_eq!(before, after);
}

#[test]
fn shares_follow_the_weights() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 3).unwrap();
    for (backend, weight) in [(0, "1"), (1, "2"), (2, "5")] {
        everywhere(&setup, "set", backend, &["--weight", weight]);
    }
    let traffic = Traffic::start(&setup);
    let tally = traffic.next_begun(4000);
    for (name, expected) in [("b1", 0.125), ("b2", 0.25), ("b3", 0.625)] {
        // Five standard deviations of 4000 draws are 4 points at most.
        let share = tally.share(name);
        assert!((share - expected).abs() < 0.04, "{name} has {share:.3} instead of {expected}");
    }
    traffic.assert_undisturbed();
}

#[test]
fn explain_names_the_backend_that_a_flow_has() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 3).unwrap();
    for family in Family::BOTH {
        let vip = web_vip(family);
        setup.lab.client.run(|| {
            let mut http = lb_tests::http_client::HttpClient::connect(vip, SOON).unwrap();
            let backend = http.get().unwrap();
            let client = http.local_addr().unwrap().to_string();
            let explained =
                setup.agent.json(["explain", "--protocol", "tcp", &client, &vip.to_string()]).unwrap();
            let index = setup.lab.backends.iter().position(|host| host.name == backend).unwrap();
            assert_eq!(explained["backend"], setup.http(index, family), "{explained}");
            assert_eq!(explained["reason"], "flow", "{explained}");
            assert_eq!(explained["service"], web(family), "{explained}");
        });
    }
}

#[test]
fn explain_foretells_where_a_new_flow_goes() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 3).unwrap();
    for family in Family::BOTH {
        let vip = web_vip(family);
        for port in 20_000..20_010_u16 {
            let client = setup.lab.client.run(|| {
                // The address that the kernel will choose for this destination.
                lb_tests::udp_client::UdpClient::connect(vip, SOON)?.local_addr()
            });
            let client = std::net::SocketAddr::new(client.unwrap().ip(), port);
            let words = ["explain", "--protocol", "tcp", &client.to_string(), &vip.to_string()];
            let explained = setup.agent.json(words).unwrap();
            assert_eq!(explained["reason"], "slot", "{explained}");
            let answer = setup
                .lab
                .client
                .run(|| lb_tests::http_client::HttpClient::connect_from(client, vip, SOON)?.get());
            let backend = answer.unwrap();
            let index = setup.lab.backends.iter().position(|host| host.name == backend).unwrap();
            assert_eq!(explained["backend"], setup.http(index, family), "{explained}");
        }
    }
}
