//! Virtual addresses on this host's interfaces.
//!
//! A pinned map remembers which addresses are there because of us: an agent that starts again, and `detach`, remove
//! those and no others.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use aya::maps::{HashMap, Map, MapData};
use lb_common::Address;
use tracing::warn;

use super::announce::announce;
use super::netlink::{HostAddress, Interface, Netlink};
use super::observed::Addresses;

/// Name of the map that remembers: address to index of the interface. No program uses it.
pub(super) const ADDED: &str = "ADDED_ADDRESSES";

type Added = HashMap<MapData, [u8; 16], u32>;

/// The addresses of this host, as far as they concern services.
pub(super) struct Vips {
    netlink: Netlink,
    added: Added,
    /// Index of the interface for addresses that no subnet covers.
    fallback: u32,
}

impl Vips {
    /// Takes over what is remembered under `pin_dir`, or begins to remember up to `capacity` addresses.
    pub(super) fn open(pin_dir: &Path, capacity: u32, fallback: u32) -> anyhow::Result<Self> {
        let path = pin_dir.join(ADDED);
        if !path.exists() {
            Added::create(capacity, 0)
                .map_err(anyhow::Error::from)
                .and_then(|map| Ok(map.pin(&path)?))
                .with_context(|| format!("cannot create {}", path.display()))?;
        }
        Ok(Self { netlink: Netlink::open()?, added: recall(&path)?, fallback })
    }

    /// Addresses that no subnet covers go to this interface from now on.
    pub(super) const fn default_to(&mut self, interface: u32) {
        self.fallback = interface;
    }

    /// What is there, and what is there because of us.
    pub(super) fn addresses(&self) -> anyhow::Result<Addresses> {
        let present = Netlink::open()?.addresses()?.into_iter().map(|address| address.address).collect();
        let ours =
            self.added.keys().collect::<Result<Vec<_>, _>>().context("cannot read the added addresses")?;
        Ok(Addresses { present, ours: ours.into_iter().map(to_ip).collect() })
    }

    /// Adds an address to the interface whose subnet it belongs to, and announces it.
    pub(super) fn add(&mut self, address: IpAddr) -> anyhow::Result<()> {
        let interfaces = self.netlink.interfaces()?;
        let interface = self.interface_for(address, &interfaces)?;
        let host = HostAddress { interface: interface.index, address, prefix: host_prefix(address) };
        let key = Address::from(address).to_wire();
        // Remembered first: an agent that dies in between knows afterwards that the address may be its own.
        self.added.insert(key, interface.index, 0).context("cannot remember that it is ours")?;
        match self.netlink.add_address(host) {
            Ok(true) => {}
            Ok(false) => self.forget(address)?,
            Err(error) => {
                self.forget(address)?;
                return Err(error.context(format!("interface {}", interface.name)));
            }
        }
        if let Err(error) = announce(interface, address) {
            warn!(%address, interface = interface.name, %error, "cannot announce: neighbours find it by asking");
        }
        Ok(())
    }

    /// Removes an address that [`add`](Self::add) added.
    pub(super) fn remove(&mut self, address: IpAddr) -> anyhow::Result<()> {
        let key = Address::from(address).to_wire();
        let interface = self.added.get(&key, 0).context("it is not ours")?;
        self.netlink.remove_address(HostAddress { interface, address, prefix: host_prefix(address) })?;
        self.forget(address)
    }

    fn forget(&mut self, address: IpAddr) -> anyhow::Result<()> {
        let key = Address::from(address).to_wire();
        self.added.remove(&key).context("cannot forget that it was ours")
    }

    fn interface_for<'i>(
        &mut self,
        address: IpAddr,
        interfaces: &'i [Interface],
    ) -> anyhow::Result<&'i Interface> {
        let addresses = self.netlink.addresses()?;
        let eligible = |index: u32| interfaces.iter().find(|i| i.index == index && !i.loopback);
        let covering = covering(&addresses, address, |index| eligible(index).is_some());
        eligible(covering.unwrap_or(self.fallback))
            .ok_or_else(|| anyhow!("its interface (index {}) is gone", self.fallback))
    }
}

/// Takes away every address that was added under this pin directory; those that were there.
pub(super) fn remove_all(pin_dir: &Path) -> anyhow::Result<BTreeSet<IpAddr>> {
    if !pin_dir.join(ADDED).exists() {
        return Ok(BTreeSet::new());
    }
    let mut vips = Vips { netlink: Netlink::open()?, added: recall(&pin_dir.join(ADDED))?, fallback: 0 };
    let ours = vips.addresses()?.ours;
    for &address in &ours {
        vips.remove(address).with_context(|| format!("cannot remove address {address}"))?;
    }
    Ok(ours)
}

fn recall(path: &Path) -> anyhow::Result<Added> {
    let map =
        MapData::from_pin(path).map_err(anyhow::Error::from).and_then(|data| Ok(Map::from_map_data(data)?));
    let map = map.and_then(|map| Ok(Added::try_from(map)?));
    map.with_context(|| format!("cannot open {}", path.display()))
}

/// The interface with the most specific subnet around an address. A host route's own address covers nothing.
fn covering(addresses: &[HostAddress], address: IpAddr, eligible: impl Fn(u32) -> bool) -> Option<u32> {
    addresses
        .iter()
        .filter(|host| {
            host.prefix < host_prefix(host.address) && host.covers(address) && eligible(host.interface)
        })
        .max_by_key(|host| host.prefix)
        .map(|host| host.interface)
}

const fn host_prefix(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn to_ip(key: [u8; 16]) -> IpAddr {
    Address::from_wire(key).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(interface: u32, address: &str, prefix: u8) -> HostAddress {
        HostAddress { interface, address: address.parse().unwrap(), prefix }
    }

    #[test]
    fn the_most_specific_subnet_wins() {
        let addresses = [
            host(1, "127.0.0.1", 8),
            host(2, "10.0.0.1", 8),
            host(3, "10.0.0.1", 24),
            host(4, "10.0.0.100", 32),
            host(5, "fd00::1", 64),
        ];
        let find = |address: &str| covering(&addresses, address.parse().unwrap(), |index| index != 1);
        assert_eq!(find("10.0.0.100"), Some(3));
        assert_eq!(find("10.1.0.100"), Some(2));
        assert_eq!(find("fd00::100"), Some(5));
        assert_eq!(find("127.0.0.2"), None, "not eligible");
        assert_eq!(find("192.0.2.1"), None);
    }
}
