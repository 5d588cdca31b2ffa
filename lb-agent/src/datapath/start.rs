//! From a configuration to a program on its interfaces.

use anyhow::{anyhow, ensure};
use aya::programs::Xdp;
use lb_common::settings::REDIRECT_BACK;
use tracing::info;

use super::arrays::Sizes;
use super::attach::attach;
use super::load::{ENTRY, Loaded};
use super::netlink::{Interface, Netlink};
use super::pins::{PinDir, unpin};
use super::{InterfaceStatus, clock, ethtool, generation};
use crate::config::Config;

/// The configured interfaces, each once, and all that there are.
pub(super) fn configured_interfaces(config: &Config) -> anyhow::Result<(Vec<Interface>, Vec<Interface>)> {
    let all = Netlink::open()?.interfaces()?;
    let mut configured: Vec<Interface> = Vec::new();
    for name in config.interfaces.iter().map(|name| name.as_str()) {
        let interface = all.iter().find(|interface| interface.name == name).ok_or_else(|| {
            anyhow!("interface {name}: there is none of that name (ip link shows those that there are)")
        })?;
        ensure!(
            !interface.loopback,
            "interface {name}: the loopback interface carries no traffic to balance"
        );
        if !configured.contains(interface) {
            configured.push(interface.clone());
        }
    }
    ensure!(
        !configured.is_empty(),
        "no interface: name one in the configuration's `interfaces` or by --interface"
    );
    Ok((configured, all))
}

/// Rows of the maps, by the configured limits and the CPUs of this machine.
pub(super) fn sizes(config: &Config) -> anyhow::Result<Sizes> {
    let cpus = aya::util::nr_cpus().map_err(|(file, error)| anyhow!("cannot read {file}: {error}"))?;
    let limits = &config.limits;
    Ok(Sizes {
        flows: limits.flows,
        flows6: limits.flows6(),
        services: limits.services,
        backends: limits.backends,
        table_size: limits.table_size,
        cpus: cpus as u32,
    })
}

/// How the program treats these interfaces. For all of them where one needs it: a redirect is right on any.
fn flags(configured: &[Interface]) -> u64 {
    let is_veth =
        |interface: &Interface| ethtool::driver(&interface.name).is_ok_and(|driver| driver == "veth");
    if configured.iter().any(is_veth) { REDIRECT_BACK } else { 0 }
}

/// Puts a new generation of the program in place, on all interfaces, then lets the one before go.
pub(super) fn bring_up(
    loaded: &mut Loaded,
    pins: &PinDir,
    config: &Config,
    configured: &[Interface],
) -> anyhow::Result<Vec<InterfaceStatus>> {
    let (generation, directory) = pins.next_generation()?;
    generation::fill_stages(loaded, &directory)?;
    loaded.xdp(clock::PROGRAM)?;
    loaded.arrays.settings().flags.store(flags(configured));
    let program: &mut Xdp = loaded.xdp(ENTRY)?;
    let attached = configured
        .iter()
        .map(|interface| attach(pins, program, interface, config.xdp_mode))
        .collect::<anyhow::Result<Vec<_>>>()?;
    for name in
        pins.linked()?.iter().filter(|name| !configured.iter().any(|interface| interface.name == **name))
    {
        unpin(&pins.link(name))?;
        info!("interface {name}: detached: it is not configured any more");
    }
    generation::drop_older(pins, generation)?;
    let indices: Vec<_> = configured.iter().map(|interface| interface.index).collect();
    generation::trace(loaded, &indices, &directory);
    if loaded.adopted {
        info!("took over the running data plane");
    }
    Ok(attached)
}
