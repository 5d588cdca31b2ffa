//! What the agent tells: true against what the ends count, and seen by whoever looks.

use std::collections::BTreeMap;
use std::time::Duration;

use lb_tests::address::Family;
use lb_tests::agent::{Settings, default_binary};
use lb_tests::held::Held;
use lb_tests::load::{Load, Plan, Transport};
use lb_tests::setup::{Setup, web, web_vip};
use lb_tests::terminal::Terminal;
use lb_tests::topology::Shape;
use lb_tests::{api, needs_program, needs_root, process, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::traffic::SOON;

const FAMILY: Family = Family::V4;
/// Within which whoever looks has to see what is the matter.
const SEEN: Duration = Duration::from_secs(10);

/// A lab whose service `web4` is checked as services are by default.
fn lab(backends: u8) -> Setup {
    let setup = Setup::bare(Shape::TwoArmed, backends, Settings::default()).unwrap();
    setup.agent.must(["service", "add", &web(FAMILY), "--vip", &web_vip(FAMILY).to_string()]).unwrap();
    for backend in 0..usize::from(backends) {
        setup.agent.must(["backend", "add", &web(FAMILY), &setup.http(backend, FAMILY)]).unwrap();
    }
    setup
}

/// `lb-agent top` as a line of shell.
fn top(setup: &Setup) -> String {
    format!("'{}' --socket '{}' top", default_binary().display(), setup.agent.socket().display())
}

/// Whether a screen has a line that begins with one of the words and names the backend.
fn says(screen: &str, words: &[&str], backend: &str) -> bool {
    let is_it =
        |line: &str| words.iter().any(|word| line.trim_start().starts_with(word)) && line.contains(backend);
    screen.lines().any(is_it)
}

#[test]
fn a_slow_a_refusing_and_a_draining_backend_are_told_apart_within_ten_seconds() {
    needs_root!();
    needs_program!("tmux");
    let mut setup = lab(4);
    let _held = Held::open(&setup.lab.client, web_vip(FAMILY), 8).unwrap();
    let plan = Plan { transport: Transport::Tcp, target: web_vip(FAMILY), workers: 40, per_second: 80 };
    let _load = Load::start(&setup.lab.client, plan).unwrap();
    let terminal = Terminal::run(&top(&setup)).unwrap();
    terminal
        .await_screen(SOON, "top shows the service with all backends", |screen| screen.contains("4/4 ok"))
        .unwrap();
    let [slow, refusing, draining] = [0, 1, 2].map(|backend| setup.http(backend, FAMILY));
    setup.servers[0][0].slow_down(500);
    setup.servers[1][0].kill();
    setup.agent.must(["backend", "drain", &web(FAMILY), &draining]).unwrap();
    let is_told = |screen: &str| {
        says(screen, &["slow"], &slow)
            && says(screen, &["failing", "down"], &refusing)
            && says(screen, &["draining"], &draining)
    };
    terminal.await_screen(SEEN, "top tells the three apart", is_told).unwrap();
    let status = setup.agent.must(["status"]).unwrap();
    assert!(is_told(&status), "{status}");
    assert!(status.contains("refused") && status.contains("connections left"), "{status}");

    // The same among the backends of the service, and back again.
    terminal.press(&["Enter"]).unwrap();
    let in_the_list = |screen: &str| {
        let has = |backend: &str, words: &[&str]| {
            screen
                .lines()
                .any(|line| line.starts_with(backend) && words.iter().any(|word| line.contains(word)))
        };
        has(&slow, &["slow"]) && has(&refusing, &["failing", "down"]) && has(&draining, &["draining"])
    };
    terminal.await_screen(SOON, "the backends are listed with their states", in_the_list).unwrap();
    terminal.press(&["/", "d", "r", "a", "i", "n", "Enter"]).unwrap();
    let filtered =
        |screen: &str| in_the_list(screen) || screen.contains(&draining) && !screen.contains(&slow);
    let filtered = |screen: &str| filtered(screen) && screen.contains("with `drain`");
    terminal.await_screen(SOON, "only the draining one is left", filtered).unwrap();
    setup.agent.must(["backend", "enable", &web(FAMILY), &draining]).unwrap();
    terminal.press(&["Escape", "e"]).unwrap();
    let told = |screen: &str| screen.contains("state-changed") && screen.contains("health-changed");
    terminal.await_screen(SOON, "the events are shown", told).unwrap();
}

/// The terminal is what it was, whoever ended `top`.
#[test]
fn top_gives_the_terminal_back_and_outlives_the_agent() {
    needs_root!();
    needs_program!("tmux");
    let mut setup = lab(1);
    for signal in [None, Some(Signal::TERM), Some(Signal::HUP)] {
        let file = |name: &str| setup.agent.directory().join(name).display().to_string();
        let (before, after) = (file("before"), file("after"));
        let line = format!(
            "stty -g > {before}; {}; status=$?; stty -g > {after}; echo ended with $status; exec sleep 600",
            top(&setup)
        );
        let terminal = Terminal::run(&line).unwrap();
        terminal.await_screen(SOON, "top is there", |screen| screen.contains("1/1 ok")).unwrap();
        assert!(terminal.is_taken().unwrap());
        match signal {
            None => terminal.press(&["q"]).unwrap(),
            Some(signal) => kill_process(child_of(terminal.pid().unwrap()), signal).unwrap(),
        }
        let screen =
            terminal.await_screen(SOON, "the shell goes on", |screen| screen.contains("ended with")).unwrap();
        assert!(screen.contains("ended with 0") && !terminal.is_taken().unwrap(), "{signal:?}: {screen}");
        let read = |path: &str| std::fs::read_to_string(path).unwrap();
        assert_eq!(read(&before), read(&after), "{signal:?}");
    }
    let terminal = Terminal::run(&top(&setup)).unwrap();
    terminal.await_screen(SOON, "top is there", |screen| screen.contains("1/1 ok")).unwrap();
    setup.agent.terminate().unwrap();
    terminal.await_screen(SOON, "top says so", |screen| screen.contains("the agent is not running")).unwrap();
    setup.agent.run().unwrap();
    let is_back = |screen: &str| screen.contains("1/1 ok") && !screen.contains("not running");
    terminal.await_screen(SOON, "top goes on", is_back).unwrap();

    let mut without = setup.agent.command();
    without.arg("--socket").arg(setup.agent.socket()).arg("top");
    let refused = process::run(without, SOON).unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(said.trim(), "lb-agent: top needs a terminal: `lb-agent status` prints one screen");
}

fn child_of(parent: u32) -> Pid {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    Pid::from_raw(children.split_whitespace().next().unwrap().parse().unwrap()).unwrap()
}

/// The samples of a family that are of the service `web4`, by backend.
fn by_backend(metrics: &str, family: &str) -> BTreeMap<String, f64> {
    let service = format!("{family}{{service=\"{}\",backend=\"", web(FAMILY));
    let sample = |line: &str| {
        let (backend, value) = line.strip_prefix(&service)?.split_once("\"} ")?;
        Some((backend.to_owned(), value.parse().unwrap()))
    };
    metrics.lines().filter_map(sample).collect()
}

/// What the client's kernel has counted of IPv4: packets and bytes received, packets and bytes sent.
fn client_traffic(setup: &Setup) -> [f64; 4] {
    let tables = setup.lab.client.run(|| {
        let read = |file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
        read("snmp") + &read("netstat")
    });
    // Two lines for each protocol: names, then numbers in the same order.
    let rows = |protocol: &str| {
        let lines = tables.lines().filter(|line| line.starts_with(protocol));
        lines.map(|line| line.split_whitespace().collect()).collect::<Vec<Vec<_>>>()
    };
    let counter = |protocol: &str, name: &str| {
        let rows = rows(protocol);
        let column = rows[0].iter().position(|&column| column == name).unwrap();
        rows[1][column].parse::<f64>().unwrap()
    };
    [("Ip:", "InReceives"), ("IpExt:", "InOctets"), ("Ip:", "OutRequests"), ("IpExt:", "OutOctets")]
        .map(|(protocol, name)| counter(protocol, name))
}

fn assert_near(what: &str, told: f64, counted: f64) {
    assert!((told - counted).abs() <= 0.01 * counted, "{what}: told {told}, counted {counted}");
}

#[test]
fn connections_packets_and_bytes_are_those_that_the_ends_count() {
    needs_root!();
    needs_program!("wrk");
    let setup = Setup::bare(Shape::TwoArmed, 3, Settings::default()).unwrap();
    // Without checks, which the servers would count too.
    setup.add_service(&web(FAMILY), web_vip(FAMILY), "tcp", "none").unwrap();
    for (backend, weight) in [(0, "1"), (1, "2"), (2, "3")] {
        let words = ["backend", "add", &web(FAMILY), &setup.http(backend, FAMILY), "--weight", weight];
        setup.agent.must(words).unwrap();
    }
    let before = client_traffic(&setup);
    let url = format!("http://{}/", web_vip(FAMILY));
    let wrk =
        ["wrk", "--threads", "1", "--connections", "8", "--duration", "10s", "-H", "Connection: close", &url];
    let report = setup.lab.client.must(&wrk, 6 * SOON).unwrap();
    assert!(!report.contains("Socket errors"), "{report}");
    // "N requests in 10.0s"
    let (head, _) = report.split_once(" requests in ").unwrap();
    let requests: f64 = head.split_whitespace().last().unwrap().parse().unwrap();
    let metrics = || api::get(&setup.agent.socket(), "/metrics").unwrap();
    let sum = |metrics: &str, family: &str| by_backend(metrics, family).values().sum::<f64>();
    wait::until_true(SOON, "all connections have ended", || {
        sum(&metrics(), "lb_backend_active_connections") == 0.0
    })
    .unwrap();
    let (after, told) = (client_traffic(&setup), metrics());
    let connections = by_backend(&told, "lb_backend_connections_total");
    for (backend, server) in setup.servers.iter().enumerate() {
        let told = connections[&setup.http(backend, FAMILY)];
        assert_near("connections of a backend", told, server[0].requests() as f64);
    }
    assert_near("connections", connections.values().sum(), requests);
    let counted: Vec<_> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    // What the client receives is what goes to clients.
    let families = ["tx_packets", "tx_bytes", "rx_packets", "rx_bytes"];
    for (family, counted) in families.into_iter().zip(counted) {
        assert_near(family, sum(&told, &format!("lb_backend_{family}_total")), counted);
    }

    // One handshake of eight is timed, with whatever strategy; fewer here, where ports come round before their last connections
    // are forgotten, and those that take up such an entry are not.
    let timed = sum(&told, "lb_backend_connect_duration_seconds_count");
    assert!((0.2..1.2).contains(&(8.0 * timed / requests)), "{timed} of {requests} were timed");

    // The same in the other views.
    let list = setup.agent.json(["backend", "list", &web(FAMILY)]).unwrap();
    for row in list.as_array().unwrap() {
        assert_eq!(
            row["connections_total"].as_f64(),
            connections.get(row["address"].as_str().unwrap()).copied()
        );
    }
    let total = setup.service(&web(FAMILY)).unwrap()["connections_total"].as_f64().unwrap();
    assert_eq!(total, connections.values().sum::<f64>());

    let held = Held::open(&setup.lab.client, web_vip(FAMILY), 30).unwrap();
    let told = by_backend(&metrics(), "lb_backend_active_connections");
    let spread = held.spread();
    for (backend, host) in setup.lab.backends.iter().enumerate() {
        let counted = spread.get(&host.name).copied().unwrap_or_default();
        assert_eq!(told[&setup.http(backend, FAMILY)], counted as f64, "{spread:?}");
    }
}

/// As many rates as there are backends make up the service's, while traffic flows.
#[test]
fn rates_are_what_is_asked_for_and_add_up() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 3).unwrap();
    let traffic = crate::traffic::Traffic::start(&setup);
    let rate = |row: &Value| row["connections_per_second"].as_f64().unwrap();
    wait::until_true(SOON, "the services' rates are near 200 a second", || {
        let status = setup.agent.json(["status"]).unwrap();
        let services = status["service_rates"].as_array().unwrap();
        services.iter().all(|row| (160.0..240.0).contains(&rate(row)))
    })
    .unwrap();
    let sums = || {
        let list = setup.agent.json(["backend", "list", &web(FAMILY)]).unwrap();
        list.as_array().unwrap().iter().map(rate).sum::<f64>()
    };
    // A second may end between two looks: the same second has to be met once.
    wait::until_true(SOON, "the backends' rates add up to the service's", || {
        let before = sums();
        let status = setup.agent.json(["status"]).unwrap();
        let services = status["service_rates"].as_array().unwrap();
        let service = rate(services.iter().find(|row| row["name"] == web(FAMILY)).unwrap());
        before > 0.0 && (before - service).abs() < 1e-6 && (sums() - service).abs() < 1e-6
    })
    .unwrap();
    drop(traffic);
}

#[test]
fn prometheus_finds_nothing_wrong_with_the_metrics() {
    needs_root!();
    needs_program!("promtool");
    let setup = Setup::serving(Shape::TwoArmed, 2).unwrap();
    setup.agent.must(["service", "set", &web(FAMILY), "--strategy", "least-latency"]).unwrap();
    let answer = setup.lab.client.run(|| {
        lb_tests::http_client::HttpClient::connect(web_vip(FAMILY), SOON)
            .and_then(|client| client.get_and_close())
    });
    answer.unwrap();
    let metrics = api::get(&setup.agent.socket(), "/metrics").unwrap();
    for family in
        ["lb_backend_connect_duration_seconds_bucket", "lb_change_duration_seconds_count", "process_cpu"]
    {
        assert!(metrics.contains(family), "no {family} in {metrics}");
    }
    let mut promtool = std::process::Command::new("promtool");
    promtool.args(["check", "metrics"]);
    let checked = process::run_with_input(promtool, metrics.as_bytes(), SOON).unwrap();
    let said =
        String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && said.trim().is_empty(), "{said}");
}
