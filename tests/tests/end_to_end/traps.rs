//! What other balancers got wrong in operation: see `docs/traps.md`.

use std::io::ErrorKind;
use std::net::SocketAddr;

use lb_tests::address::Family;
use lb_tests::agent::Settings;
use lb_tests::http_client::HttpClient;
use lb_tests::needs_root;
use lb_tests::setup::{Setup, web, web_vip};
use lb_tests::topology::Shape;
use serde_json::Value;

use crate::traffic::SOON;

fn ask(setup: &Setup, vip: SocketAddr) -> std::io::Result<String> {
    setup.lab.client.run(|| HttpClient::connect(vip, SOON)?.get_and_close())
}

/// Several, so that many slots of a table that should be gone would be asked.
fn assert_refused(setup: &Setup, vip: SocketAddr) {
    for _ in 0..20 {
        let error = ask(setup, vip).expect_err("nobody answers");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{vip}: {error}");
    }
}

/// The web services on two backends, without checks.
fn setup() -> Setup {
    let setup = Setup::bare(Shape::TwoArmed, 2, Settings::default()).unwrap();
    for family in Family::BOTH {
        setup.add_service(&web(family), web_vip(family), "tcp", "none").unwrap();
        for backend in 0..2 {
            setup.agent.must(["backend", "add", &web(family), &setup.http(backend, family)]).unwrap();
        }
    }
    setup
}

#[test]
fn the_table_goes_with_the_last_backend() {
    needs_root!();
    let setup = setup();
    for family in Family::BOTH {
        ask(&setup, web_vip(family)).unwrap();
        for backend in 0..2 {
            let address = setup.http(backend, family);
            setup.agent.must(["backend", "remove", &web(family), &address, "--force"]).unwrap();
        }
        assert_refused(&setup, web_vip(family));
        setup.agent.must(["backend", "add", &web(family), &setup.http(1, family)]).unwrap();
        assert_eq!(ask(&setup, web_vip(family)).unwrap(), "b2");
    }
}

#[test]
fn a_new_service_has_nothing_of_the_one_that_was_removed() {
    needs_root!();
    let setup = setup();
    for family in Family::BOTH {
        ask(&setup, web_vip(family)).unwrap();
        setup.agent.must(["service", "remove", &web(family)]).unwrap();
        // At the same address, and at another one: whichever row and table each gets.
        let other = SocketAddr::new(family.vip(), 8000);
        for (name, vip) in [("again", web_vip(family)), ("other", other)] {
            setup.add_service(name, vip, "tcp", "none").unwrap();
            assert_refused(&setup, vip);
        }
        for name in ["again", "other"] {
            setup.agent.must(["service", "remove", name]).unwrap();
        }
    }
}

#[test]
fn explain_leaves_no_flow_and_counts_nothing() {
    needs_root!();
    let setup = setup();
    let seen = || {
        let status = setup.agent.json(["status"]).unwrap();
        let counts = |list: &str, count: &str| -> Vec<Value> {
            status[list].as_array().unwrap().iter().map(|row| row[count].clone()).collect()
        };
        let services = setup.agent.json(["service", "list"]).unwrap();
        let total = |row: &Value| row["connections_total"].clone();
        let totals: Vec<_> = services.as_array().unwrap().iter().map(total).collect();
        (status["flows"]["active"].clone(), counts("events", "count"), totals, {
            // Packets of the hosts' own, such as neighbour discovery, pass at any time.
            let rows = status["reasons"].as_array().unwrap().iter();
            let ours = rows.filter(|row| !row["reason"].as_str().unwrap().starts_with("pass_"));
            ours.map(|row| row["packets"].clone()).collect::<Vec<_>>()
        })
    };
    for family in Family::BOTH {
        ask(&setup, web_vip(family)).unwrap();
    }
    let before = seen();
    for family in Family::BOTH {
        for port in 20_000..20_020_u16 {
            let client = SocketAddr::new(setup.lab.backends[0].address(family), port).to_string();
            let explained =
                setup.agent.json(["explain", "--protocol", "tcp", &client, &web_vip(family).to_string()]);
            assert_eq!(explained.unwrap()["reason"], "slot");
        }
    }
    assert_eq!(seen(), before);
}
