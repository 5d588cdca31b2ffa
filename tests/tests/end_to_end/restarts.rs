//! The data plane without its agent, and without anything left of either.

use lb_tests::address::Family;
use lb_tests::agent::Agent;
use lb_tests::needs_root;
use lb_tests::netns::Namespace;
use lb_tests::setup::{Setup, web};
use lb_tests::topology::Shape;
use lb_tests::wait;
use serde_json::Value;

use crate::traffic::{SOON, Traffic, assert_no_checksum_errors};

/// Stops the agent in some way under load, starts it again, and changes something with it.
fn outlive(stop: fn(&mut Agent) -> anyhow::Result<()>) {
    let mut setup = Setup::serving(Shape::TwoArmed, 3).unwrap();
    let traffic = Traffic::start(&setup);
    traffic.next(400);
    let state = setup.agent.must(["export"]).unwrap();
    let counted = setup.service(&web(Family::V4)).unwrap()["connections_total"].as_u64().unwrap();

    stop(&mut setup.agent).unwrap();
    let tally = traffic.next_begun(600);
    assert_eq!(tally.spread.len(), 3, "without the agent: {tally:?}");

    setup.agent.run().unwrap();
    assert_eq!(setup.agent.must(["export"]).unwrap(), state, "the state after the restart");
    let tally = traffic.next_begun(600);
    assert_eq!(tally.spread.len(), 3, "with the new agent: {tally:?}");
    wait::until_true(SOON, "the counters go on from where they were", || {
        setup.service(&web(Family::V4)).unwrap()["connections_total"].as_u64().unwrap() > counted
    })
    .unwrap();

    for family in Family::BOTH {
        setup.agent.must(["backend", "drain", &web(family), &setup.http(0, family)]).unwrap();
        setup
            .agent
            .must(["backend", "drain", &lb_tests::setup::echo(family), &setup.udp(0, family)])
            .unwrap();
    }
    assert_eq!(traffic.next_begun(600).of("b1"), 0, "the new agent's change");
    traffic.assert_undisturbed();
    assert_no_checksum_errors(&setup);
}

#[test]
fn the_agent_restarts_under_load_without_a_failed_request() {
    needs_root!();
    outlive(Agent::terminate);
}

#[test]
fn the_agent_is_killed_under_load_without_a_failed_request() {
    needs_root!();
    outlive(Agent::kill);
}

#[test]
fn every_acknowledged_change_outlives_a_kill() {
    needs_root!();
    let mut setup = Setup::serving(Shape::TwoArmed, 3).unwrap();
    let weight = |setup: &Setup| {
        setup.agent.backend(&web(Family::V4), &setup.http(0, Family::V4)).unwrap().unwrap()["weight"].clone()
    };
    for number in 2..6_u64 {
        let endpoint = setup.http(0, Family::V4);
        setup
            .agent
            .must(["backend", "set", &web(Family::V4), &endpoint, "--weight", &number.to_string()])
            .unwrap();
        setup.agent.kill().unwrap();
        setup.agent.run().unwrap();
        assert_eq!(weight(&setup), number);
    }
}

#[test]
fn detach_takes_everything_down_with_the_agent_stopped() {
    needs_root!();
    let mut setup = Setup::serving(Shape::TwoArmed, 2).unwrap();
    let untouched = setup.lab.balancer_interfaces();
    assert!(untouched.iter().all(|interface| has_xdp(&setup.lab.balancer, interface)));
    setup.agent.terminate().unwrap();
    assert!(untouched.iter().all(|interface| has_xdp(&setup.lab.balancer, interface)), "stopping detached");
    assert!(setup.agent.pin_dir().exists());

    setup.agent.detach().unwrap();
    assert!(!untouched.iter().any(|interface| has_xdp(&setup.lab.balancer, interface)));
    assert!(!setup.agent.pin_dir().exists(), "{} is still there", setup.agent.pin_dir().display());
    for family in Family::BOTH {
        let addresses = setup.lab.balancer.must(&["ip", "-j", "addr"], SOON).unwrap();
        assert!(!addresses.contains(&format!("\"{}\"", family.vip())), "{addresses}");
    }
    // Once more: nothing to do is not an error.
    setup.agent.detach().unwrap();
}

/// Whether an XDP program is attached, by netlink: `ip` prints it with the link.
fn has_xdp(namespace: &Namespace, interface: &str) -> bool {
    let link = namespace.must(&["ip", "-j", "link", "show", "dev", interface], SOON).unwrap();
    let link: Value = serde_json::from_str(&link).unwrap();
    link[0]["xdp"].is_object()
}
