//! Virtual addresses, and the way to each backend and back.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use super::Finding;
use crate::config::Config;
use crate::datapath::netlink::{Interface, Neighbour, Netlink, Way};
use crate::model::Protocol;

/// How long a backend may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Backends that are asked at once.
const AT_ONCE: usize = 64;
/// Packets to a backend after which one at least should have come back.
const ENOUGH: u64 = 10;

/// A backend of a service, and what is known of its traffic.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// Where clients send to.
    pub vip: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where requests go.
    pub backend: SocketAddr,
    /// Packets to it and from it, as a running agent counts them.
    pub packets: Option<(u64, u64)>,
}

/// What the network around this host looks like.
struct Host {
    netlink: Netlink,
    interfaces: BTreeMap<u32, Interface>,
    addresses: BTreeSet<IpAddr>,
    /// Indices of those that the program is for.
    configured: BTreeSet<u32>,
}

/// Whether virtual addresses are there, and whether each backend can be reached and comes back by this host. `attached`
/// tells whether the data plane is up, so that addresses should be there.
pub fn services(config: &Config, vips: &BTreeSet<IpAddr>, served: &[Served], attached: bool) -> Vec<Finding> {
    let mut host = match Host::look(config) {
        Ok(host) => host,
        Err(error) => return vec![Finding::fault("network", "", format!("{error:#}"), "run this as root")],
    };
    let mut findings: Vec<_> =
        vips.iter().map(|&vip| address(config, &host.addresses, vip, attached)).collect();
    // The kernel asks for neighbours when it has something to send.
    let answers = connect(served);
    let neighbours = host.netlink.neighbours().unwrap_or_default();
    for (each, answer) in served.iter().zip(answers) {
        findings.push(host.way_to(each, &answer, &neighbours));
        findings.extend(way_back(each));
    }
    findings
}

fn address(config: &Config, present: &BTreeSet<IpAddr>, vip: IpAddr, attached: bool) -> Finding {
    let object = vip.to_string();
    match (present.contains(&vip), config.manage_vips) {
        (true, _) => Finding::ok("vip", &object, "this host has it"),
        (false, true) if attached => Finding::fault(
            "vip",
            &object,
            "this host does not have it, so that nobody finds the way here",
            "start the agent, which adds it; if it runs, `lb-agent events` says why it cannot",
        ),
        (false, true) => Finding::ok("vip", &object, "`lb-agent run` will add it"),
        (false, false) => Finding::warning(
            "vip",
            &object,
            "this host does not have it, and manage_vips = false leaves that to others",
            "nothing, if another node has it now; else look at what moves it (VRRP, BGP)",
        ),
    }
}

/// What a TCP connection to each comes to; nothing for UDP, where a datagram would be a request.
fn connect(served: &[Served]) -> Vec<Option<std::io::Result<()>>> {
    let ask = |each: &Served| match each.protocol {
        Protocol::Tcp => Some(TcpStream::connect_timeout(&each.backend, PATIENCE).map(drop)),
        Protocol::Udp => None,
    };
    let batch = |batch: &[Served]| {
        std::thread::scope(|scope| {
            let asked: Vec<_> = batch.iter().map(|each| scope.spawn(move || ask(each))).collect();
            asked.into_iter().map(|asked| asked.join().unwrap_or_default()).collect::<Vec<_>>()
        })
    };
    served.chunks(AT_ONCE).flat_map(batch).collect()
}

impl Host {
    fn look(config: &Config) -> anyhow::Result<Self> {
        let mut netlink = Netlink::open()?;
        let interfaces: BTreeMap<_, _> =
            netlink.interfaces()?.into_iter().map(|interface| (interface.index, interface)).collect();
        let addresses = netlink.addresses()?.into_iter().map(|address| address.address).collect();
        let is_configured =
            |interface: &&Interface| config.interfaces.iter().any(|name| name.as_str() == interface.name);
        let configured = interfaces.values().filter(is_configured).map(|interface| interface.index).collect();
        Ok(Self { netlink, interfaces, addresses, configured })
    }

    fn way_to(
        &mut self,
        each: &Served,
        answer: &Option<std::io::Result<()>>,
        neighbours: &[Neighbour],
    ) -> Finding {
        let object = each.backend.to_string();
        let way = match self.netlink.way(each.backend.ip()) {
            Ok(way) => way,
            Err(error) => {
                let fix = format!("ip route add {} via GATEWAY", each.backend.ip());
                return Finding::fault(
                    "route",
                    &object,
                    format!("this host has no route to it: {error}"),
                    fix,
                );
            }
        };
        if let Some(finding) = self.leads_astray(&object, way) {
            return finding;
        }
        let device = self.name(way.interface);
        let known = neighbours.iter().find(|n| (n.interface, n.address) == (way.interface, way.neighbour));
        let via = format!("by {device}, next hop {}", way.neighbour);
        match (known.and_then(|neighbour| neighbour.mac), answer) {
            (_, Some(Ok(()))) => Finding::ok("backend", &object, format!("answers ({via})")),
            (None, Some(Err(_))) => Finding::fault(
                "neighbour",
                &object,
                format!(
                    "its next hop {} on {device} does not say where it is (ARP or neighbour discovery)",
                    way.neighbour
                ),
                "look whether it is up, on that link, and has that address",
            ),
            (None, None) => Finding::warning(
                "neighbour",
                &object,
                format!("its next hop {} on {device} is not known yet", way.neighbour),
                format!("ping {}: if that does not answer, look at its link", way.neighbour),
            ),
            (Some(_), None) => {
                Finding::ok("backend", &object, format!("its next hop is known ({via}); UDP is not asked"))
            }
            (Some(_), Some(Err(error))) if error.kind() == ErrorKind::ConnectionRefused => Finding::fault(
                "backend",
                &object,
                "refuses connections: nobody listens there",
                "start the server, or correct the port",
            ),
            (Some(_), Some(Err(error))) => Finding::fault(
                "backend",
                &object,
                format!("does not answer a SYN ({via}): {error}"),
                "look at firewalls on the way, and whether it has a route back to this host",
            ),
        }
    }

    /// Where packets would leave by what the data plane does not serve.
    fn leads_astray(&self, object: &str, way: Way) -> Option<Finding> {
        if way.is_local {
            let fix = "name a server's address on another machine or namespace";
            return Some(Finding::fault("route", object, "it is this host's own address", fix));
        }
        let mut index = way.interface;
        while let Some((below, _)) = self.interfaces.get(&index).and_then(|interface| interface.vlan) {
            index = below;
        }
        let device = self.name(index);
        (!self.configured.contains(&index)).then(|| {
            let detail = format!(
                "the way there leaves by {device}, where replies are not seen: the program is not for it"
            );
            Finding::fault("route", object, detail, format!("add \"{device}\" to `interfaces`"))
        })
    }

    fn name(&self, index: u32) -> String {
        self.interfaces.get(&index).map_or_else(|| format!("interface {index}"), |each| each.name.clone())
    }
}

/// What the running data plane has seen of a backend's replies.
fn way_back(each: &Served) -> Option<Finding> {
    let (to, from) = each.packets?;
    let object = each.backend.to_string();
    match (to, from) {
        (ENOUGH.., 0) => Some(Finding::fault(
            "return-path",
            &object,
            format!(
                "{to} packets went to it for {} and none came back: it does not route through this balancer",
                each.vip
            ),
            "set its route to the clients by this host's address",
        )),
        (_, 1..) => {
            Some(Finding::ok("return-path", &object, format!("its replies come back here ({from} packets)")))
        }
        _ => None,
    }
}
