//! What a balancer's tables are to hold: described once, filled in alike on the host and in the kernel.

mod fill;
mod hosts;
mod routes;
mod service;

pub use fill::Rows;
pub use hosts::{
    FAMILIES, Hosts, INGRESS_INDEX, LAN, LAN_INDEX, QINQ_INDEX, ROUTER, Special, TAGGED_INDEX, V4, V6, WAN,
    WAN_INDEX, backend_mac,
};
pub use routes::{LINKS, default_route, routes, script};
pub(crate) use service::address;
pub use service::{Backend, Service, lan_hop, with_tags};

use lb_common::address::Address;
use lb_common::prefix::PrefixKey;
use service::{LIST, Way};

/// The tables of a balancer.
#[derive(Clone, Debug)]
pub struct Lab {
    services: Vec<Service>,
    icmp_errors_per_second: u32,
    flow_buckets: u32,
    pool_ports: u32,
}

/// The first port of source pools.
pub const FIRST_POOL_PORT: u16 = 20_000;
/// Ports of an address of a source pool at most.
pub const MOST_POOL_PORTS: u32 = 64;
/// Addresses of the source pools at most.
pub const MOST_POOL_ADDRESSES: u32 = 8;

impl Lab {
    /// No service yet; room for a few hundred flows.
    #[must_use]
    pub const fn new() -> Self {
        Self { services: Vec::new(), icmp_errors_per_second: 1000, flow_buckets: 64, pool_ports: 1 }
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

    /// With so many ports of each address of source pools. One is what is there otherwise: everybody's port is known then.
    #[must_use]
    pub const fn pool_ports(mut self, ports: u32) -> Self {
        self.pool_ports = ports;
        self
    }

    /// The addresses of source pools, in the order of their numbers.
    fn pool_addresses(&self) -> Vec<Address> {
        let mut addresses = Vec::new();
        for address in self.services.iter().flat_map(|service| &service.pool) {
            if !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        addresses
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
