//! Who is there: addresses, and what the kernel knows of the way to each.

use crate::packet::{Mac, Packet, packet};

/// The router that clients are behind.
pub const ROUTER: Mac = Mac([2, 0, 0, 0, 0x11, 2]);
/// The balancer, on the router's side.
pub const WAN: Mac = Mac([2, 0, 0, 0, 0x11, 1]);
/// The balancer, on the backends' side.
pub const LAN: Mac = Mac([2, 0, 0, 0, 0x21, 1]);

/// The interface that every frame comes in by: `BPF_PROG_TEST_RUN` takes the loopback of its namespace.
pub const INGRESS_INDEX: u32 = 1;
/// The interface towards the router.
pub const WAN_INDEX: u32 = 11;
/// The interface towards the backends.
pub const LAN_INDEX: u32 = 21;
/// A VLAN interface: one tag, over the interface that frames come in by.
pub const TAGGED_INDEX: u32 = 31;
/// A VLAN interface over another: two tags, over the interface towards the router.
pub const QINQ_INDEX: u32 = 41;

/// A backend's link-layer address; counted from 0.
#[must_use]
pub const fn backend_mac(index: usize) -> Mac {
    Mac([2, 0, 0, 0, 0x22, index as u8 + 1])
}

/// The hosts of one address family. The last part of an address says what the kernel knows of the way there.
#[derive(Clone, Copy, Debug)]
pub struct Hosts {
    /// The client that most cases are about.
    pub client: &'static str,
    /// The virtual address.
    pub vip: &'static str,
    /// Another one.
    pub other_vip: &'static str,
    /// Backends.
    pub backends: [&'static str; 4],
    /// Addresses of source pools.
    pub pool: [&'static str; 2],
    /// A router between the balancer and somebody.
    pub router: &'static str,
    /// Neither a virtual address nor a backend.
    pub stranger: &'static str,
    /// Clients that the kernel knows something special about.
    pub clients: Special,
    /// Backends that the kernel knows something special about.
    pub special_backends: Special,
    /// Bytes of an IP header without options or extensions.
    pub header: usize,
    /// How much of a packet an ICMP error quotes at most.
    pub max_quote: usize,
}

/// Destinations by what the kernel's routing table says of them.
#[derive(Clone, Copy, Debug)]
pub struct Special {
    /// On a link, but with an unknown neighbour.
    pub unknown_neighbour: &'static str,
    /// Blackhole.
    pub blackhole: &'static str,
    /// Unreachable.
    pub unreachable: &'static str,
    /// Prohibited.
    pub prohibited: &'static str,
    /// The balancer's own host.
    pub local: &'static str,
    /// By way of [`TAGGED_INDEX`].
    pub tagged: &'static str,
    /// By way of [`QINQ_INDEX`].
    pub double_tagged: &'static str,
    /// By a route with an MTU of 1280.
    pub narrow: &'static str,
}

/// IPv4.
pub const V4: Hosts = Hosts {
    client: "10.1.0.7",
    vip: "10.0.0.100",
    other_vip: "10.0.0.101",
    backends: ["10.2.0.1", "10.2.0.2", "10.2.0.3", "10.2.0.4"],
    pool: ["10.2.0.200", "10.2.0.201"],
    router: "172.16.0.1",
    stranger: "10.3.0.9",
    clients: Special {
        unknown_neighbour: "10.1.0.50",
        blackhole: "10.1.0.51",
        unreachable: "10.1.0.52",
        prohibited: "10.1.0.53",
        local: "10.1.0.54",
        tagged: "10.1.0.60",
        double_tagged: "10.1.0.61",
        narrow: "10.1.0.62",
    },
    special_backends: Special {
        unknown_neighbour: "10.2.0.50",
        blackhole: "10.2.0.51",
        unreachable: "10.2.0.52",
        prohibited: "10.2.0.53",
        local: "10.2.0.54",
        tagged: "10.2.0.60",
        double_tagged: "10.2.0.61",
        narrow: "10.2.0.62",
    },
    header: 20,
    max_quote: 548,
};

/// IPv6.
pub const V6: Hosts = Hosts {
    client: "fd00:1::7",
    vip: "fd00::100",
    other_vip: "fd00::101",
    backends: ["fd00:2::1", "fd00:2::2", "fd00:2::3", "fd00:2::4"],
    pool: ["fd00:2::200", "fd00:2::201"],
    router: "fd00:16::1",
    stranger: "fd00:3::9",
    clients: Special {
        unknown_neighbour: "fd00:1::50",
        blackhole: "fd00:1::51",
        unreachable: "fd00:1::52",
        prohibited: "fd00:1::53",
        local: "fd00:1::54",
        tagged: "fd00:1::60",
        double_tagged: "fd00:1::61",
        narrow: "fd00:1::62",
    },
    special_backends: Special {
        unknown_neighbour: "fd00:2::50",
        blackhole: "fd00:2::51",
        unreachable: "fd00:2::52",
        prohibited: "fd00:2::53",
        local: "fd00:2::54",
        tagged: "fd00:2::60",
        double_tagged: "fd00:2::61",
        narrow: "fd00:2::62",
    },
    header: 40,
    max_quote: 1232,
};

/// Both families: most cases are the same for either.
pub const FAMILIES: [Hosts; 2] = [V4, V6];

impl Hosts {
    /// Whether these are IPv6's.
    #[must_use]
    pub const fn is_v6(&self) -> bool {
        self.header == 40
    }

    /// A packet from the client to the virtual address, as it comes from the router.
    #[must_use]
    pub fn to_vip(&self) -> Packet {
        packet().eth(ROUTER, WAN).ip(self.client, self.vip)
    }

    /// The same as the first backend gets it.
    #[must_use]
    pub fn to_backend(&self) -> Packet {
        packet().eth(LAN, backend_mac(0)).ip(self.client, self.backends[0]).ttl(63)
    }

    /// A packet from the first backend to the client, as it comes in.
    #[must_use]
    pub fn from_backend(&self) -> Packet {
        packet().eth(backend_mac(0), LAN).ip(self.backends[0], self.client)
    }

    /// The same as the client's router gets it.
    #[must_use]
    pub fn from_vip(&self) -> Packet {
        packet().eth(WAN, ROUTER).ip(self.vip, self.client).ttl(63)
    }

    /// What the balancer itself answers to the client's router.
    #[must_use]
    pub fn answer(&self) -> Packet {
        packet().eth(WAN, ROUTER).ip(self.vip, self.client)
    }
}
