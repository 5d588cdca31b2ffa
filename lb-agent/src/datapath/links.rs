//! VLAN devices for the data plane: which physical interface carries them, and with which tags.

use std::collections::BTreeMap;

use anyhow::Context as _;
use aya::maps::{HashMap, MapData};
use lb_common::link::Link;
use tracing::warn;

use super::netlink::Interface;

/// Tags of a frame that the data plane can write.
const MAX_TAGS: usize = 2;

/// The links map, and what it was last told.
pub(crate) struct Links {
    map: HashMap<MapData, u32, Link>,
    written: BTreeMap<u32, Link>,
}

impl Links {
    /// Takes over the map with what is in it.
    pub(crate) fn new(map: HashMap<MapData, u32, Link>) -> anyhow::Result<Self> {
        let written = map.iter().collect::<Result<_, _>>().context("cannot read LINKS")?;
        Ok(Self { map, written })
    }

    /// Tells the data plane what has changed.
    pub(crate) fn update(&mut self, interfaces: &[Interface]) {
        let wanted = vlan_devices(interfaces);
        for index in self.written.keys().filter(|index| !wanted.contains_key(index)) {
            // An entry that is left behind names an interface index that nobody routes to.
            let _ = self.map.remove(index);
        }
        for (index, link) in wanted.iter().filter(|(index, link)| self.written.get(index) != Some(link)) {
            if let Err(error) = self.map.insert(index, link, 0) {
                warn!(interface = index, %error, "cannot tell the data plane about a VLAN device");
            }
        }
        self.written = wanted;
    }
}

/// Each VLAN device with the physical interface at its bottom and the tags in between, outermost first.
fn vlan_devices(interfaces: &[Interface]) -> BTreeMap<u32, Link> {
    let by_index: BTreeMap<u32, &Interface> = interfaces.iter().map(|i| (i.index, i)).collect();
    interfaces
        .iter()
        .filter_map(|interface| Some((interface.index, resolve(interface, &by_index)?)))
        .collect()
}

fn resolve(interface: &Interface, by_index: &BTreeMap<u32, &Interface>) -> Option<Link> {
    let (mut lower, tag) = interface.vlan?;
    let mut tags = vec![tag];
    while let Some((below, tag)) = by_index.get(&lower)?.vlan {
        if tags.len() == MAX_TAGS {
            return None;
        }
        // The device further down puts its tag outside.
        tags.insert(0, tag);
        lower = below;
    }
    let mut link = Link { ifindex: lower, tag_count: tags.len() as u32, ..Link::default() };
    link.tags[..tags.len()].copy_from_slice(&tags);
    Some(link)
}

#[cfg(test)]
mod tests {
    use lb_common::Be16;
    use lb_common::next_hop::Tag;

    use super::*;

    fn tag(protocol: u16, id: u16) -> Tag {
        Tag { protocol: Be16::new(protocol), control: Be16::new(id) }
    }

    fn interface(index: u32, vlan: Option<(u32, Tag)>) -> Interface {
        Interface { index, vlan, ..Interface::default() }
    }

    #[test]
    fn devices_are_resolved_to_the_bottom() {
        let interfaces = [
            interface(1, None),
            interface(2, Some((1, tag(0x88a8, 100)))),
            interface(3, Some((2, tag(0x8100, 7)))),
            interface(4, Some((3, tag(0x8100, 8)))),
            interface(5, Some((99, tag(0x8100, 9)))),
        ];
        let devices = vlan_devices(&interfaces);
        assert_eq!(devices.keys().copied().collect::<Vec<_>>(), [2, 3], "three tags are one too many");
        let single = Link { ifindex: 1, tag_count: 1, tags: [tag(0x88a8, 100), Tag::default()] };
        let double = Link { ifindex: 1, tag_count: 2, tags: [tag(0x88a8, 100), tag(0x8100, 7)] };
        assert_eq!((devices[&2], devices[&3]), (single, double));
    }
}
