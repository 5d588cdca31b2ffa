//! `lb-agent check`: silent on a sound lab, and each planted fault by its name.

use std::net::SocketAddr;
use std::time::Duration;

use lb_tests::address::{self, Family};
use lb_tests::agent::Reply;
use lb_tests::setup::{Setup, echo_vip};
use lb_tests::topology::Shape;
use lb_tests::udp_client::UdpClient;
use lb_tests::{needs_root, process, xdp_pass};
use serde_json::Value;

use crate::traffic::SOON;

/// The verifier goes over every program.
const PATIENCE: Duration = Duration::from_secs(120);

fn check(setup: &Setup, arguments: &[&str]) -> Reply {
    let mut command = setup.agent.command();
    command.args(["-o", "json", "check", "--config"]).arg(setup.agent.config()).args(arguments);
    process::run(command, PATIENCE).unwrap().into()
}

/// Check and object of each fault.
fn faults(setup: &Setup, arguments: &[&str]) -> Vec<(String, String)> {
    let reply = check(setup, arguments);
    let findings: Vec<Value> =
        serde_json::from_str(&reply.stdout).unwrap_or_else(|error| panic!("{error}: {reply:?}"));
    let faults = findings.iter().filter(|finding| finding["verdict"] == "fault");
    for fault in faults.clone() {
        assert!(!fault["fix"].as_str().unwrap().is_empty(), "{fault}");
    }
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let found: Vec<_> = faults.map(|finding| (text(finding, "check"), text(finding, "object"))).collect();
    assert_eq!(reply.status, i32::from(!found.is_empty()), "{reply:?}");
    found
}

#[track_caller]
fn assert_only(setup: &Setup, arguments: &[&str], check: &str, object: &str) {
    assert_eq!(faults(setup, arguments), [(check.to_owned(), object.to_owned())], "{check} {object}");
}

fn add_backend(setup: &Setup, endpoint: &str) {
    let service = if endpoint.starts_with('[') { "web6" } else { "web4" };
    setup.agent.must(["backend", "add", service, endpoint]).unwrap();
}

fn remove_backend(setup: &Setup, endpoint: &str) {
    let service = if endpoint.starts_with('[') { "web6" } else { "web4" };
    setup.agent.must(["backend", "remove", service, endpoint, "--force"]).unwrap();
}

#[test]
fn a_sound_lab_has_no_fault_with_and_without_an_agent() {
    needs_root!();
    let mut setup = Setup::serving(Shape::TwoArmed, 2).unwrap();
    assert_eq!(faults(&setup, &[]), []);
    let before = setup.agent.must(["export"]).unwrap();
    setup.agent.terminate().unwrap();
    assert_eq!(faults(&setup, &[]), []);
    setup.agent.run().unwrap();
    assert_eq!(setup.agent.must(["export"]).unwrap(), before);
}

#[test]
fn faults_of_interfaces_are_found_by_their_names() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 1).unwrap();
    assert!(faults(&setup, &["--interface", "nosuch"]).contains(&("interface".into(), "nosuch".into())));
    assert!(faults(&setup, &["--interface", "lo"]).contains(&("interface".into(), "lo".into())));
    // Replies would come in where the program is not.
    let backends = [setup.http(0, Family::V4), setup.udp(0, Family::V4)];
    let astray = faults(&setup, &["--interface", "wan"]);
    assert!(backends.iter().all(|backend| astray.contains(&("route".into(), backend.clone()))), "{astray:?}");

    setup
        .lab
        .balancer
        .ip("link add other type veth peer name other1\nlink set other1 up\nlink set other up")
        .unwrap();
    let foreign = xdp_pass::attach(&setup.lab.balancer, "other").unwrap();
    assert_only(
        &setup,
        &["--interface", "wan", "--interface", "lan", "--interface", "other"],
        "program",
        "other",
    );
    drop(foreign);

    let set = |value: &str| {
        let setting = format!("net.ipv4.conf.wan.forwarding={value}");
        setup.lab.balancer.must(&["sysctl", "-w", &setting], SOON).unwrap();
    };
    set("0");
    assert_only(&setup, &[], "settings", "wan");
    set("1");
    setup.lab.client.ip("link set eth0 down").unwrap();
    assert_only(&setup, &[], "link", "wan");
}

#[test]
fn faults_on_the_way_to_a_backend_are_found_by_the_step_at_which_it_ends() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 1).unwrap();
    let no_neighbour = [address::backend_v4(190).to_string(), address::backend_v6(190).to_string()];
    let cases = [
        ("192.0.2.1:80".to_owned(), "route"),
        ("[2001:db8::1]:80".to_owned(), "route"),
        (format!("{}:80", address::BACK_V4), "route"),
        (format!("{}:80", no_neighbour[0]), "neighbour"),
        (format!("[{}]:80", no_neighbour[1]), "neighbour"),
        (setup.lab.backends[0].endpoint(Family::V4, 1), "backend"),
        (setup.lab.backends[0].endpoint(Family::V6, 1), "backend"),
    ];
    for (endpoint, check) in cases {
        add_backend(&setup, &endpoint);
        assert_only(&setup, &[], check, &endpoint);
        remove_backend(&setup, &endpoint);
    }
    // It gets the SYN, and what it answers goes nowhere.
    let backend = &setup.lab.backends[0].namespace;
    backend.ip(&format!("route add blackhole {}/32", address::BACK_V4)).unwrap();
    assert_only(&setup, &[], "backend", &setup.http(0, Family::V4));
    backend.ip(&format!("route del blackhole {}/32", address::BACK_V4)).unwrap();
}

#[test]
fn replies_that_take_another_way_are_found() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 1).unwrap();
    setup.lab.backends[0].namespace.ip(&format!("route add blackhole {}/32", address::CLIENT_V4)).unwrap();
    setup.lab.client.run(|| {
        let udp = UdpClient::connect(echo_vip(Family::V4), SOON).unwrap();
        (0..20).for_each(|_| udp.send(b"anybody there?").unwrap());
    });
    lb_tests::wait::until_true(SOON, "the return path is a fault", || {
        faults(&setup, &[]) == [("return-path".to_owned(), setup.udp(0, Family::V4))]
    })
    .unwrap();
}

#[test]
fn faults_of_this_host_are_found_without_an_agent() {
    needs_root!();
    let mut setup = Setup::serving(Shape::TwoArmed, 1).unwrap();
    setup.agent.terminate().unwrap();
    for family in Family::BOTH {
        let vip = family.vip().to_string();
        setup.lab.balancer.ip(&format!("addr del {vip} dev wan")).unwrap();
        assert!(faults(&setup, &[]).contains(&("vip".into(), vip.clone())), "{vip}");
    }
    setup.agent.run().unwrap();
    setup.agent.terminate().unwrap();
    assert_eq!(faults(&setup, &[]), []);

    let sound = std::fs::read_to_string(setup.agent.config()).unwrap();
    let taken: SocketAddr = "127.0.0.1:9600".parse().unwrap();
    let squatter = setup.lab.balancer.run(|| std::net::TcpListener::bind(taken)).unwrap();
    std::fs::write(setup.agent.config(), format!("{sound}\n[http]\nlisten = \"{taken}\"\n")).unwrap();
    assert_only(&setup, &[], "http", &taken.to_string());
    drop(squatter);
    std::fs::write(setup.agent.config(), format!("colour = \"red\"\n{sound}")).unwrap();
    assert!(faults(&setup, &[]).contains(&("configuration".into(), String::new())));
    std::fs::write(setup.agent.config(), &sound).unwrap();

    let state = setup.agent.directory().join("state/state.toml");
    let text = std::fs::read_to_string(&state).unwrap();
    std::fs::write(&state, text.replace("maglev", "magleb")).unwrap();
    assert_only(&setup, &[], "state", "");
    std::fs::write(&state, text).unwrap();
}
