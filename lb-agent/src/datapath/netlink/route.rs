//! Where the kernel sends what goes to an address.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::NLM_F_ACK;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Netlink;

/// Where the kernel sends what goes to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// The interface that it leaves by.
    pub(crate) interface: u32,
    /// Who it is handed to on the link: the address itself, where that is no gateway.
    pub(crate) neighbour: IpAddr,
    /// It is this host's own address.
    pub(crate) is_local: bool,
}

impl Netlink {
    /// Asks for the way to an address.
    ///
    /// # Errors
    /// The kernel's own: `ENETUNREACH` where there is no route, or what a route of another kind answers.
    pub(crate) fn way(&mut self, to: IpAddr) -> io::Result<Way> {
        let mut message = RouteMessage::default();
        (message.header.address_family, message.header.destination_prefix_length) = match to {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message.attributes = vec![RouteAttribute::Destination(to.into())];
        let answers = self.request(RouteNetlinkMessage::GetRoute(message), NLM_F_ACK)?;
        let route = answers.iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        });
        let way = route.and_then(|route| way(to, route));
        way.ok_or_else(|| io::Error::other("the kernel's route names no interface"))
    }
}

fn way(to: IpAddr, route: &RouteMessage) -> Option<Way> {
    let interface = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })?;
    let gateway = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Gateway(RouteAddress::Inet6(address))
        | RouteAttribute::Via(RouteVia::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    });
    let is_local = route.header.kind == RouteType::Local;
    Some(Way { interface, neighbour: gateway.unwrap_or(to), is_local })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses of the loopback interface are local everywhere, and asking needs no privileges.
    #[test]
    fn the_way_to_oneself_is_local() {
        let mut netlink = Netlink::open().unwrap();
        let loopback = netlink.interfaces().unwrap().into_iter().find(|each| each.loopback).unwrap();
        let way = netlink.way("127.0.0.1".parse().unwrap()).unwrap();
        assert_eq!((way.interface, way.is_local), (loopback.index, true));
    }
}
