//! The common starting point of the suites: a lab with servers on every backend and an agent that balances them.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use crate::address::Family;
use crate::agent::{Agent, Settings};
use crate::server::{Protocol, Server};
use crate::topology::{Shape, Topology};

/// The port of the backends' HTTP servers.
pub const HTTP_PORT: u16 = 8080;
/// The port of the backends' UDP servers.
pub const UDP_PORT: u16 = 9000;
/// The port of the `web` services on the VIP.
pub const WEB_PORT: u16 = 80;
/// The port of the `echo` services on the VIP.
pub const ECHO_PORT: u16 = 7;

/// Health checks fast enough for a test to wait for.
pub const QUICK_CHECKS: &str = "tcp,interval=200ms,timeout=200ms,rise=2,fall=2";

/// A lab in operation. The fields are dropped in this order: first what uses the others.
#[derive(Debug)]
pub struct Setup {
    /// The agent, with no service yet but those that were asked for.
    pub agent: Agent,
    /// Per backend an HTTP and a UDP server, on [`HTTP_PORT`] and [`UDP_PORT`].
    pub servers: Vec<[Server; 2]>,
    /// The namespaces.
    pub lab: Topology,
}

/// The name of the TCP service of a family: `web4` or `web6`.
#[must_use]
pub fn web(family: Family) -> String {
    format!("web{}", family.number())
}

/// The name of the UDP service of a family: `echo4` or `echo6`.
#[must_use]
pub fn echo(family: Family) -> String {
    format!("echo{}", family.number())
}

/// Where clients reach the `web` service of a family.
#[must_use]
pub fn web_vip(family: Family) -> SocketAddr {
    SocketAddr::new(family.vip(), WEB_PORT)
}

/// Where clients reach the `echo` service of a family.
#[must_use]
pub fn echo_vip(family: Family) -> SocketAddr {
    SocketAddr::new(family.vip(), ECHO_PORT)
}

impl Setup {
    /// A lab with servers and an agent, but no service.
    ///
    /// # Errors
    /// When anything of it cannot be started.
    pub fn bare(shape: Shape, backends: u8, settings: Settings) -> Result<Self> {
        let lab = Topology::build(shape, backends)?;
        let agent = Agent::start_with(&lab, settings)?;
        let mut setup = Self { agent, servers: Vec::new(), lab };
        for host in &setup.lab.backends {
            let http = Server::start(host, Protocol::Http, HTTP_PORT)?;
            setup.servers.push([http, Server::start(host, Protocol::UdpEcho, UDP_PORT)?]);
        }
        Ok(setup)
    }

    /// A lab with the services `web4`, `web6`, `echo4` and `echo6` over all its backends.
    ///
    /// # Errors
    /// As [`Setup::bare`], or when the agent refuses something.
    pub fn serving(shape: Shape, backends: u8) -> Result<Self> {
        Self::serving_with(shape, backends, Settings::default())
    }

    /// [`Setup::serving`] by an agent with other settings.
    ///
    /// # Errors
    /// As [`Setup::serving`].
    pub fn serving_with(shape: Shape, backends: u8, settings: Settings) -> Result<Self> {
        let setup = Self::bare(shape, backends, settings)?;
        for family in Family::BOTH {
            setup.add_service(&web(family), web_vip(family), "tcp", QUICK_CHECKS)?;
            setup.add_service(&echo(family), echo_vip(family), "udp", "none")?;
            for index in 0..setup.lab.backends.len() {
                setup.agent.must(["backend", "add", &web(family), &setup.http(index, family)])?;
                setup.agent.must(["backend", "add", &echo(family), &setup.udp(index, family)])?;
            }
        }
        Ok(setup)
    }

    /// Adds a service without backends.
    ///
    /// # Errors
    /// When the agent refuses.
    pub fn add_service(&self, name: &str, vip: SocketAddr, protocol: &str, health: &str) -> Result<()> {
        let vip = vip.to_string();
        let words = ["service", "add", name, "--vip", &vip, "--protocol", protocol, "--health", health];
        self.agent.must(words).map(drop)
    }

    /// `ADDRESS:PORT` of a backend's HTTP server.
    #[must_use]
    pub fn http(&self, backend: usize, family: Family) -> String {
        self.lab.backends[backend].endpoint(family, HTTP_PORT)
    }

    /// `ADDRESS:PORT` of a backend's UDP server.
    #[must_use]
    pub fn udp(&self, backend: usize, family: Family) -> String {
        self.lab.backends[backend].endpoint(family, UDP_PORT)
    }

    /// The endpoint of every backend, such as [`Setup::http`] names it.
    #[must_use]
    pub fn endpoints(&self, endpoint: fn(&Self, usize, Family) -> String, family: Family) -> Vec<String> {
        (0..self.lab.backends.len()).map(|backend| endpoint(self, backend, family)).collect()
    }

    /// A row of `service list`.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn service(&self, name: &str) -> Result<serde_json::Value> {
        let list = self.agent.json(["service", "list"])?;
        let rows = list.as_array().context("`service list` did not print an array")?;
        rows.iter()
            .find(|row| row["name"] == name)
            .cloned()
            .with_context(|| format!("no service {name} in {list}"))
    }
}
