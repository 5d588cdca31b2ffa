//! What a plan changes outside of the maps: addresses, system settings, and time that passes.

use std::net::IpAddr;

use anyhow::Context as _;
use rustix::thread::{MembarrierCommand, membarrier};

use super::execute::World;
use super::sysctl;
use super::vip::Vips;

/// This host, as far as plans concern it.
pub(super) struct Host {
    /// The addresses; `None` where they are left to others.
    pub(super) vips: Option<Vips>,
    forwards_ipv6: bool,
}

impl Host {
    /// A host whose settings have not been looked at.
    pub(super) const fn new(vips: Option<Vips>) -> Self {
        Self { vips, forwards_ipv6: false }
    }

    /// Lets the kernel forward IPv6, once there is a service that needs it.
    pub(super) fn forward_ipv6(&mut self) -> anyhow::Result<()> {
        if !self.forwards_ipv6 {
            sysctl::forward_ipv6()?;
            self.forwards_ipv6 = true;
        }
        Ok(())
    }

    fn vips(&mut self) -> anyhow::Result<&mut Vips> {
        self.vips.as_mut().context("addresses are left to others (manage_vips = false)")
    }
}

impl World for Host {
    /// An XDP program runs within an RCU read-side section; this waits for all that have begun (`synchronize_rcu`).
    fn grace_period(&mut self) -> anyhow::Result<()> {
        membarrier(MembarrierCommand::Global).context("membarrier")
    }

    fn add_address(&mut self, address: IpAddr) -> anyhow::Result<()> {
        self.vips()?.add(address)
    }

    fn remove_address(&mut self, address: IpAddr) -> anyhow::Result<()> {
        self.vips()?.remove(address)
    }
}
