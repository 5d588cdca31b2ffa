//! Two balancers on one segment: who is in charge, or that both are, is for other daemons to say.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::address;
use crate::netns::Namespace;
use crate::topology::{Host, cable};
use crate::xdp_pass;

/// Two nodes, a client and backends, all plugged into one switch; dropping it removes every namespace with all that is in it.
/// Nobody has the VIP or is the backends' gateway until something gives them the addresses.
#[derive(Debug)]
pub struct Pair {
    /// Where load comes from.
    pub client: Namespace,
    /// Where the agents run; their interface is `eth0`.
    pub nodes: [Namespace; 2],
    /// Where the servers run.
    pub backends: Vec<Host>,
    switch: Namespace,
    /// Programs on the ports that the nodes are plugged into, see [`xdp_pass`].
    links: Vec<OwnedFd>,
}

/// How long `ip` may take to tell.
const IP_TIMEOUT: Duration = Duration::from_secs(20);

/// The node's address on the clients' network.
#[must_use]
pub const fn front(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 2 + node as u8)
}

/// The node's address on the backends' network.
#[must_use]
pub const fn back(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, 2 + node as u8)
}

impl Pair {
    /// Builds it, for IPv4.
    ///
    /// # Errors
    /// As [`crate::topology::Topology::build`].
    pub fn build(backends: u8) -> Result<Self> {
        let mut pair = Self {
            client: Namespace::create("client")?,
            nodes: [Namespace::create("node1")?, Namespace::create("node2")?],
            backends: Vec::new(),
            switch: Namespace::create("switch")?,
            links: Vec::new(),
        };
        pair.switch.ip("link add bridge0 type bridge stp_state 0 mcast_snooping 0\nlink set bridge0 up")?;
        pair.plug(&pair.client, "client")?;
        pair.client.ip(&format!("addr add {}/24 dev eth0", address::CLIENT_V4))?;
        for (index, node) in pair.nodes.iter().enumerate() {
            pair.plug(node, &port(index))?;
            let addresses =
                [front(index), back(index)].map(|address| format!("addr add {address}/24 dev eth0\n"));
            node.ip(&addresses.concat())?;
            pair.links.push(xdp_pass::attach(&pair.switch, &port(index))?);
        }
        for index in 0..backends {
            let (name, v4) = (format!("b{}", index + 1), address::backend_v4(index));
            let namespace = Namespace::create(&name)?;
            pair.plug(&namespace, &name)?;
            namespace.ip(&format!("addr add {v4}/24 dev eth0"))?;
            pair.backends.push(Host { namespace, name, v4, v6: address::backend_v6(index) });
        }
        Ok(pair)
    }

    /// Has every backend send what is for others to `gateway`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn route_backends(&self, gateway: Ipv4Addr) -> Result<()> {
        self.backends
            .iter()
            .try_for_each(|host| host.namespace.ip(&format!("route replace default via {gateway} dev eth0")))
    }

    /// A node dies: nothing comes from it any more, and nothing reaches it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn pull_plug(&self, node: usize) -> Result<()> {
        self.switch.ip(&format!("link set {} down", port(node)))
    }

    /// Whether a node has this address.
    ///
    /// # Errors
    /// When `ip` cannot tell.
    pub fn has(&self, node: usize, address: Ipv4Addr) -> Result<bool> {
        let shown = self.nodes[node].must(&["ip", "-4", "-oneline", "address", "show"], IP_TIMEOUT)?;
        Ok(shown.contains(&format!(" {address}/")))
    }

    fn plug(&self, host: &Namespace, port: &str) -> Result<()> {
        cable((host, "eth0"), (&self.switch, port))?;
        // A network card takes frames to its own address only, a veth end takes whatever comes: so what the switch does not
        // know the port of must not come.
        self.switch
            .ip(&format!("link set {port} master bridge0\nlink set {port} type bridge_slave flood off"))
    }
}

fn port(node: usize) -> String {
    format!("node{}", node + 1)
}

/// A configuration that the documentation has, with this lab's names in the place of its own.
///
/// # Errors
/// When there is no such file, or it lacks something that is to be replaced.
pub fn documented(file: &str, replacements: &[(&str, &str)]) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/high-availability").join(file);
    let mut text =
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    for (from, to) in replacements {
        anyhow::ensure!(text.contains(from), "{} does not say `{from}`", path.display());
        text = text.replace(from, to);
    }
    Ok(text)
}
