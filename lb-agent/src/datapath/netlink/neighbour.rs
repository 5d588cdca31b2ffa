//! Who the kernel knows on its links.

use std::io;
use std::net::IpAddr;

use anyhow::Context as _;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Netlink;

/// Somebody on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) interface: u32,
    pub(crate) address: IpAddr,
    /// Its link-layer address, while the kernel takes it to be right.
    pub(crate) mac: Option<[u8; 6]>,
    /// It was right once, and nobody has asked since.
    pub(crate) is_stale: bool,
}

impl Netlink {
    /// Everybody that the kernel knows of on a link.
    pub(crate) fn neighbours(&mut self) -> anyhow::Result<Vec<Neighbour>> {
        let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let answers = self.request(request, NLM_F_DUMP).context("cannot list neighbours")?;
        let each = |answer| match answer {
            RouteNetlinkMessage::NewNeighbour(message) => neighbour(&message),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(each).collect())
    }

    /// Has the kernel confirm a neighbour that it knows, as it does when it sends to it: `NTF_USE` of linux/neighbour.h.
    pub(crate) fn use_neighbour(&mut self, neighbour: &Neighbour) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = neighbour.interface;
        message.header.flags = NeighbourFlags::Use;
        let (family, address) = match neighbour.address {
            IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
            IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
        };
        message.header.family = family;
        message.attributes = vec![NeighbourAttribute::Destination(address)];
        self.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_ACK).map(drop)
    }
}

/// Nothing for what is no neighbour of IP: bridges list their stations in the same way.
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })?;
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(mac) => <[u8; 6]>::try_from(mac.as_slice()).ok(),
        _ => None,
    });
    let state = message.header.state;
    let is_known = !matches!(
        state,
        NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::None | NeighbourState::Noarp
    );
    Some(Neighbour {
        interface: message.header.ifindex,
        address,
        mac: mac.filter(|_| is_known),
        is_stale: state == NeighbourState::Stale,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_has_an_address_while_the_kernel_trusts_it() {
        let mut message = NeighbourMessage::default();
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet([10, 0, 0, 1].into())),
            NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 1]),
        ];
        let seen = |state| {
            let mut message = message.clone();
            message.header.state = state;
            let seen = neighbour(&message).unwrap();
            (seen.mac.is_some(), seen.is_stale)
        };
        assert_eq!(seen(NeighbourState::Reachable), (true, false));
        assert_eq!(seen(NeighbourState::Stale), (true, true));
        assert_eq!(seen(NeighbourState::Permanent), (true, false));
        assert_eq!(seen(NeighbourState::Failed), (false, false));
        message.attributes.remove(0);
        assert_eq!(neighbour(&message), None);
    }
}
