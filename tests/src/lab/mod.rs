//! What a balancer's tables are to hold: described once, filled in alike on the host and in the kernel.

mod fill;
mod routes;

use fill::JIFFIES_PER_SECOND;
pub use fill::Rows;
pub use routes::{LINKS, default_route, routes, script};

use std::net::IpAddr;

use lb_common::address::{Address, Be16, Protocol};
use lb_common::limit::Limit;
use lb_common::next_hop::{Hop, Tag};
use lb_common::prefix::{ALLOW, DENY, PrefixKey};
use lb_common::service::{Index, OnNoBackend, Options};
use lb_common::slot::Owners;

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

/// The generation of every service's prefix lists: any.
const LIST: u16 = 0xa55a;

/// The tables of a balancer.
#[derive(Clone, Debug)]
pub struct Lab {
    services: Vec<Service>,
    icmp_errors_per_second: u32,
    flow_buckets: u32,
}

impl Lab {
    /// No service yet; room for a few hundred flows.
    #[must_use]
    pub const fn new() -> Self {
        Self { services: Vec::new(), icmp_errors_per_second: 1000, flow_buckets: 64 }
    }

    /// A TCP and a UDP service at port 80 of the family's virtual address, with the first backend at port 8080.
    #[must_use]
    pub fn web(hosts: Hosts) -> Self {
        let backend = Backend::at(hosts.backends[0], 8080);
        let tcp = Service::tcp(hosts.vip, 80).backend(backend.clone());
        Self::new().service(tcp).service(Service::udp(hosts.vip, 80).backend(backend))
    }

    /// With a further service. Identifiers are given in this order, from 1 on; its backends' likewise, counted
    /// through all services.
    #[must_use]
    pub fn service(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }

    /// With so many ICMP errors of its own a second.
    #[must_use]
    pub const fn icmp_errors(mut self, per_second: u32) -> Self {
        self.icmp_errors_per_second = per_second;
        self
    }

    /// With so many buckets of flows for each family.
    #[must_use]
    pub const fn flow_buckets(mut self, buckets: u32) -> Self {
        self.flow_buckets = buckets;
        self
    }

    /// The services, in the order of their identifiers.
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// Every service's prefix lists, as the trie holds them: bits of the address, key, verdict.
    pub fn prefixes(&self) -> impl Iterator<Item = (u32, PrefixKey, u32)> {
        self.services.iter().zip(1..).flat_map(|(service, id)| {
            let key = move |network: &Address| PrefixKey::new(id, LIST, network);
            service.prefixes.iter().map(move |(network, bits, verdict)| (*bits, key(network), *verdict))
        })
    }

    /// The backend with that identifier, and its service's.
    #[must_use]
    pub fn backend(&self, id: u16) -> Option<(u16, &Backend)> {
        let all = self
            .services
            .iter()
            .zip(1..)
            .flat_map(|(service, id)| service.backends.iter().map(move |backend| (id, backend)));
        all.into_iter().nth(usize::from(id).checked_sub(1)?)
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

/// A service.
#[derive(Clone, Debug)]
pub struct Service {
    vip: Address,
    port: u16,
    protocol: Protocol,
    on_no_backend: OnNoBackend,
    options: Options,
    limits: [Limit; 2],
    prefixes: Vec<(Address, u32, u32)>,
    backends: Vec<Backend>,
    slots: Option<Vec<u16>>,
    index: Index,
}

impl Service {
    fn new(vip: &str, port: u16, protocol: Protocol) -> Self {
        let (on_no_backend, options) = (OnNoBackend::Reset, Options::default().with_list(LIST));
        let (limits, prefixes) = (Default::default(), Vec::new());
        Self {
            vip: address(vip),
            port,
            protocol,
            on_no_backend,
            options,
            limits,
            prefixes,
            backends: Vec::new(),
            slots: None,
            index: Index::Flow,
        }
    }

    /// A TCP service.
    #[must_use]
    pub fn tcp(vip: &str, port: u16) -> Self {
        Self::new(vip, port, Protocol::TCP)
    }

    /// A UDP service.
    #[must_use]
    pub fn udp(vip: &str, port: u16) -> Self {
        Self::new(vip, port, Protocol::UDP)
    }

    /// Whose slots are found so.
    #[must_use]
    pub const fn by(mut self, index: Index) -> Self {
        self.index = index;
        self
    }

    /// With a further backend.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backends.push(backend);
        self
    }

    /// New flows are dropped, not refused, while there is no backend.
    #[must_use]
    pub const fn silent(mut self) -> Self {
        self.on_no_backend = OnNoBackend::Drop;
        self
    }

    /// Flows whose backend is gone are ended, not given another.
    #[must_use]
    pub const fn resetting(mut self) -> Self {
        self.options = self.options.with(Options::RESET_ON_BACKEND_DOWN);
        self
    }

    /// A client's flows follow those before them, within so many ticks.
    #[must_use]
    pub const fn sticky(mut self, ticks: u64) -> Self {
        self.options = self.options.with_affinity(ticks);
        self
    }

    /// Flows are tracked by exception, and the slots belong to these backends, by their numbers within the service.
    #[must_use]
    pub fn by_exception(mut self, owners: &[Owners]) -> Self {
        self.options = self.options.with(Options::EXCEPTIONS);
        self.slots(&owners.iter().flat_map(|owners| owners.to_elements()).collect::<Vec<_>>())
    }

    /// Takes so many new flows at once, and hardly any more during a test.
    #[must_use]
    pub const fn new_flows(mut self, burst: u32) -> Self {
        self.options = self.options.with(Options::LIMIT_SERVICE);
        self.limits[0] = Limit::new(1, burst, 0, JIFFIES_PER_SECOND);
        self
    }

    /// The same of each source, as long as that many bits of its address.
    #[must_use]
    pub fn new_flows_of_a_source(mut self, burst: u32, prefix: u8) -> Self {
        self.options = self.options.with(Options::LIMIT_SOURCE);
        self.limits[1] = Limit::new(1, burst, self.bits(prefix), JIFFIES_PER_SECOND);
        self
    }

    /// Lets nobody in but clients with this prefix, and others that are allowed.
    #[must_use]
    pub fn allow(mut self, network: &str, prefix: u8) -> Self {
        self.options = self.options.with(Options::DENY_UNLISTED);
        self.list(network, prefix, ALLOW)
    }

    /// Turns clients with this prefix away.
    #[must_use]
    pub fn deny(self, network: &str, prefix: u8) -> Self {
        self.list(network, prefix, DENY)
    }

    fn list(mut self, network: &str, prefix: u8, verdict: u32) -> Self {
        self.options = self.options.with(Options::PREFIX_LISTS);
        let bits = self.bits(prefix);
        self.prefixes.push((address(network), bits.into(), verdict));
        self
    }

    /// A prefix's length in the 128 bits of a row's address.
    const fn bits(&self, prefix: u8) -> u8 {
        if self.vip.is_v4() { 96 + prefix } else { prefix }
    }

    /// With these slots, right or wrong, instead of one for each backend that serves.
    #[must_use]
    pub fn slots(mut self, slots: &[u16]) -> Self {
        self.slots = Some(slots.to_vec());
        self
    }
}

/// A backend.
#[derive(Clone, Debug)]
pub struct Backend {
    address: Address,
    port: u16,
    serving: bool,
    draining: bool,
    way: Way,
}

/// What a backend's row knows of the way to it.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// A next hop that stays fresh.
    Fresh(Hop),
    /// A next hop that was confirmed long ago.
    Stale(Hop),
    /// Nothing.
    Unknown,
}

impl Backend {
    /// A backend on the backends' link, whose neighbour is known and stays so.
    #[must_use]
    pub fn at(address: &str, port: u16) -> Self {
        let number = address.rsplit(['.', ':']).next().and_then(|digits| digits.parse::<usize>().ok());
        let hop = lan_hop(number.unwrap_or(1) - 1);
        Self { address: self::address(address), port, serving: true, draining: false, way: Way::Fresh(hop) }
    }

    /// One that takes no traffic any more.
    #[must_use]
    pub const fn dead(mut self) -> Self {
        self.serving = false;
        self
    }

    /// One that keeps its flows and takes no new ones.
    #[must_use]
    pub const fn draining(mut self) -> Self {
        self.draining = true;
        self
    }

    /// By another next hop.
    #[must_use]
    pub const fn by(mut self, hop: Hop) -> Self {
        self.way = Way::Fresh(hop);
        self
    }

    /// By a next hop that has to be confirmed.
    #[must_use]
    pub const fn by_stale(mut self, hop: Hop) -> Self {
        self.way = Way::Stale(hop);
        self
    }

    /// The kernel has to be asked for the way.
    #[must_use]
    pub const fn unresolved(mut self) -> Self {
        self.way = Way::Unknown;
        self
    }
}

/// The next hop of a backend on the backends' link.
#[must_use]
pub const fn lan_hop(index: usize) -> Hop {
    Hop {
        ifindex: LAN_INDEX,
        mtu: 1500,
        tag_count: 0,
        destination: backend_mac(index).0,
        source: LAN.0,
        tags: [Tag { protocol: Be16::new(0), control: Be16::new(0) }; 2],
    }
}

/// Puts tags on a hop.
#[must_use]
pub const fn with_tags(hop: Hop, tags: &[(u16, u16)]) -> Hop {
    let mut hop = hop;
    let mut at = 0;
    while at < tags.len() {
        hop.tags[at] = Tag { protocol: Be16::new(tags[at].0), control: Be16::new(tags[at].1) };
        at += 1;
    }
    hop.tag_count = tags.len() as u8;
    hop
}

pub(crate) fn address(text: &str) -> Address {
    text.parse::<IpAddr>().expect("an address").into()
}
