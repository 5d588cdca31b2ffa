//! The demo's lab: four backends, four services, an agent, and traffic to all services.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::address::Family;
use crate::agent::{Agent, Settings};
use crate::held::{Held, Lost};
use crate::load::{Load, Plan, Transport};
use crate::server::{Protocol, Server};
use crate::tally::{Failure, Tally};
use crate::topology::Topology;

/// A backend's two servers.
const HTTP: usize = 0;
const UDP: usize = 1;
/// The port of the backends' web servers, and of the health checks.
const HTTP_PORT: u16 = 8080;
/// The port of the backends' UDP servers.
const UDP_PORT: u16 = 9000;
/// Requests that one load may have under way.
const WORKERS: u32 = 8;
/// Long-lived connections to each web service.
const HELD_PER_SERVICE: usize = 16;
/// How long the agent may take to see a health change or to end a drain.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(20);

/// One of the demo's services.
#[derive(Debug, Clone, Copy)]
pub(super) struct Service {
    pub(super) name: &'static str,
    transport: Transport,
    pub(super) family: Family,
}

/// TCP and UDP, IPv4 and IPv6.
pub(super) const SERVICES: [Service; 4] = [
    Service { name: "web-ipv4", transport: Transport::Tcp, family: Family::V4 },
    Service { name: "web-ipv6", transport: Transport::Tcp, family: Family::V6 },
    Service { name: "echo-ipv4", transport: Transport::Udp, family: Family::V4 },
    Service { name: "echo-ipv6", transport: Transport::Udp, family: Family::V6 },
];

impl Service {
    /// Where clients reach it.
    pub(super) fn vip(self) -> SocketAddr {
        let port = if self.transport == Transport::Tcp { 80 } else { 7 };
        SocketAddr::new(self.family.vip(), port)
    }

    fn protocol(self) -> &'static str {
        if self.transport == Transport::Tcp { "tcp" } else { "udp" }
    }

    fn backend_port(self) -> u16 {
        if self.transport == Transport::Tcp { HTTP_PORT } else { UDP_PORT }
    }

    /// Which of a backend's two servers it leads to.
    fn server(self) -> usize {
        if self.transport == Transport::Tcp { HTTP } else { UDP }
    }

    fn requests_per_second(self) -> u32 {
        if self.transport == Transport::Tcp { 400 } else { 200 }
    }
}

/// A time during which a backend was dead and the agent may not have known it yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outage {
    pub(super) backend: usize,
    pub(super) from: Instant,
    /// When the agent had taken it out of every service.
    pub(super) noticed: Option<Instant>,
}

/// The fields are dropped in this order: first what uses the others.
#[derive(Debug)]
pub(super) struct Lab {
    loads: Vec<Load>,
    held: Vec<Held>,
    pub(super) agent: Agent,
    agent_binary: PathBuf,
    /// Per backend its servers, at [`HTTP`] and [`UDP`].
    servers: Vec<[Server; 2]>,
    topology: Topology,
    outages: Vec<Outage>,
    /// Connections that the clients closed themselves.
    pub(super) hung_up: usize,
}

impl Lab {
    /// Builds everything, with three of the four backends in service, and starts the traffic.
    pub(super) fn build(agent_binary: PathBuf) -> Result<Self> {
        let topology = Topology::two_armed(4)?;
        let mut servers = Vec::new();
        for host in &topology.backends {
            let http = Server::start(host, Protocol::Http, HTTP_PORT)?;
            servers.push([http, Server::start(host, Protocol::UdpEcho, UDP_PORT)?]);
        }
        let settings = Settings { binary: agent_binary.clone(), ..Settings::default() };
        let agent = Agent::start_with(&topology, settings)?;
        let (loads, held, outages) = (Vec::new(), Vec::new(), Vec::new());
        let mut lab = Self { loads, held, agent, agent_binary, servers, topology, outages, hung_up: 0 };
        lab.add_services()?;
        for index in 0..3 {
            lab.add_backend(index)?;
        }
        lab.start_traffic()?;
        Ok(lab)
    }

    fn add_services(&self) -> Result<()> {
        // All services ask the web server whether the machine is alive: UDP has no answer that could be relied on.
        let health = format!("tcp,port={HTTP_PORT},interval=200ms,timeout=200ms,rise=2,fall=3");
        for service in SERVICES {
            let (vip, protocol) = (service.vip().to_string(), service.protocol());
            self.agent.must([
                "service",
                "add",
                service.name,
                "--vip",
                &vip,
                "--protocol",
                protocol,
                "--health",
                &health,
            ])?;
        }
        Ok(())
    }

    fn start_traffic(&mut self) -> Result<()> {
        for service in SERVICES {
            if service.transport == Transport::Tcp {
                self.held.push(Held::open(&self.topology.client, service.vip(), HELD_PER_SERVICE)?);
            }
            let (transport, per_second) = (service.transport, service.requests_per_second());
            let plan = Plan { transport, target: service.vip(), workers: WORKERS, per_second };
            self.loads.push(Load::start(&self.topology.client, plan)?);
        }
        Ok(())
    }

    /// The backend's name.
    pub(super) fn name(&self, backend: usize) -> &str {
        &self.topology.backends[backend].name
    }

    fn endpoint(&self, backend: usize, service: Service) -> String {
        self.topology.backends[backend].endpoint(service.family, service.backend_port())
    }

    /// Runs `lb-agent backend VERB SERVICE ADDRESS` for each service.
    fn each_service(&self, verb: &str, backend: usize, options: &[&str]) -> Result<()> {
        for service in SERVICES {
            let endpoint = self.endpoint(backend, service);
            let words = ["backend", verb, service.name, &endpoint];
            self.agent.must(words.iter().chain(options))?;
        }
        Ok(())
    }

    /// Puts the backend behind every service.
    pub(super) fn add_backend(&self, backend: usize) -> Result<()> {
        self.each_service("add", backend, &[])
    }

    /// Lets no new flow go to the backend.
    pub(super) fn drain_backend(&self, backend: usize) -> Result<()> {
        self.each_service("drain", backend, &[])
    }

    /// Closes the long-lived connections to the backend, as clients do that are done, and takes it away.
    pub(super) fn remove_backend(&mut self, backend: usize) -> Result<()> {
        let name = self.name(backend).to_owned();
        for held in &self.held {
            self.hung_up += held.spread().get(&name).copied().unwrap_or(0);
            held.hang_up(&name);
        }
        // UDP flows have no end that can be seen: the timeout ends them.
        self.each_service("remove", backend, &["--drain-timeout", "1s"])?;
        for service in SERVICES {
            self.agent.await_removed(service.name, &self.endpoint(backend, service), NOTICE_TIMEOUT)?;
        }
        Ok(())
    }

    /// Changes how every service chooses.
    pub(super) fn set_strategy(&self, strategy: &str) -> Result<()> {
        SERVICES.iter().try_for_each(|service| {
            self.agent.must(["service", "set", service.name, "--strategy", strategy]).map(drop)
        })
    }

    /// Kills the backend's servers, and waits until the agent has noticed. Returns how long that took.
    pub(super) fn kill_backend(&mut self, backend: usize) -> Result<Duration> {
        let outage = self.outages.len();
        let from = Instant::now();
        self.outages.push(Outage { backend, from, noticed: None });
        self.servers[backend].iter_mut().for_each(Server::kill);
        self.await_health(backend, "unhealthy")?;
        let noticed = Instant::now();
        self.outages[outage].noticed = Some(noticed);
        Ok(noticed - from)
    }

    /// Starts the backend's servers again, and waits until the agent has noticed. Returns how long that took.
    pub(super) fn revive_backend(&mut self, backend: usize) -> Result<Duration> {
        let from = Instant::now();
        self.servers[backend].iter_mut().try_for_each(Server::revive)?;
        self.await_health(backend, "healthy")?;
        Ok(from.elapsed())
    }

    fn await_health(&self, backend: usize, health: &str) -> Result<()> {
        SERVICES.iter().try_for_each(|&service| {
            let endpoint = self.endpoint(backend, service);
            self.agent.await_backend(service.name, &endpoint, "health", health, NOTICE_TIMEOUT)
        })
    }

    /// All counts up to now.
    pub(super) fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        self.loads.iter().for_each(|load| sum += load.tally());
        sum
    }

    /// Every failure up to now.
    pub(super) fn failures(&self) -> Vec<Failure> {
        self.loads.iter().flat_map(|load| load.failures_from(0)).collect()
    }

    /// The longest that an answered request took.
    pub(super) fn slowest(&self) -> Duration {
        self.loads.iter().map(Load::slowest).max().unwrap_or_default()
    }

    /// Waits until every request that is under way has ended.
    pub(super) fn settle(&self) -> Result<()> {
        self.loads.iter().try_for_each(Load::settle)
    }

    /// Long-lived connections that stand.
    pub(super) fn standing(&self) -> usize {
        self.held.iter().flat_map(|held| held.spread().into_values()).sum()
    }

    /// Long-lived connections that were lost up to now.
    pub(super) fn lost(&self) -> Result<Vec<Lost>> {
        let lost = self.held.iter().map(Held::lost).collect::<Result<Vec<_>>>()?;
        Ok(lost.into_iter().flatten().collect())
    }

    /// Outages up to now.
    pub(super) fn outages(&self) -> &[Outage] {
        &self.outages
    }

    /// Whether a living server had got the request that failed.
    pub(super) fn reached_a_living_backend(&self, failure: &Failure, dead: usize) -> bool {
        let Some(client) = failure.client else { return false };
        let service = SERVICES.iter().find(|service| service.vip() == failure.target);
        let living = self.servers.iter().enumerate().filter(|&(index, _)| index != dead);
        service.is_some_and(|service| {
            living
                .map(|(_, servers)| &servers[service.server()])
                .any(|server| server.has_seen(client, failure.started..=failure.ended))
        })
    }

    /// What the opening lines say about the lab.
    pub(super) fn describe(&self) -> Result<Vec<String>> {
        let status = self.agent.json(["status"])?;
        let interfaces = status["interfaces"].as_array().context("`status` names no interfaces")?;
        let modes = interfaces.iter().map(|row| {
            let text = |key| row[key].as_str().unwrap_or("?");
            format!("{} ({} XDP)", text("name"), text("mode"))
        });
        let vips =
            SERVICES.map(|service| format!("{} {}/{}", service.name, service.vip(), service.protocol()));
        Ok(vec![
            format!("balancer   {}", modes.collect::<Vec<_>>().join(", ")),
            format!("services   {}", vips[..2].join("   ")),
            format!("           {}", vips[2..].join("   ")),
            format!(
                "traffic    1,200 requests a second, each a new flow, none retried; {} long-lived connections",
                self.standing()
            ),
        ])
    }

    /// For someone who wants to try things in the lab.
    pub(super) fn how_to_enter(&self) -> Vec<String> {
        let client = self.topology.client.name();
        let socket = self.agent.socket();
        let agent = self.agent_binary.as_path();
        let backends =
            self.topology.backends.iter().map(|host| format!("{} {}", host.name, host.namespace.name()));
        vec![
            format!("client     ip netns exec {client} curl http://{}/", SERVICES[0].vip()),
            format!("           ip netns exec {client} curl 'http://{}/'", SERVICES[1].vip()),
            format!("agent      {} --socket {} status", agent.display(), Path::display(&socket)),
            format!("balancer   nsenter --net=/run/netns/{} bash", self.topology.balancer.name()),
            format!("backends   {}", backends.collect::<Vec<_>>().join(", ")),
        ]
    }
}
