//! The configured interfaces, one by one.

use std::collections::BTreeMap;
use std::path::Path;

use aya::programs::links::{FdLink, PinnedLink};

use super::Finding;
use crate::config::{Config, XdpMode};
use crate::datapath::netlink::{Interface, Netlink};
use crate::datapath::start::is_veth;
use crate::datapath::{ethtool, pins, sysctl};

/// The largest MTU at which a frame, its headroom and what the kernel keeps behind it fit into one page of 4 KiB: many
/// drivers run no program natively beyond (`XDP_PACKET_HEADROOM` 256, `skb_shared_info` 320, Ethernet with two tags 22).
const ONE_PAGE: u32 = 4096 - 256 - 320 - 22;

/// Whether each is there, has a link, and runs the program, or could.
pub fn interfaces(config: &Config) -> Vec<Finding> {
    let all = match Netlink::open().and_then(|mut netlink| netlink.interfaces()) {
        Ok(all) => all,
        Err(error) => {
            return vec![Finding::fault("interface", "", format!("{error:#}"), "run this as root")];
        }
    };
    let ours = running(&config.pin_dir);
    let mut findings = Vec::new();
    for name in config.interfaces.iter().map(|name| name.as_str()) {
        match all.iter().find(|interface| interface.name == name) {
            None => findings.push(Finding::fault(
                "interface",
                name,
                "there is none of that name",
                "ip link shows those that there are: name one of them in `interfaces`, or bring this one",
            )),
            Some(interface) if interface.loopback => findings.push(Finding::fault(
                "interface",
                name,
                "the loopback interface carries no traffic to balance",
                "name the one that requests come in by",
            )),
            Some(interface) => findings.extend(look(config, interface, ours.get(name).copied())),
        }
    }
    if config.interfaces.is_empty() {
        let fix = "name one with --interface, or set `interfaces` in the configuration";
        findings.push(Finding::fault("interface", "", "none is configured", fix));
    }
    findings
}

/// Whether the program runs anywhere, with an agent or without.
pub fn is_attached(config: &Config) -> bool {
    !running(&config.pin_dir).is_empty()
}

/// The program that is pinned for each interface.
fn running(pin_dir: &Path) -> BTreeMap<String, u32> {
    let program =
        |path: &Path| Some(FdLink::from(PinnedLink::from_pin(path).ok()?).info().ok()?.program_id());
    let links = pins::links(pin_dir).unwrap_or_default();
    links.into_iter().filter_map(|(name, path)| Some((name, program(&path)?))).collect()
}

fn look(config: &Config, interface: &Interface, ours: Option<u32>) -> Vec<Finding> {
    let runs_ours = interface.xdp.is_some_and(|attached| Some(attached.id) == ours);
    let mut findings = vec![link(interface), program(config, interface, runs_ours)];
    findings.extend(mtu(config, interface));
    findings.extend(offloads(interface));
    findings.extend(queues(interface));
    findings.push(settings(&interface.name, runs_ours));
    findings
}

fn link(interface: &Interface) -> Finding {
    let name = &interface.name;
    match (interface.is_up, interface.has_link) {
        (false, _) => Finding::fault("link", name, "it is down", format!("ip link set dev {name} up")),
        (true, false) => {
            Finding::fault("link", name, "it has no link", "look at the cable, or whatever is its other end")
        }
        (true, true) => Finding::ok("link", name, "up"),
    }
}

fn program(config: &Config, interface: &Interface, runs_ours: bool) -> Finding {
    let name = &interface.name;
    match interface.xdp {
        Some(attached) if !runs_ours => Finding::fault(
            "program",
            name,
            format!("it runs another XDP program (id {})", attached.id),
            format!("take that one off: ip link set dev {name} xdp off"),
        ),
        Some(attached) if attached.native => Finding::ok("program", name, "attached in native mode"),
        Some(_) if config.xdp_mode == XdpMode::Generic => {
            Finding::ok("program", name, "attached in generic mode, as configured")
        }
        Some(_) => Finding::warning(
            "program",
            name,
            "attached in generic mode, which is slower: the driver refused native XDP",
            "use a driver with XDP, an MTU that fits a page, and no LRO; the agent's log has the driver's reason",
        ),
        None => Finding::ok(
            "program",
            name,
            format!("none is attached: `lb-agent run` does that{}", driver(name)),
        ),
    }
}

fn driver(name: &str) -> String {
    ethtool::driver(name).map_or_else(|_| String::new(), |driver| format!(" (driver {driver})"))
}

fn mtu(config: &Config, interface: &Interface) -> Option<Finding> {
    let is_native = interface.xdp.is_some_and(|attached| attached.native);
    let is_large = interface.mtu > ONE_PAGE && !is_native && config.xdp_mode != XdpMode::Generic;
    let (name, detail) =
        (&interface.name, format!("many drivers refuse native XDP at an MTU of {}", interface.mtu));
    is_large.then(|| Finding::warning("mtu", name, detail, format!("ip link set dev {name} mtu {ONE_PAGE}")))
}

fn offloads(interface: &Interface) -> Vec<Finding> {
    let name = &interface.name;
    let is_generic = interface.xdp.is_some_and(|attached| !attached.native);
    let mut findings = Vec::new();
    if ethtool::has_lro(name).unwrap_or_default() {
        let fix = format!("ethtool -K {name} lro off");
        findings.push(Finding::warning(
            "offloads",
            name,
            "LRO is on: drivers refuse native XDP with it",
            fix,
        ));
    }
    if is_generic && ethtool::has_gro(name).unwrap_or_default() {
        let detail = "GRO is on: in generic mode its aggregates are dropped as larger than the link takes";
        findings.push(Finding::fault("offloads", name, detail, format!("ethtool -K {name} gro off")));
    }
    if findings.is_empty() {
        let veth = "a virtual link: where a stack at its other end sends by itself, that end needs `ethtool -K DEV tx off`";
        let detail = if is_veth(interface) { veth } else { "nothing that hinders XDP" };
        findings.push(Finding::ok("offloads", name, detail));
    }
    findings
}

/// Each queue is served by one CPU at a time. A virtual link's count says nothing about where its packets come from.
fn queues(interface: &Interface) -> Option<Finding> {
    let (name, queues) = (&interface.name, interface.rx_queues);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    if is_veth(interface) {
        return None;
    }
    Some(match queues == 1 && cpus > 1 {
        false => Finding::ok("queues", name, format!("{queues} receive queues, {cpus} CPUs")),
        true => Finding::warning(
            "queues",
            name,
            format!("one receive queue: one of {cpus} CPUs balances at a time"),
            format!("ethtool -L {name} combined {cpus}, if the device has as many"),
        ),
    })
}

fn settings(name: &str, runs_ours: bool) -> Finding {
    let needs = match sysctl::unmet(name) {
        Ok(needs) if needs.is_empty() => return Finding::ok("settings", name, "packets are forwarded"),
        Ok(needs) => needs,
        Err(error) => return Finding::warning("settings", name, format!("{error:#}"), "run this as root"),
    };
    let list: Vec<_> = needs.iter().map(|(setting, wanted)| format!("{setting}={wanted}")).collect();
    match runs_ours {
        false => Finding::ok("settings", name, format!("`lb-agent run` will set {}", list.join(", "))),
        true => Finding::fault(
            "settings",
            name,
            "somebody has changed what the agent had set: packets to neighbours that are not known yet are lost",
            format!("sysctl -w {}", list.join(" ")),
        ),
    }
}
