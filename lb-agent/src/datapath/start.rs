//! From a configuration to a program on its interfaces.

use anyhow::{Context as _, anyhow, bail, ensure};
use aya::programs::Xdp;
use lb_common::settings::REDIRECT_BACK;
use tracing::{info, warn};

use super::arrays::Sizes;
use super::attach::attach;
use super::attachments::Attachments;
use super::load::{ENTRY, Loaded};
use super::netlink::{Interface, Netlink};
use super::pins::{PinDir, unpin};
use super::{InterfaceStatus, clock, ethtool, generation, sysctl};
use crate::config::Config;

/// Every interface that there is, of which one at least is configured: the others may come later.
pub(super) fn interfaces(config: &Config) -> anyhow::Result<Vec<Interface>> {
    let all = Netlink::open()?.interfaces()?;
    let names: Vec<&str> = config.interfaces.iter().map(|name| name.as_str()).collect();
    let configured = || all.iter().filter(|interface| names.contains(&interface.name.as_str()));
    if let Some(loopback) = configured().find(|interface| interface.loopback) {
        bail!("interface {}: the loopback interface carries no traffic to balance", loopback.name);
    }
    ensure!(
        configured().next().is_some(),
        "interface {}: there is none of that name (ip link shows those that there are)",
        names.join(", ")
    );
    Ok(all)
}

/// Rows of the maps, by the configured limits and the CPUs of this machine.
pub(super) fn sizes(config: &Config) -> anyhow::Result<Sizes> {
    let cpus = aya::util::nr_cpus().map_err(|(file, error)| anyhow!("cannot read {file}: {error}"))?;
    let limits = &config.limits;
    if let Some(local) = sysctl::local_ports().filter(|local| limits.source_ports.overlaps(*local)) {
        warn!(
            "[limits] source_ports = \"{}\" overlaps with net.ipv4.ip_local_port_range {local}: full NAT would take replies \
             to this host's own connections for its own where a source address is the host's",
            limits.source_ports
        );
    }
    Ok(Sizes::of_limits(limits, cpus as u32))
}

/// Whether the program answers with redirects there. Where one interface needs it, it does so on all: a redirect is
/// right on any.
pub(super) fn is_veth(interface: &Interface) -> bool {
    ethtool::driver(&interface.name).is_ok_and(|driver| driver == "veth")
}

/// Puts a new generation of the program in place, on all interfaces that there are, then lets the one before go.
pub(super) fn bring_up(
    loaded: &mut Loaded,
    pins: &PinDir,
    config: &Config,
    all: &[Interface],
) -> anyhow::Result<Attachments> {
    let (generation, directory) = pins.next_generation()?;
    generation::fill_stages(loaded, &directory)?;
    loaded.xdp(clock::PROGRAM)?;
    let names: Vec<&str> = config.interfaces.iter().map(|name| name.as_str()).collect();
    let redirects =
        all.iter().any(|interface| names.contains(&interface.name.as_str()) && is_veth(interface));
    loaded.arrays.settings().flags.store(if redirects { REDIRECT_BACK } else { 0 });
    let program: &mut Xdp = loaded.xdp(ENTRY)?;
    let id = program.info().context("cannot ask about the program")?.id();
    let mut attachments = Attachments::new(names.iter().copied());
    // At the start one that refuses is a reason not to start; later there is traffic on the others.
    let mut refused = None;
    let told = attachments.follow(all, id, &mut |interface| {
        attach(pins, program, interface, config.xdp_mode).map_err(|error| {
            let text = anyhow!("{error:#}");
            refused.get_or_insert(error);
            text
        })
    });
    if let Some(error) = refused {
        return Err(error);
    }
    for InterfaceStatus { name, problem, .. } in &told {
        problem.iter().for_each(|problem| warn!("interface {name}: {problem}"));
    }
    for name in pins.linked()?.iter().filter(|name| !names.contains(&name.as_str())) {
        unpin(&pins.link(name))?;
        info!("interface {name}: detached: it is not configured any more");
    }
    generation::drop_older(pins, generation)?;
    generation::trace(loaded, &attachments.indices(), &directory);
    if loaded.adopted {
        info!("took over the running data plane");
    }
    Ok(attachments)
}
