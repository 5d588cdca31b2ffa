//! The kernel's routing and neighbour tables, as `ip` commands and as the answers that they lead to.

use std::net::IpAddr;

use lb_common::address::{Address, Be16};
use lb_common::link::Link;
use lb_common::next_hop::{Hop, Tag};
use lb_ebpf::tables::Route;

use super::{
    Hosts, INGRESS_INDEX, LAN, LAN_INDEX, QINQ_INDEX, ROUTER, Special, TAGGED_INDEX, V4, V6, WAN, WAN_INDEX,
    address, backend_mac,
};
use crate::packet::Mac;

/// The VLAN interfaces, as the agent would enter them.
pub const LINKS: [(u32, Link); 2] = [
    (TAGGED_INDEX, Link { ifindex: INGRESS_INDEX, tag_count: 1, tags: [tag(0x8100, 100), tag(0, 0)] }),
    (QINQ_INDEX, Link { ifindex: WAN_INDEX, tag_count: 2, tags: [tag(0x88a8, 7), tag(0x8100, 100)] }),
];

/// Our and the neighbour's address behind the VLAN interfaces.
const TAGGED: (Mac, Mac) = (Mac([2, 0, 0, 0, 0x31, 1]), Mac([2, 0, 0, 0, 0x31, 2]));
const QINQ: (Mac, Mac) = (Mac([2, 0, 0, 0, 0x41, 1]), Mac([2, 0, 0, 0, 0x41, 2]));

const fn tag(protocol: u16, control: u16) -> Tag {
    Tag { protocol: Be16::new(protocol), control: Be16::new(control) }
}

const fn hop(ifindex: u32, ends: (Mac, Mac), mtu: u16) -> Hop {
    let (source, destination) = ends;
    Hop { ifindex, mtu, tag_count: 0, destination: destination.0, source: source.0, tags: [tag(0, 0); 2] }
}

const fn through(link: Link, ends: (Mac, Mac)) -> Hop {
    let Link { ifindex, tag_count, tags } = link;
    Hop { tag_count: tag_count as u8, tags, ..hop(ifindex, ends, 1500) }
}

/// The answer for a destination that no other answer is for: by the router.
#[must_use]
pub const fn default_route() -> Route {
    Route::Hop(hop(WAN_INDEX, (WAN, ROUTER), 1500))
}

/// The answers for everything that has one of its own.
pub fn routes() -> impl Iterator<Item = (Address, Route)> {
    let backends = [V4, V6].into_iter().flat_map(|hosts| hosts.backends.into_iter().enumerate());
    let backends = backends
        .map(|(index, text)| (address(text), Route::Hop(hop(LAN_INDEX, (LAN, backend_mac(index)), 1500))));
    let special = specials().flat_map(|special| {
        [
            (special.unknown_neighbour, Route::NeighbourUnknown),
            (special.blackhole, Route::None),
            (special.unreachable, Route::None),
            (special.prohibited, Route::None),
            (special.local, Route::Unfollowable),
            (special.tagged, Route::Hop(through(LINKS[0].1, TAGGED))),
            (special.double_tagged, Route::Hop(through(LINKS[1].1, QINQ))),
            (special.narrow, Route::Hop(hop(WAN_INDEX, (WAN, ROUTER), 1280))),
        ]
        .map(|(text, route)| (address(text), route))
    });
    backends.chain(special)
}

fn specials() -> impl Iterator<Item = Special> {
    [V4, V6].into_iter().flat_map(|hosts| [hosts.clients, hosts.special_backends])
}

/// The commands that make a kernel give these answers, for `ip -batch`.
#[must_use]
pub fn script() -> String {
    let mut lines = vec!["link set lo up".to_owned()];
    for (name, index, mac) in [
        ("wan", WAN_INDEX, WAN),
        ("lan", LAN_INDEX, LAN),
        ("tagged", TAGGED_INDEX, TAGGED.0),
        ("qinq", QINQ_INDEX, QINQ.0),
    ] {
        let peer = index + 1;
        lines.push(format!(
            "link add {name} index {index} address {mac} type veth peer name {name}-peer index {peer}"
        ));
        lines.push(format!("link set {name}-peer up"));
        lines.push(format!("link set {name} up"));
    }
    for (hosts, own, gateway) in
        [(V4, "198.18.0.1/24", "198.18.0.2"), (V6, "fd00:ffff::1/64", "fd00:ffff::2")]
    {
        lines.push(format!("address add {own} dev wan"));
        lines.push(format!("neighbour add {gateway} lladdr {ROUTER} dev wan nud permanent"));
        lines.push(format!("route add default via {gateway} dev wan"));
        backends(&hosts, &mut lines);
        for special in [hosts.clients, hosts.special_backends] {
            exceptions(&special, gateway, &mut lines);
        }
    }
    lines.join("\n") + "\n"
}

fn backends(hosts: &Hosts, lines: &mut Vec<String>) {
    for (index, backend) in hosts.backends.into_iter().enumerate() {
        lines.push(format!("route add {} dev lan", host(backend)));
        let mac = backend_mac(index);
        lines.push(format!("neighbour add {backend} lladdr {mac} dev lan nud permanent"));
    }
}

fn exceptions(special: &Special, gateway: &str, lines: &mut Vec<String>) {
    lines.push(format!("route add {} dev lan", host(special.unknown_neighbour)));
    lines.push(format!("route add blackhole {}", host(special.blackhole)));
    lines.push(format!("route add unreachable {}", host(special.unreachable)));
    lines.push(format!("route add prohibit {}", host(special.prohibited)));
    lines.push(format!("address add {} dev lo", host(special.local)));
    // Locked, or forwarding goes by the device's MTU instead of the route's.
    lines.push(format!("route add {} via {gateway} dev wan mtu lock 1280", host(special.narrow)));
    for (text, name, (_, neighbour)) in
        [(special.tagged, "tagged", TAGGED), (special.double_tagged, "qinq", QINQ)]
    {
        lines.push(format!("route add {} dev {name}", host(text)));
        lines.push(format!("neighbour add {text} lladdr {neighbour} dev {name} nud permanent"));
    }
}

/// The prefix that holds one host.
fn host(address: &str) -> String {
    match address.parse() {
        Ok(IpAddr::V4(_)) => format!("{address}/32"),
        _ => format!("{address}/128"),
    }
}
