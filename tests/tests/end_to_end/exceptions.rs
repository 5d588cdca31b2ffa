//! `track = "exceptions"` with real traffic: what it promises, and what it says that it cannot have.

use std::fmt::Write as _;

use lb_tests::address::Family;
use lb_tests::agent::Settings;
use lb_tests::needs_root;
use lb_tests::setup::{Setup, echo, echo_vip, web, web_vip};
use lb_tests::topology::Shape;

use crate::traffic::{SOON, Traffic, assert_no_checksum_errors, everywhere};

/// A lab of four backends whose services, of both protocols and families, track by exception. The first three backends
/// are there from the start: no slot has ever changed hands.
fn setup(strategy: &str) -> Setup {
    let setup = Setup::bare(Shape::TwoArmed, 4, Settings::default()).unwrap();
    let mut state = String::new();
    for family in Family::BOTH {
        let services = [
            (web(family), web_vip(family), "tcp", setup.endpoints(Setup::http, family)),
            (echo(family), echo_vip(family), "udp", setup.endpoints(Setup::udp, family)),
        ];
        for (name, vip, protocol, endpoints) in services {
            write!(
                state,
                "[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nprotocol = \"{protocol}\"\n\
                 strategy = \"{strategy}\"\ntrack = \"exceptions\"\n[service.health]\ntype = \"none\"\n"
            )
            .unwrap();
            for endpoint in &endpoints[..3] {
                write!(state, "[[service.backend]]\naddress = \"{endpoint}\"\n").unwrap();
            }
        }
    }
    let file = setup.agent.directory().join("state.toml");
    std::fs::write(&file, state).unwrap();
    setup.agent.must(["apply".as_ref(), "-f".as_ref(), file.as_os_str()]).unwrap();
    setup
}

fn remembered_flows(setup: &Setup) -> u64 {
    setup.agent.json(["status"]).unwrap()["flows"]["active"].as_u64().unwrap()
}

/// Backends come, drain and go under connections that stand and others that begin.
fn outlive_changes(strategy: &str) {
    let setup = setup(strategy);
    let traffic = Traffic::start(&setup);
    let tally = traffic.next_begun(400);
    assert_eq!(tally.spread.len(), 3, "{tally:?}");
    assert_eq!(remembered_flows(&setup), 0, "no slot has changed: no flow is remembered");
    let names = ["b1", "b2", "b3", "b4"];
    let standing = || names.map(|name| traffic.standing(name));
    let before = standing();
    assert_eq!(before.iter().sum::<usize>(), 40);

    everywhere(&setup, "add", 3, &[]);
    let tally = traffic.next_connections(600);
    assert!(tally.of("b4") > 75, "{tally:?}");
    assert!(remembered_flows(&setup) > 0, "connections of slots that have changed are remembered");
    traffic.assert_undisturbed();
    assert_eq!(standing(), before, "after one was added");

    everywhere(&setup, "drain", 1, &[]);
    assert_eq!(traffic.next_connections(600).of("b2"), 0);
    traffic.assert_undisturbed();
    assert_eq!(standing(), before, "after one began to drain");

    everywhere(&setup, "enable", 1, &[]);
    assert!(traffic.next_connections(600).of("b2") > 75);
    traffic.assert_undisturbed();
    assert_eq!(standing(), before, "after it took traffic again");

    // A backend that is removed takes with it what it still has: here nothing.
    everywhere(&setup, "drain", 0, &[]);
    traffic.hang_up("b1");
    assert_eq!(traffic.next_connections(200).of("b1"), 0);
    for family in Family::BOTH {
        let backend = setup.http(0, family);
        setup.agent.must(["backend", "remove", &web(family), &backend, "--drain-timeout", "1s"]).unwrap();
        setup.agent.await_removed(&web(family), &backend, 3 * SOON).unwrap();
    }
    traffic.next_connections(600);
    traffic.assert_undisturbed();
    assert_eq!(standing(), [0, before[1], before[2], before[3]], "after one was removed");
    assert_no_checksum_errors(&setup);
}

#[test]
fn by_exception_every_connection_outlives_changes_of_a_maglev_table() {
    needs_root!();
    outlive_changes("maglev");
}

#[test]
fn by_exception_every_connection_outlives_changes_of_a_consistent_hash() {
    needs_root!();
    outlive_changes("consistent-hash");
}

#[test]
fn what_it_cannot_have_is_refused_and_shown_by_status() {
    needs_root!();
    let setup = setup("maglev");
    for (option, value) in [("--on-backend-down", "reset"), ("--strategy", "round-robin")] {
        let reply = setup.agent.cli(["service", "set", "web4", option, value]).unwrap();
        assert!(!reply.is_success());
        let said = ["web4", "exceptions", value, "or use"].iter().all(|word| reply.stderr.contains(word));
        assert!(said, "{option} {value}: {}", reply.stderr);
    }
    // One endpoint in two services: replies could not be told apart.
    let taken = setup.http(0, Family::V4);
    setup.add_service("other", "10.0.0.101:80".parse().unwrap(), "tcp", "none").unwrap();
    let reply = setup.agent.cli(["backend", "add", "other", &taken]).unwrap();
    assert!(!reply.is_success() && reply.stderr.contains("exceptions"), "{}", reply.stderr);

    let screen = setup.agent.must(["status"]).unwrap();
    let row = screen.lines().find(|line| line.starts_with("web4")).unwrap();
    assert!(row.contains("0*"), "{screen}");
    assert!(!screen.lines().find(|line| line.starts_with("other")).unwrap().contains('*'), "{screen}");
    for what in ["only remembered flows are counted", "drain timeout", "no affinity", "no retry", "no reset"]
    {
        assert!(screen.contains(what), "{what}: {screen}");
    }
    let status = setup.agent.json(["status"]).unwrap();
    let rates = status["service_rates"].as_array().unwrap();
    let by_exception = rates.iter().filter(|row| row["track"] == "exceptions").count();
    assert_eq!((rates.len(), by_exception), (5, 4), "{status}");
}
