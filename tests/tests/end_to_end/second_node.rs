//! A second node takes over: the daemons of docs/high-availability with the configurations that stand there.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lb_tests::address::{self, VIP_V4};
use lb_tests::agent::{Agent, Settings};
use lb_tests::held::Held;
use lb_tests::http_client::HttpClient;
use lb_tests::netns::Namespace;
use lb_tests::pair::{self, Pair, documented};
use lb_tests::process::Process;
use lb_tests::server::{Protocol, Server};
use lb_tests::topology::Host;
use lb_tests::{needs_program, needs_root, wait};
use serde_json::Value;

const NODES: [usize; 2] = [0, 1];
const BACKENDS: u8 = 3;
/// Connections that are held through each service.
const CONNECTIONS: usize = 60;
/// Time for daemons to find each other, and for whom they elect to have its addresses.
const ELECTION: Duration = Duration::from_secs(20);

/// A service of the lab: name, port, strategy and tracking.
type Offered = (&'static str, u16, &'static str, &'static str);

const SERVICES: [Offered; 3] = [
    ("exceptions", 80, "maglev", "exceptions"),
    ("hash", 81, "maglev", "full"),
    ("turns", 82, "round-robin", "full"),
];

/// Both nodes with one state, and servers; the daemons that decide who is in charge are the test's.
struct Lab {
    daemons: Vec<Process>,
    agents: Vec<Agent>,
    _servers: Vec<Server>,
    pair: Pair,
}

impl Lab {
    fn start() -> Result<Self> {
        let pair = Pair::build(BACKENDS)?;
        let servers = pair
            .backends
            .iter()
            .flat_map(|host| SERVICES.map(|(_, port, ..)| Server::start(host, Protocol::Http, server(port))))
            .collect::<Result<_>>()?;
        let mut agents = Vec::new();
        for node in &pair.nodes {
            let settings = Settings { manage_vips: false, ..Settings::default() };
            let agent = Agent::start_in(node, &["eth0"], settings)?;
            let file = agent.directory().join("both.toml");
            std::fs::write(&file, state(&pair))?;
            agent.must(["apply", "-f", &file.display().to_string()])?;
            agents.push(agent);
        }
        Ok(Self { daemons: Vec::new(), agents, _servers: servers, pair })
    }

    fn in_charge(&self) -> Result<Option<usize>> {
        let has = [self.pair.has(0, VIP_V4)?, self.pair.has(1, VIP_V4)?];
        Ok(match has {
            [true, false] => Some(0),
            [false, true] => Some(1),
            _ => None,
        })
    }

    fn hold(&self, (_, port, ..): Offered) -> Result<Held> {
        Held::open(&self.pair.client, vip(port), CONNECTIONS)
    }

    /// The socket of an agent, for a daemon's configuration.
    fn socket(&self, node: usize) -> String {
        self.agents[node].socket().display().to_string()
    }
}

fn vip(port: u16) -> SocketAddr {
    SocketAddr::new(VIP_V4.into(), port)
}

/// The port of a service's servers: tracking by exception wants backends that serve nothing else.
fn server(service_port: u16) -> u16 {
    8000 + service_port
}

/// The state that both nodes are given.
fn state(pair: &Pair) -> String {
    let services = SERVICES.map(|(name, port, strategy, track)| {
        let backend =
            |host: &Host| format!("[[service.backend]]\naddress = \"{}:{}\"\n", host.v4, server(port));
        let backends: String = pair.backends.iter().map(backend).collect();
        format!(
            "[[service]]\nname = \"{name}\"\nvip = \"{}\"\nstrategy = \"{strategy}\"\ntrack = \"{track}\"\n\
             [[service.health]]\ntype = \"none\"\n{backends}",
            vip(port)
        )
    });
    services.concat()
}

/// Which backend a node would give each of some clients.
fn choices(agent: &Agent, service_port: u16) -> Result<Vec<Value>> {
    (0..30)
        .map(|client| {
            let (client, vip) = (format!("10.0.0.77:{}", 2000 + 7 * client), vip(service_port).to_string());
            let mut answer = agent.json(["explain", "--protocol", "tcp", &client, &vip])?;
            ensure!(answer["reason"] == "slot", "{answer}");
            Ok(answer["backend"].take())
        })
        .collect()
}

/// A request that a client makes anew.
fn succeeds(lab: &Lab, port: u16) -> bool {
    let once = || HttpClient::connect(vip(port), Duration::from_secs(3))?.get_and_close();
    lab.pair.client.run(once).is_ok()
}

/// A node dies under load; returns how long clients were without answers, and what each service lost of its connections.
fn kill_under_load(lab: &Lab, services: &[Offered], dies: usize) -> Result<(Duration, Vec<usize>)> {
    let held = services.iter().map(|&service| lab.hold(service)).collect::<Result<Vec<_>>>()?;
    lab.pair.pull_plug(dies)?;
    let died = Instant::now();
    wait::until_true(ELECTION, "new connections are answered again", || succeeds(lab, services[0].1))?;
    let gap = died.elapsed();
    let lost = held.iter().map(|held| Ok(held.lost()?.len())).collect::<Result<Vec<_>>>()?;
    for ((name, _, strategy, track), lost) in services.iter().zip(&lost) {
        println!(
            "{name} ({strategy}, track {track}): {lost} of {CONNECTIONS} connections lost, without answers for {gap:?}"
        );
    }
    for &(_, port, ..) in services {
        for _ in 0..20 {
            ensure!(succeeds(lab, port), "a request after the takeover failed");
        }
    }
    Ok((gap, lost))
}

fn keepalived(lab: &Lab, node: usize, priority: u8) -> Result<Process> {
    let directory = lab.agents[node].directory();
    let path = directory.join("keepalived.conf");
    let config = documented(
        "keepalived.conf",
        &[
            ("/run/lb-agent/lb-agent.sock", &lab.socket(node)),
            ("priority 150", &format!("priority {priority}")),
        ],
    )?;
    std::fs::write(&path, config)?;
    let mut command = lab.pair.nodes[node].command("keepalived");
    command.args(["--dont-fork", "--log-console", "--vrrp", "--use-file"]).arg(&path);
    for (option, file) in [("--pid", "keepalived.pid"), ("--vrrp_pid", "vrrp.pid")] {
        command.arg(option).arg(directory.join(file));
    }
    Process::spawn(command, &directory.join("keepalived.log"))
}

#[test]
fn nodes_with_one_state_choose_alike() {
    needs_root!();
    let lab = Lab::start().unwrap();
    for port in [80, 81] {
        let [one, other] = NODES.map(|node| choices(&lab.agents[node], port).unwrap());
        assert_eq!(one, other);
        assert!(one.iter().any(|backend| *backend != one[0]), "all clients go to {}", one[0]);
    }
}

#[test]
fn keepalived_moves_the_address_from_a_node_that_died_or_is_not_ready() {
    needs_root!();
    needs_program!("keepalived");
    let mut lab = Lab::start().unwrap();
    lab.pair.route_backends(address::BACK_V4).unwrap();
    for (node, priority) in [(0, 150), (1, 100)] {
        let daemon = keepalived(&lab, node, priority).unwrap();
        lab.daemons.push(daemon);
        wait::until_true(ELECTION, "the first node is in charge", || lab.in_charge().unwrap() == Some(0))
            .unwrap();
    }

    // An agent that does not answer: its data plane goes on until the other node has taken over, so nothing is lost.
    let held = lab.hold(SERVICES[0]).unwrap();
    lab.agents[0].kill().unwrap();
    wait::until_true(ELECTION, "the second node is in charge", || lab.in_charge().unwrap() == Some(1))
        .unwrap();
    assert!(held.lost().unwrap().is_empty(), "{:?}", held.lost().unwrap());
    drop(held);

    // The other dies. The first one's agent is back by then.
    lab.agents[0].run().unwrap();
    wait::until_true(ELECTION, "the first node stands by", || {
        let log = std::fs::read_to_string(lab.agents[0].directory().join("keepalived.log")).unwrap();
        log.rfind("Entering BACKUP STATE") > log.rfind("Entering FAULT STATE")
    })
    .unwrap();
    let (gap, lost) = kill_under_load(&lab, &SERVICES, 1).unwrap();
    assert!(lab.pair.has(0, VIP_V4).unwrap());
    assert_eq!(lost[0], 0, "connections by exception on slots that did not change were lost");
    // Three signs of life that are missed, and what a loaded machine adds.
    assert!(gap < Duration::from_secs(5), "{gap:?}");
}

/// BIRD in a namespace, with its socket in the directory.
fn bird(namespace: &Namespace, directory: &Path, config: &str) -> Result<Process> {
    let path = |file: &str| directory.join(format!("{}-{file}", namespace.name()));
    std::fs::write(path("bird.conf"), config)?;
    let mut command = namespace.command("bird");
    command
        .arg("-f")
        .arg("-c")
        .arg(path("bird.conf"))
        .arg("-s")
        .arg(path("bird.ctl"))
        .arg("-P")
        .arg(path("bird.pid"));
    let process = Process::spawn(command, &path("bird.log"))?;
    wait::until_true(ELECTION, "BIRD listens", || path("bird.ctl").exists())?;
    Ok(process)
}

/// A router of the documentation in a host, on the network that its address is of.
fn router(lab: &Lab, host: &Namespace, address: Ipv4Addr, nodes: [Ipv4Addr; 2]) -> Result<Process> {
    host.sysctl("net.ipv4.fib_multipath_hash_policy", "1")?;
    let [one, other] = nodes.map(|node| format!("neighbor {node} as"));
    let replacements = [
        ("router id 10.0.0.10", format!("router id {address}")),
        ("neighbor 10.0.0.2 as", one),
        ("neighbor 10.0.0.3 as", other),
    ];
    let replacements: Vec<_> = replacements.iter().map(|(from, to)| (*from, to.as_str())).collect();
    bird(host, lab.agents[0].directory(), &documented("bird-router.conf", &replacements)?)
}

fn announcing_node(lab: &Lab, node: usize) -> Result<[Process; 2]> {
    let (namespace, directory) = (&lab.pair.nodes[node], lab.agents[node].directory());
    let router_id = format!("router id {}", pair::front(node));
    let config = documented("bird-node.conf", &[("router id 10.0.0.2", &router_id)])?;
    let daemon = bird(namespace, directory, &config)?;
    let mut announce = namespace.command("sh");
    announce
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/high-availability/announce.sh"))
        .env("LB_SOCKET", lab.socket(node))
        .env("BIRD_SOCKET", directory.join(format!("{}-bird.ctl", namespace.name())));
    Ok([daemon, Process::spawn(announce, &directory.join("announce.log"))?])
}

/// Next hops of the route to an address, as the host has it.
fn next_hops(host: &Namespace, destination: &str) -> usize {
    let shown = host.must(&["ip", "-4", "route", "show", destination], ELECTION).unwrap_or_default();
    shown.matches(" via ").count()
}

#[test]
fn bird_shares_the_address_between_nodes_and_withdraws_it_from_one_that_died_or_is_not_ready() {
    needs_root!();
    needs_program!("bird");
    let mut lab = Lab::start().unwrap();
    for node in NODES {
        let daemons = announcing_node(&lab, node).unwrap();
        lab.daemons.extend(daemons);
    }
    let front = router(&lab, &lab.pair.client, address::CLIENT_V4, NODES.map(pair::front)).unwrap();
    lab.daemons.push(front);
    for index in 0..lab.pair.backends.len() {
        let host = &lab.pair.backends[index];
        let back = router(&lab, &host.namespace, host.v4, NODES.map(pair::back)).unwrap();
        lab.daemons.push(back);
    }
    let everywhere = |lab: &Lab, count| {
        let backends = lab.pair.backends.iter().all(|host| next_hops(&host.namespace, "default") == count);
        backends && next_hops(&lab.pair.client, &VIP_V4.to_string()) == count
    };
    wait::until_true(ELECTION, "every router has both nodes", || everywhere(&lab, 2)).unwrap();
    let opened = |node: usize| lab.agents[node].counter("request_forwarded").unwrap();
    let held = lab.hold(SERVICES[0]).unwrap();
    assert!(NODES.into_iter().all(|node| opened(node) > 0), "one node has all the traffic");

    // An agent that does not answer is withdrawn, and nothing is lost: replies and requests may come by any node.
    lab.agents[0].kill().unwrap();
    wait::until_true(ELECTION, "every router has one node", || everywhere(&lab, 1)).unwrap();
    assert!(held.lost().unwrap().is_empty(), "{:?}", held.lost().unwrap());
    lab.agents[0].run().unwrap();
    wait::until_true(ELECTION, "every router has both nodes again", || everywhere(&lab, 2)).unwrap();
    assert!(held.lost().unwrap().is_empty(), "{:?}", held.lost().unwrap());
    drop(held);

    let (gap, lost) = kill_under_load(&lab, &SERVICES[..1], 1).unwrap();
    assert_eq!(lost, [0], "connections by exception on slots that did not change were lost");
    assert!(gap < Duration::from_secs(5), "{gap:?}");
}
