//! The data plane without its agent, and without anything left of either.

use lb_tests::address::Family;
use lb_tests::agent::{Agent, Settings};
use lb_tests::needs_root;
use lb_tests::netns::Namespace;
use lb_tests::setup::{Setup, web};
use lb_tests::topology::{Shape, Topology};
use lb_tests::wait;
use rustix::process::Signal;

use crate::traffic::{SOON, Traffic, assert_no_checksum_errors};

/// Restarts, upgrades and reloads one after another: three of each, or as many as `LB_ROUNDS` says.
fn rounds() -> usize {
    std::env::var("LB_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(15)
}

/// Has the next agent load the other build of the program, or this one again: it is put in the place of the one before.
fn switch_builds(setup: &Setup, diagnostics: bool) -> anyhow::Result<()> {
    let config = std::fs::read_to_string(setup.agent.config())?;
    let keys = config.lines().filter(|line| !line.starts_with("diagnostics")).collect::<Vec<_>>().join("\n");
    Ok(std::fs::write(setup.agent.config(), format!("diagnostics = {diagnostics}\n{keys}\n"))?)
}

/// Has the running agent read its configuration again, as it is or as one that cannot be used.
fn reload(setup: &Setup, is_valid: bool) -> anyhow::Result<()> {
    let config = std::fs::read_to_string(setup.agent.config())?;
    if !is_valid {
        std::fs::write(setup.agent.config(), "interfaces = 5\n")?;
    }
    let expected = if is_valid { "configuration-reloaded" } else { "configuration-refused" };
    let told = || anyhow::Ok(setup.agent.must(["events"])?.matches(expected).count());
    let before = told()?;
    setup.agent.signal(Signal::HUP)?;
    wait::until(SOON, expected, || Ok((told()? > before).then_some(())))?;
    Ok(std::fs::write(setup.agent.config(), config)?)
}

#[test]
fn kills_restarts_upgrades_and_reloads_fail_no_request() {
    needs_root!();
    let mut setup = Setup::serving(Shape::TwoArmed, 3).unwrap();
    let traffic = Traffic::start(&setup);
    for round in 0..rounds() {
        match round % 5 {
            0 => setup.agent.kill().and_then(|()| setup.agent.run()),
            1 => setup.agent.terminate().and_then(|()| setup.agent.run()),
            2 => setup
                .agent
                .terminate()
                .and_then(|()| switch_builds(&setup, round % 2 == 0))
                .and_then(|()| setup.agent.run()),
            other => reload(&setup, other == 3),
        }
        .unwrap_or_else(|error| panic!("round {round}: {error:#}"));
        traffic.next(100);
    }
    assert_eq!(traffic.next_begun(600).spread.len(), 3);
    traffic.assert_undisturbed();
    assert_no_checksum_errors(&setup);
}

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
    // The tables know when an agent last saw to them.
    assert!(setup.agent.json(["status"]).unwrap()["unattended_seconds"].is_u64());
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

#[test]
fn detach_puts_settings_back_that_the_agent_changed_and_no_others() {
    needs_root!();
    const CHANGED: [&str; 4] = [
        "net.ipv4.conf.wan.forwarding",
        "net.ipv4.conf.lan.forwarding",
        "net.ipv4.conf.lan.accept_local",
        "net.ipv6.conf.all.forwarding",
    ];
    /// Set by the agent, then by somebody else.
    const TAKEN_OVER: &str = "net.ipv4.conf.wan.rp_filter";
    let lab = Topology::two_armed(1).unwrap();
    let values = || CHANGED.map(|key| lab.balancer.read_sysctl(key).unwrap());
    lab.balancer.sysctl(TAKEN_OVER, "1").unwrap();
    let before = values();
    assert_eq!(before, ["0"; 4]);
    let mut agent = Agent::start(&lab).unwrap();
    agent.must(["service", "add", "six", "--vip", "[fd00:a::100]:80"]).unwrap();
    assert_eq!(values(), ["1"; 4]);
    assert_eq!(lab.balancer.read_sysctl(TAKEN_OVER).unwrap(), "2");
    lab.balancer.sysctl(TAKEN_OVER, "0").unwrap();
    // Whoever finds it as it should be has not changed it, and still knows who has.
    agent.terminate().unwrap();
    agent.run().unwrap();
    agent.terminate().unwrap();
    agent.detach().unwrap();
    assert_eq!(values(), before);
    assert_eq!(lab.balancer.read_sysctl(TAKEN_OVER).unwrap(), "0");
}

#[test]
fn changes_take_hold_where_the_kernel_refuses_membarrier() {
    needs_root!();
    let settings = Settings { refused: Some(libc::SYS_membarrier), ..Settings::default() };
    let setup = Setup::serving_with(Shape::TwoArmed, 3, settings).unwrap();
    let traffic = Traffic::start(&setup);
    for strategy in ["consistent-hash", "maglev", "consistent-hash"] {
        setup.agent.must(["service", "set", &web(Family::V4), "--strategy", strategy]).unwrap();
        setup.agent.must(["backend", "drain", &web(Family::V4), &setup.http(0, Family::V4)]).unwrap();
        setup.agent.must(["backend", "enable", &web(Family::V4), &setup.http(0, Family::V4)]).unwrap();
    }
    assert_eq!(traffic.next_begun(400).spread.len(), 3);
    wait::until_true(SOON, "the agent says how it waits", || {
        setup.agent.log_tail().contains("grace periods by a map of maps")
    })
    .unwrap();
    traffic.assert_undisturbed();
}

/// Whether an XDP program is attached.
fn has_xdp(namespace: &Namespace, interface: &str) -> bool {
    namespace.xdp_program(interface).unwrap().is_some()
}
