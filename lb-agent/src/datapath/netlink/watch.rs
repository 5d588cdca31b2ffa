//! What changes around this host, as the kernel tells it (rtnetlink(7), multicast groups).

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use anyhow::Context as _;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::neighbour::neighbour;
use super::{Neighbour, Netlink, messages};

/// `enum rtnetlink_groups` of linux/rtnetlink.h.
const GROUPS: [u32; 6] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
];

/// What has changed. Which of them it was is for the reader to look up: a change is a reason to look, no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Interfaces: they came, went, lost or found their link; or their addresses.
    pub(crate) links: bool,
    /// Routes, or neighbours that moved or were lost.
    pub(crate) ways: bool,
}

impl Changes {
    /// What has to be taken for changed where nobody knows.
    pub(crate) const ALL: Self = Self { links: true, ways: true };

    fn is_any(self) -> bool {
        self != Self::default()
    }
}

impl std::ops::BitOrAssign for Changes {
    fn bitor_assign(&mut self, other: Self) {
        self.links |= other.links;
        self.ways |= other.ways;
    }
}

/// A subscription. Changes from its making on are told.
pub(crate) struct Watch {
    socket: Socket,
    /// Where neighbours were last. The kernel tells also of those that stay where they are, many times a minute.
    neighbours: BTreeMap<(u32, IpAddr), [u8; 6]>,
}

impl Watch {
    /// Subscribes in the namespace of the calling thread.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let subscribe = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            GROUPS.iter().try_for_each(|&group| socket.add_membership(group))?;
            Ok(socket)
        };
        let socket = subscribe().context("cannot subscribe to changes of the network")?;
        let known = Netlink::open()?.neighbours()?;
        let neighbours = known.iter().filter_map(|each| Some(((each.interface, each.address), each.mac?)));
        Ok(Self { socket, neighbours: neighbours.collect() })
    }

    /// Waits until something has changed.
    ///
    /// # Errors
    /// Where the socket fails, which it does for good.
    pub(crate) fn next(&mut self) -> io::Result<Changes> {
        loop {
            let changes = match self.socket.recv_from_full() {
                Ok((datagram, _)) => self.read(&datagram),
                // More changed at once than the socket holds: what was lost is not known.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Changes::ALL,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Changes::default(),
                Err(error) => return Err(error),
            };
            if changes.is_any() {
                return Ok(changes);
            }
        }
    }

    fn read(&mut self, datagram: &[u8]) -> Changes {
        let mut changes = Changes::default();
        for message in messages(datagram) {
            // What this crate cannot read may be anything.
            let Ok(message) = message else { return Changes::ALL };
            if let NetlinkPayload::InnerMessage(message) = message.payload {
                changes |= self.consider(&message);
            }
        }
        changes
    }

    fn consider(&mut self, message: &RouteNetlinkMessage) -> Changes {
        use RouteNetlinkMessage as Message;
        let (links, ways) = match message {
            Message::NewLink(_) | Message::DelLink(_) => (true, true),
            Message::NewAddress(_) | Message::DelAddress(_) => (true, false),
            Message::NewRoute(_) | Message::DelRoute(_) => (false, true),
            Message::NewNeighbour(message) => {
                (false, neighbour(message).is_some_and(|seen| self.has_moved(&seen)))
            }
            Message::DelNeighbour(message) => {
                let lost = neighbour(message).map(|seen| Neighbour { mac: None, ..seen });
                (false, lost.is_some_and(|lost| self.has_moved(&lost)))
            }
            _ => (false, false),
        };
        Changes { links, ways }
    }

    /// Whether a neighbour is not where it was. One that is met for the first time misleads nobody.
    fn has_moved(&mut self, seen: &Neighbour) -> bool {
        let place = (seen.interface, seen.address);
        let before = match seen.mac {
            Some(mac) => self.neighbours.insert(place, mac),
            None => self.neighbours.remove(&place),
        };
        before.is_some() && before != seen.mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> Watch {
        Watch { socket: Socket::new(NETLINK_ROUTE).unwrap(), neighbours: BTreeMap::new() }
    }

    #[test]
    fn only_a_neighbour_that_moved_or_was_lost_is_a_change() {
        let mut watch = watch();
        let mut seen = |mac: Option<u8>| {
            let mac = mac.map(|last| [2, 0, 0, 0, 0, last]);
            watch.has_moved(&Neighbour { interface: 2, address: [10, 0, 0, 1].into(), mac, is_stale: false })
        };
        assert!(!seen(None), "nobody knew it");
        assert!(!seen(Some(1)), "met");
        assert!(!seen(Some(1)), "confirmed");
        assert!(seen(Some(2)), "moved");
        assert!(seen(None), "lost");
        assert!(!seen(Some(2)), "met again");
    }

    #[test]
    fn what_cannot_be_read_counts_as_every_change() {
        let mut watch = watch();
        // A header that says it is longer than what came.
        let datagram = [64, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(watch.read(&datagram), Changes::ALL);
        assert_eq!(watch.read(&[]), Changes::default());
    }
}
