//! What a plan changes outside of the maps: addresses, system settings, and time that passes.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context as _;

use super::execute::World;
use super::grace::Grace;
use super::prefixes::{List, Trie};
use super::sysctl::Sysctl;
use super::vip::Vips;

/// This host, as far as plans concern it.
pub(super) struct Host {
    /// The addresses; `None` where they are left to others.
    pub(super) vips: Option<Vips>,
    /// The prefix lists.
    pub(super) trie: Trie,
    sysctl: Sysctl,
    forwards_ipv6: bool,
    grace: Grace,
}

impl Host {
    /// A host whose settings for IPv6 have not been looked at.
    pub(super) const fn new(vips: Option<Vips>, trie: Trie, sysctl: Sysctl) -> Self {
        Self { vips, trie, sysctl, forwards_ipv6: false, grace: Grace::Membarrier }
    }

    /// Lets the kernel forward IPv6, once there is a service that needs it.
    pub(super) fn forward_ipv6(&mut self) -> anyhow::Result<()> {
        if !self.forwards_ipv6 {
            self.sysctl.forward_ipv6()?;
            self.forwards_ipv6 = true;
        }
        Ok(())
    }

    /// Lets the kernel forward IPv4 packets that come in by an interface.
    pub(super) fn forward_ipv4(&mut self, interface: &str) -> anyhow::Result<()> {
        self.sysctl.forward_ipv4(interface).with_context(|| format!("interface {interface}"))
    }

    /// Addresses that no subnet covers go to this interface from now on.
    pub(super) fn default_to(&mut self, interface: u32) {
        self.vips.iter_mut().for_each(|vips| vips.default_to(interface));
    }

    fn vips(&mut self) -> anyhow::Result<&mut Vips> {
        self.vips.as_mut().context("addresses are left to others (manage_vips = false)")
    }
}

impl World for Host {
    fn grace_period(&mut self) -> anyhow::Result<()> {
        self.grace.wait()
    }

    fn write_list(&mut self, service: u16, generation: u16, list: &Arc<List>) -> anyhow::Result<()> {
        self.trie.write(service, generation, list)
    }

    fn erase_list(&mut self, service: u16, generation: u16) -> anyhow::Result<()> {
        self.trie.erase(service, generation)
    }

    fn add_address(&mut self, address: IpAddr) -> anyhow::Result<()> {
        self.vips()?.add(address)
    }

    fn remove_address(&mut self, address: IpAddr) -> anyhow::Result<()> {
        self.vips()?.remove(address)
    }
}
