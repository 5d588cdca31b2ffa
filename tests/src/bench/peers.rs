//! Whole requests through the balancer and through others, in turn, on one topology: client, balancer and two servers,
//! each in a network namespace, wrk on one end and nginx on the other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::machine;
use super::statistics::Figure;
use crate::address::Family;
use crate::agent::{Agent, Settings};
use crate::process;
use crate::tools::RealServer;
use crate::topology::Topology;

const BACKENDS: u8 = 2;
const SERVER_PORT: u16 = 8081;
const PORT: u16 = 80;
const ROUNDS: usize = 5;
/// How long wrk runs each time.
const SECONDS: u32 = 4;
const CONNECTIONS: &str = "32";
const TIMEOUT: Duration = Duration::from_secs(60);
/// Interface of the client.
const CLIENT: &str = "eth0";
/// Clock ticks of `/proc/stat` a second (`USER_HZ`).
const TICKS: f64 = 100.0;

/// What stands between client and servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Peer {
    /// Nothing: the kernel routes to one of the servers. What the others cost comes on top of this.
    Routed,
    Ours,
    Nftables,
    Haproxy,
    Nginx,
}

impl Peer {
    const ALL: [Self; 5] = [Self::Routed, Self::Ours, Self::Nftables, Self::Haproxy, Self::Nginx];

    const fn name(self) -> &'static str {
        match self {
            Self::Routed => "no balancer",
            Self::Ours => "this balancer",
            Self::Nftables => "nftables DNAT",
            Self::Haproxy => "HAProxy, TCP",
            Self::Nginx => "nginx, stream",
        }
    }
}

/// A peer in operation; dropping it takes it down.
enum Standing {
    Nothing,
    Ours { _agent: Agent },
    Proxy { _process: RealServer },
}

/// What one run of wrk came to.
#[derive(Clone, Copy, Debug)]
struct Sample {
    requests_per_second: f64,
    packets_per_second: f64,
    /// Microseconds of CPU time, of the whole machine.
    cpu_per_request: f64,
}

type Samples = BTreeMap<(bool, Peer), Vec<Sample>>;

/// Measures and prints the table.
pub(super) fn run(quick: bool) -> Result<()> {
    let rounds = if quick { 1 } else { ROUNDS };
    println!("{}; {rounds} rounds of {SECONDS} s each\n", machine::describe()?);
    let lab = Topology::two_armed(BACKENDS)?;
    lab.forward_without_agent()?;
    // A proxy has a connection of its own for each of the client's.
    lab.balancer.sysctl("net.ipv4.ip_local_port_range", "10000 65535")?;
    lab.balancer.sysctl("net.ipv4.tcp_tw_reuse", "1")?;
    let servers: Result<Vec<_>> =
        lab.backends.iter().map(|host| RealServer::nginx(host, SERVER_PORT)).collect();
    let _servers = servers?;
    let mut samples = Samples::new();
    for round in 0..rounds {
        let mut peers = Peer::ALL;
        peers.rotate_left(round % Peer::ALL.len());
        for peer in peers {
            let standing = stand_up(&lab, peer).with_context(|| format!("cannot set up: {}", peer.name()))?;
            for new_connections in [false, true] {
                let sample = measure(&lab, peer, new_connections)
                    .with_context(|| format!("through: {}", peer.name()))?;
                samples.entry((new_connections, peer)).or_default().push(sample);
            }
            drop(standing);
            take_down(&lab, peer)?;
        }
    }
    println!("{}", table(&samples));
    Ok(())
}

fn vip() -> SocketAddr {
    SocketAddr::new(Family::V4.vip(), PORT)
}

fn backends(lab: &Topology) -> Vec<SocketAddr> {
    lab.backends.iter().map(|host| SocketAddr::new(host.v4.into(), SERVER_PORT)).collect()
}

fn stand_up(lab: &Topology, peer: Peer) -> Result<Standing> {
    let backends = backends(lab);
    if !matches!(peer, Peer::Routed | Peer::Ours) {
        lab.balancer.ip(&format!("addr add {}/32 dev wan", vip().ip()))?;
    }
    match peer {
        Peer::Routed => {}
        Peer::Ours => {
            let agent = Agent::start_with(lab, Settings { flows: 1_000_000, ..Settings::default() })?;
            agent.must(["service", "add", "bench", "--vip", &vip().to_string(), "--health", "none"])?;
            for backend in &backends {
                agent.must(["backend", "add", "bench", &backend.to_string()])?;
            }
            return Ok(Standing::Ours { _agent: agent });
        }
        Peer::Nftables => nft(lab, &dnat(&backends))?,
        Peer::Haproxy => {
            return Ok(Standing::Proxy { _process: RealServer::haproxy(&lab.balancer, vip(), &backends)? });
        }
        Peer::Nginx => {
            let process = RealServer::nginx_stream(&lab.balancer, vip(), &backends)?;
            return Ok(Standing::Proxy { _process: process });
        }
    }
    Ok(Standing::Nothing)
}

fn take_down(lab: &Topology, peer: Peer) -> Result<()> {
    if peer == Peer::Nftables {
        nft(lab, "delete table ip bench\n")?;
    }
    if !matches!(peer, Peer::Routed | Peer::Ours) {
        lab.balancer.ip(&format!("addr del {}/32 dev wan", vip().ip()))?;
    }
    Ok(())
}

/// A backend for each connection by a hash of client address and port, as ours has it.
fn dnat(backends: &[SocketAddr]) -> String {
    let map: Vec<_> =
        backends.iter().enumerate().map(|(number, to)| format!("{number} : {}", to.ip())).collect();
    format!(
        "table ip bench {{\n chain in {{\n  type nat hook prerouting priority -100;\n  ip daddr {} tcp dport {PORT} \
         dnat to jhash ip saddr . tcp sport mod {} map {{ {} }}:{SERVER_PORT}\n }}\n}}\n",
        vip().ip(),
        backends.len(),
        map.join(", ")
    )
}

fn nft(lab: &Topology, script: &str) -> Result<()> {
    let mut command = lab.balancer.command("nft");
    command.args(["-f", "-"]);
    let output = process::run_with_input(command, script.as_bytes(), TIMEOUT)?;
    ensure!(output.status.success(), "nft: {}\n{script}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

fn measure(lab: &Topology, peer: Peer, new_connections: bool) -> Result<Sample> {
    let target = if peer == Peer::Routed { backends(lab)[0] } else { vip() };
    let duration = format!("{SECONDS}s");
    let header = if new_connections { "Connection: close" } else { "Connection: keep-alive" };
    let url = format!("http://{target}/");
    let wrk = ["wrk", "-t", "1", "-c", CONNECTIONS, "-d", &duration, "-H", header, &url];
    let (packets, busy) = (packets(lab)?, busy()?);
    let report = lab.client.must(&wrk, TIMEOUT)?;
    let (packets, busy) = (self::packets(lab)? - packets, self::busy()? - busy);
    ensure!(!report.contains("Non-2xx"), "{report}");
    let requests = requests(&report).with_context(|| report.clone())?;
    Ok(Sample {
        requests_per_second: requests / f64::from(SECONDS),
        packets_per_second: packets / f64::from(SECONDS),
        cpu_per_request: busy * 1e6 / requests,
    })
}

/// `... 123456 requests in 4.00s, ...`
fn requests(report: &str) -> Option<f64> {
    report.split(" requests in ").next()?.split_whitespace().last()?.parse().ok()
}

/// Packets that the client has received and sent.
fn packets(lab: &Topology) -> Result<f64> {
    let table = lab.client.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?;
    packets_of(&table, CLIENT).context("no counters of the client's interface")
}

/// A row of `/proc/net/dev`: name, then bytes, packets and six others received, then the same sent.
fn packets_of(table: &str, interface: &str) -> Option<f64> {
    let row = table.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'))?;
    let numbers: Vec<f64> =
        row.split_whitespace().map(|number| number.parse().ok()).collect::<Option<_>>()?;
    Some(numbers.get(1)? + numbers.get(9)?)
}

/// Seconds that the CPUs of the machine have been at work.
fn busy() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    busy_of(&text).context("/proc/stat has another form")
}

/// The first row of `/proc/stat`: user, nice, system, idle, waiting for I/O, interrupts, soft interrupts.
fn busy_of(text: &str) -> Option<f64> {
    let row = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<f64> = row.split_whitespace().map(|number| number.parse().ok()).collect::<Option<_>>()?;
    Some([0, 1, 2, 5, 6].iter().map(|&column| ticks.get(column)).sum::<Option<f64>>()? / TICKS)
}

fn table(samples: &Samples) -> String {
    let mut text = String::from(
        "| connections | through | requests/s | packets/s | CPU us a request | requests, of ours | CPU, of ours |\n\
         |---|---|---:|---:|---:|---:|---:|\n",
    );
    for (&(new_connections, peer), of_peer) in samples {
        let ours = &samples[&(new_connections, Peer::Ours)];
        let median = |samples: &[Sample], of: fn(&Sample) -> f64| Figure::of(samples.iter().map(of)).median;
        let requests = |samples: &[Sample]| median(samples, |sample| sample.requests_per_second);
        let cpu = |samples: &[Sample]| median(samples, |sample| sample.cpu_per_request);
        text += &format!(
            "| {} | {} | {:.0} | {:.0} | {:.1} | {:.2} | {:.2} |\n",
            if new_connections { "one a request" } else { "kept" },
            peer.name(),
            requests(of_peer),
            median(of_peer, |sample| sample.packets_per_second),
            cpu(of_peer),
            requests(of_peer) / requests(ours),
            cpu(of_peer) / cpu(ours),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_from_their_columns() {
        let table = "Inter-| Receive\n face |bytes\n    lo: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n  eth0: 900 10 0 0 0 0 0 0 800 7 0 0 0 0 0 0\n";
        assert_eq!(packets_of(table, "eth0"), Some(17.0));
        assert_eq!(packets_of(table, "eth1"), None);
        assert_eq!(busy_of("cpu  100 0 50 1000 5 10 40 3 0 0\ncpu0 1\n"), Some(2.0));
        assert_eq!(busy_of("intr 1\n"), None);
        assert_eq!(requests("  8123 requests in 4.00s, 1.2MB read\n"), Some(8123.0));
    }

    #[test]
    fn the_rule_names_every_backend() {
        let rule = dnat(&["10.0.1.11:8081".parse().unwrap(), "10.0.1.12:8081".parse().unwrap()]);
        assert!(rule.contains("mod 2 map { 0 : 10.0.1.11, 1 : 10.0.1.12 }:8081"), "{rule}");
    }
}
