//! Full NAT: backends in the clients' own network, without any route through the balancer.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use lb_tests::address::Family;
use lb_tests::agent::Settings;
use lb_tests::http_client::HttpClient;
use lb_tests::setup::{HTTP_PORT, QUICK_CHECKS, Setup, UDP_PORT, echo, echo_vip, web, web_vip};
use lb_tests::topology::Shape;
use lb_tests::udp_client::UdpClient;
use lb_tests::{needs_program, needs_root, wait};

use crate::traffic::{SOON, assert_no_checksum_errors};

/// A hundredth of the usual speed would still do.
const TIMEOUT: Duration = Duration::from_secs(120);
const HUNDRED_MEGABYTES: u64 = 100_000_000;

/// An address of the client's network.
fn beside_client(family: Family, last: u8) -> IpAddr {
    match family {
        Family::V4 => [10, 0, 0, last].into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0xa, 0, 0, 0, 0, 0, last.into()).into(),
    }
}

fn backend(family: Family, index: u8, port: u16) -> String {
    SocketAddr::new(beside_client(family, 0x21 + index), port).to_string()
}

/// What stands for clients.
fn source(family: Family) -> IpAddr {
    beside_client(family, 5)
}

/// The usual services over two backends that have the client for a neighbour and no other route.
fn serving(settings: Settings) -> Setup {
    let setup = Setup::bare(Shape::OneArmed, 2, settings).unwrap();
    for (index, host) in (0..).zip(&setup.lab.backends) {
        let [v4, v6] = Family::BOTH.map(|family| beside_client(family, 0x21 + index));
        let script = format!(
            "route del default via 10.0.1.1\nroute del default via fd00:b::1\n\
             addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad"
        );
        host.namespace.ip(&script).unwrap();
    }
    for family in Family::BOTH {
        add(&setup, &web(family), web_vip(family), "tcp", QUICK_CHECKS);
        add(&setup, &echo(family), echo_vip(family), "udp", "none");
        for index in 0..2 {
            setup.agent.must(["backend", "add", &web(family), &backend(family, index, HTTP_PORT)]).unwrap();
            setup.agent.must(["backend", "add", &echo(family), &backend(family, index, UDP_PORT)]).unwrap();
        }
    }
    setup
}

fn add(setup: &Setup, name: &str, vip: SocketAddr, protocol: &str, health: &str) {
    let family = if vip.is_ipv4() { Family::V4 } else { Family::V6 };
    let (vip, source) = (vip.to_string(), source(family).to_string());
    let words = ["service", "add", name, "--vip", &vip, "--protocol", protocol, "--health", health];
    let mode = ["--mode", "full-nat", "--source-pool", &source];
    setup.agent.must(words.into_iter().chain(mode)).unwrap();
}

fn count(setup: &Setup, reason: &str) -> u64 {
    let status = setup.agent.json(["status"]).unwrap();
    let reasons = status["reasons"].as_array().unwrap();
    reasons.iter().find(|row| row["reason"] == reason).and_then(|row| row["packets"].as_u64()).unwrap()
}

/// Ports of a source address that are in use, and that rest.
fn ports(setup: &Setup, family: Family) -> (u64, u64) {
    let status = setup.agent.json(["status"]).unwrap();
    let sources = status["source_addresses"].as_array().unwrap();
    let row = sources.iter().find(|row| row["address"] == source(family).to_string()).unwrap();
    (row["used"].as_u64().unwrap(), row["resting"].as_u64().unwrap())
}

#[test]
fn a_thousand_curls_a_hundred_megabytes_and_datagrams_arrive() {
    needs_root!();
    needs_program!("curl");
    let setup = serving(Settings::default());
    for family in Family::BOTH {
        let url = format!("http://{}/[1-1000]", web_vip(family));
        let curl = ["curl", "--silent", "--show-error", "--fail", "--http1.0", "--max-time", "5", &url];
        let answers = setup.lab.client.must(&curl, TIMEOUT).unwrap();
        assert_eq!(answers.lines().count(), 1000, "{family:?}");
        for name in ["b1", "b2"] {
            let share = answers.lines().filter(|answer| answer.starts_with(name)).count();
            assert!((400..=600).contains(&share), "{family:?}: {name} has {share}");
        }
        let download = || HttpClient::connect(web_vip(family), SOON)?.download(HUNDRED_MEGABYTES);
        setup.lab.client.run(download).unwrap();
        setup.lab.client.run(|| {
            let mut client = UdpClient::connect(echo_vip(family), SOON).unwrap();
            for length in [0, 1, 1000] {
                client.ask(length).unwrap();
            }
        });
        let flows = setup.agent.json(["flows", &echo(family)]).unwrap();
        let seen: SocketAddr = flows[0]["source"].as_str().unwrap().parse().unwrap();
        assert_eq!(seen.ip(), source(family));
        assert!((1024..32_768).contains(&seen.port()), "{seen}");
        assert!(ports(&setup, family).0 > 0);
    }
    assert_eq!(count(&setup, "drop_ports_exhausted"), 0);
    assert_eq!(count(&setup, "drop_internal"), 0);
    assert_no_checksum_errors(&setup);
}

#[test]
fn a_backend_can_be_a_client_of_its_own_service() {
    needs_root!();
    let setup = serving(Settings::default());
    for family in Family::BOTH {
        let host = &setup.lab.backends[0];
        let answers: Vec<String> = host.namespace.run(|| {
            (0..20).map(|_| HttpClient::connect(web_vip(family), SOON).unwrap().get().unwrap()).collect()
        });
        for name in ["b1", "b2"] {
            assert!(answers.iter().any(|answer| answer == name), "{family:?}: {answers:?}");
        }
    }
    assert_no_checksum_errors(&setup);
}

#[test]
fn what_has_no_port_is_refused_until_one_has_rested() {
    needs_root!();
    let setup = serving(Settings { source_ports: Some("20000-20003"), ..Settings::default() });
    let family = Family::V4;
    let brief = Duration::from_millis(1500);
    let connect = || setup.lab.client.run(|| HttpClient::connect(web_vip(family), brief)?.get());
    let mut held: Vec<_> = setup.lab.client.run(|| {
        (0..4)
            .map(|_| {
                let mut client = HttpClient::connect(web_vip(family), SOON).unwrap();
                client.get().unwrap();
                client
            })
            .collect()
    });
    assert_eq!(ports(&setup, family), (4, 0));
    connect().unwrap_err();
    assert!(count(&setup, "drop_ports_exhausted") > 0);
    // Those that have a port do not suffer.
    held.iter_mut().for_each(|client| drop(client.get().unwrap()));

    // Their service goes, and their flows with it; the address stays, another service has it.
    setup.agent.must(["service", "remove", &web(family)]).unwrap();
    wait::until_true(SOON, "the ports rest", || ports(&setup, family) == (0, 4)).unwrap();
    drop(held);
    add(&setup, &web(family), web_vip(family), "tcp", QUICK_CHECKS);
    setup.agent.must(["backend", "add", &web(family), &backend(family, 0, HTTP_PORT)]).unwrap();
    let before = count(&setup, "drop_ports_exhausted");
    connect().unwrap_err();
    assert!(count(&setup, "drop_ports_exhausted") > before);
    wait::until_true(TIMEOUT, "a port has rested", || connect().is_ok()).unwrap();
}

#[test]
fn a_service_changes_its_mode_and_back() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 2).unwrap();
    let family = Family::V4;
    let get = || setup.lab.client.run(|| HttpClient::connect(web_vip(family), SOON)?.get());
    get().unwrap();
    let web = web(family);
    setup.agent.must(["service", "set", &web, "--mode", "full-nat", "--source-pool", "10.0.1.5"]).unwrap();
    get().unwrap();
    let flows = setup.agent.json(["flows", &web]).unwrap();
    let sources: Vec<_> =
        flows.as_array().unwrap().iter().filter_map(|flow| flow["source"].as_str()).collect();
    assert!(!sources.is_empty() && sources.iter().all(|source| source.starts_with("10.0.1.5:")), "{flows}");
    let exported = setup.agent.must(["export"]).unwrap();
    assert!(exported.contains("mode = \"full-nat\"\nsource_pool = [\"10.0.1.5\"]\n"), "{exported}");
    let addresses = setup.lab.balancer.must(&["ip", "addr"], SOON).unwrap();
    assert!(addresses.contains("inet 10.0.1.5/32"), "{addresses}");
    setup.agent.must(["service", "set", &web, "--mode", "dnat"]).unwrap();
    get().unwrap();
    let addresses = setup.lab.balancer.must(&["ip", "addr"], SOON).unwrap();
    assert!(!addresses.contains("10.0.1.5"), "{addresses}");
}
