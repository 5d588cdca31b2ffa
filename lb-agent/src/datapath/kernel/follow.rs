//! The kernel's data plane and the network around it: interfaces, routes, neighbours.

use anyhow::Context as _;
use lb_common::settings::REDIRECT_BACK;
use tracing::{info, warn};

use super::Kernel;
use crate::datapath::attach::attach;
use crate::datapath::load::ENTRY;
use crate::datapath::netlink::Netlink;
use crate::datapath::start::is_veth;
use crate::datapath::{InterfaceStatus, generation, next_hops};

impl Kernel {
    /// Acts on what has changed around this host; the interfaces that are other than before.
    pub(super) fn catch_up_with_network(&mut self) -> anyhow::Result<Vec<InterfaceStatus>> {
        let changes = self.network.take();
        let changed = if changes.links { self.look_at_interfaces()? } else { Vec::new() };
        if changes.ways {
            next_hops::doubt(&self.loaded.arrays);
        }
        Ok(changed)
    }

    /// Follows VLAN devices and the configured interfaces.
    pub(super) fn look_at_interfaces(&mut self) -> anyhow::Result<Vec<InterfaceStatus>> {
        let all = Netlink::open()?.interfaces()?;
        self.links.update(&all);
        let (loaded, host) = (&mut self.loaded, &mut self.host);
        let (pins, mode) = (&self.pins, self.mode);
        let program = loaded.xdp(ENTRY)?.info().context("cannot ask about the program")?.id();
        let changed = self.attachments.follow(&all, program, &mut |interface| {
            host.forward_ipv4(&interface.name)?;
            if is_veth(interface) {
                loaded.arrays.settings().flags.store(REDIRECT_BACK);
            }
            let native = attach(pins, loaded.xdp(ENTRY)?, interface, mode)?;
            if let Err(error) = generation::watch(loaded, &[interface.index]) {
                warn!(
                    "interface {}: what fails there after the verdict is not counted: {error:#}",
                    interface.name
                );
            }
            Ok(native)
        });
        if let Some(first) = self.attachments.first() {
            self.host.default_to(first);
        }
        for InterfaceStatus { name, mode, problem } in &changed {
            match problem {
                Some(problem) => warn!("interface {name}: {problem}"),
                None => info!("interface {name}: in use, {mode} mode"),
            }
        }
        Ok(changed)
    }

    /// Has the kernel confirm neighbours that packets are sent to, as it would if it sent them itself. Otherwise it
    /// would never ask again for one that is there, and never find out that it has gone.
    pub(super) fn keep_neighbours_warm(&self) -> anyhow::Result<()> {
        let in_use = next_hops::in_use(&self.loaded.arrays, self.jiffies()?);
        if in_use.is_empty() {
            return Ok(());
        }
        let mut netlink = Netlink::open()?;
        for neighbour in netlink.neighbours()? {
            if neighbour.is_stale && neighbour.mac.is_some_and(|mac| in_use.contains(&mac)) {
                // It may have gone in between.
                let _ = netlink.use_neighbour(&neighbour);
            }
        }
        Ok(())
    }
}
