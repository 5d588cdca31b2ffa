//! The network around the agent: interfaces that come and go, links that are lost, neighbours that move.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lb_tests::address::{self, Family};
use lb_tests::agent::Settings;
use lb_tests::setup::{Setup, echo_vip};
use lb_tests::topology::Shape;
use lb_tests::udp_client::UdpClient;
use lb_tests::{needs_program, needs_root, process, wait, xdp_pass};
use serde_json::Value;

use crate::traffic::SOON;

/// Changes are acted on within a second, of an idle machine: measured here are also the commands that ask, beside other
/// tests. Less than the five seconds after which the agent looks by itself.
const AT_ONCE: Duration = Duration::from_secs(4);

/// A lab whose agent is to balance on `late0` too, which is not there.
fn waiting() -> Setup {
    let mut setup = Setup::bare(Shape::TwoArmed, 1, Settings::default()).unwrap();
    setup.agent.terminate().unwrap();
    let config = std::fs::read_to_string(setup.agent.config()).unwrap();
    let config = config.replace("interfaces = [", "interfaces = [\"late0\", ");
    std::fs::write(setup.agent.config(), config).unwrap();
    setup.agent.run().unwrap();
    setup
}

/// Mode and problem of an interface, as `status` has them.
fn interface(setup: &Setup, name: &str) -> (String, Option<String>) {
    let status: Value = serde_json::from_str(&setup.agent.must(["-o", "json", "status"]).unwrap()).unwrap();
    let mut rows = status["interfaces"].as_array().unwrap().iter();
    let row = rows.find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name}: {status}"));
    (row["mode"].as_str().unwrap().to_owned(), row["problem"].as_str().map(str::to_owned))
}

fn await_problem(setup: &Setup, name: &str, problem: Option<&str>) {
    wait::until_true(AT_ONCE, &format!("{name} has the problem {problem:?}"), || {
        let (_, found) = interface(setup, name);
        match (problem, found) {
            (None, None) => true,
            (Some(part), Some(found)) => found.contains(part),
            _ => false,
        }
    })
    .unwrap();
}

fn runs_a_program(setup: &Setup, name: &str) -> bool {
    let link = setup.lab.balancer.must(&["ip", "-j", "link", "show", name], SOON).unwrap();
    link.contains("\"xdp\"")
}

#[test]
fn an_interface_that_appears_later_is_attached_and_so_is_its_successor() {
    needs_root!();
    let setup = waiting();
    assert_eq!(interface(&setup, "late0").0, "none");
    await_problem(&setup, "late0", Some("there is none of that name"));
    for _ in 0..2 {
        setup
            .lab
            .balancer
            .ip("link add late0 type veth peer name late1\nlink set late1 up\nlink set late0 up")
            .unwrap();
        await_problem(&setup, "late0", None);
        assert_eq!(interface(&setup, "late0").0, "native");
        assert!(runs_a_program(&setup, "late0"));
        setup.lab.balancer.ip("link del late0").unwrap();
        await_problem(&setup, "late0", Some("there is none of that name"));
    }
    let events = setup.agent.must(["events"]).unwrap();
    assert!(events.contains("interface-changed late0 (native): in use"), "{events}");
    // The others never noticed.
    assert_eq!(interface(&setup, "wan"), ("native".to_owned(), None));
}

#[test]
fn a_foreign_xdp_program_is_refused_by_name_and_with_the_way_out() {
    needs_root!();
    let mut setup = waiting();
    setup.lab.balancer.ip("link add other type veth peer name other1").unwrap();
    let foreign = xdp_pass::attach(&setup.lab.balancer, "other").unwrap();
    setup.lab.balancer.ip("link set other name late0").unwrap();
    let refusal = "interface late0: it runs another XDP program: take that one off first: ip link set dev late0 xdp off";
    await_problem(&setup, "late0", Some(refusal));

    // An agent that starts refuses to, and what is attached elsewhere stays.
    setup.agent.terminate().unwrap();
    let mut command = setup.agent.command();
    command.arg("run").arg("--config").arg(setup.agent.config());
    let output = process::run(command, Duration::from_secs(60)).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.lines().last().unwrap().contains(refusal), "{said}");
    assert!(runs_a_program(&setup, "wan"));

    drop(foreign);
    setup.agent.run().unwrap();
    assert_eq!(interface(&setup, "late0").0, "native");
}

#[test]
fn a_lost_link_is_known_within_a_second_and_so_is_its_return() {
    needs_root!();
    let setup = Setup::bare(Shape::TwoArmed, 1, Settings::default()).unwrap();
    for family in Family::BOTH {
        setup
            .add_service(&format!("s{}", family.number()), SocketAddr::new(family.vip(), 80), "tcp", "none")
            .unwrap();
    }
    let addresses = || setup.lab.balancer.must(&["ip", "addr", "show", "dev", "wan"], SOON).unwrap();
    let has_vips = || Family::BOTH.iter().all(|family| addresses().contains(&format!("{}/", family.vip())));
    assert!(has_vips(), "{}", addresses());
    setup.lab.client.ip("link set eth0 down").unwrap();
    await_problem(&setup, "wan", Some("it has no link"));
    setup.lab.client.ip("link set eth0 up").unwrap();
    await_problem(&setup, "wan", None);

    // The kernel takes IPv6 addresses off an interface that is set down.
    setup.lab.balancer.ip("link set wan down").unwrap();
    await_problem(&setup, "wan", Some("it is down: ip link set dev wan up"));
    setup.lab.balancer.ip("link set wan up").unwrap();
    await_problem(&setup, "wan", None);
    wait::until_true(AT_ONCE, "both VIPs are back", has_vips).unwrap();
}

#[test]
fn a_backend_with_another_mac_is_followed_within_a_second() {
    needs_root!();
    needs_program!("ping");
    let setup = Setup::serving(Shape::TwoArmed, 1).unwrap();
    let backend = &setup.lab.backends[0].namespace;
    let answers = |family| {
        let ask = || UdpClient::connect(echo_vip(family), Duration::from_millis(100))?.ask(100);
        setup.lab.client.run(ask).is_ok()
    };
    let everywhere = || Family::BOTH.into_iter().all(answers);
    wait::until_true(SOON, "the services answer", everywhere).unwrap();
    backend.ip("link set eth0 address 02:00:00:00:77:01").unwrap();
    // Its own traffic tells the balancer's kernel where it is now.
    for gateway in [address::BACK_V4.to_string(), address::BACK_V6.to_string()] {
        backend.must(&["ping", "-c", "1", "-W", "2", &gateway], SOON).unwrap();
    }
    let known = Instant::now();
    wait::until_true(SOON, "the services answer again", everywhere).unwrap();
    assert!(known.elapsed() < AT_ONCE, "{:?}", known.elapsed());
}

/// State of the client's entry in the balancer's neighbour table.
fn state_of_client(setup: &Setup, family: Family) -> String {
    let client = match family {
        Family::V4 => address::CLIENT_V4.to_string(),
        Family::V6 => address::CLIENT_V6.to_string(),
    };
    let entry =
        setup.lab.balancer.must(&["ip", "-j", "neigh", "show", "to", &client, "dev", "wan"], SOON).unwrap();
    let entry: Value = serde_json::from_str(&entry).unwrap();
    entry[0]["state"][0].as_str().unwrap_or_default().to_owned()
}

#[test]
fn neighbours_that_only_the_data_plane_sends_to_are_confirmed_all_the_same() {
    needs_root!();
    let mut setup = Setup::serving(Shape::TwoArmed, 1).unwrap();
    for family in Family::BOTH {
        // A second or so instead of half a minute and more; before the client is met.
        let setting = format!("net.ipv{}.neigh.wan.base_reachable_time_ms=1000", family.number());
        setup.lab.balancer.must(&["sysctl", "-w", &setting], SOON).unwrap();
    }
    let await_state = |setup: &Setup, families: &[Family], states: &[&str]| {
        for &family in families {
            let ask = || UdpClient::connect(echo_vip(family), Duration::from_secs(1))?.ask(100);
            wait::until_true(
                Duration::from_secs(20),
                &format!("{family:?}: it is one of {states:?}"),
                || {
                    setup.lab.client.run(ask).unwrap();
                    states.contains(&state_of_client(setup, family).as_str())
                },
            )
            .unwrap();
        }
    };
    // Without an agent the data plane sends on, and nobody asks; but in IPv6, where the client's kernel confirms the VIP,
    // the balancer's has to answer, and asks on the way.
    setup.agent.terminate().unwrap();
    await_state(&setup, &[Family::V4], &["STALE"]);
    setup.agent.run().unwrap();
    await_state(&setup, &Family::BOTH, &["DELAY", "PROBE", "REACHABLE"]);
}
