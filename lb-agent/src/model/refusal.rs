//! Why a change is refused.

use std::net::IpAddr;

use super::endpoint::Endpoint;
use super::keyword::{Mode, Protocol};
use super::name::ServiceName;
use super::prefix::Prefix;

/// A change that cannot be made. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No service has that name.
    #[error("unknown service `{0}`: `lb-agent service list` shows those that there are")]
    UnknownService(ServiceName),
    /// The service has no such backend.
    #[error("service `{0}` has no backend {1}: `lb-agent backend list {0}` shows those that it has")]
    UnknownBackend(ServiceName, Endpoint),
    /// The name is taken.
    #[error("service `{0}` exists already: change it with `lb-agent service set`, or choose another name")]
    DuplicateService(ServiceName),
    /// The service has the backend already.
    #[error("service `{0}` has backend {1} already: change it with `lb-agent backend set`")]
    DuplicateBackend(ServiceName, Endpoint),
    /// A document has the service twice.
    #[error("service `{0}` is declared twice")]
    RepeatedService(ServiceName),
    /// A document has the backend twice within a service.
    #[error("backend {1} of service `{0}` is declared twice")]
    RepeatedBackend(ServiceName, Endpoint),
    /// Two services would answer for the same packets.
    #[error(
        "services `{3}` and `{0}` cannot both have {1}/{2}: choose another address, port or protocol for one"
    )]
    DuplicateVip(ServiceName, Endpoint, Protocol, ServiceName),
    /// Addresses are rewritten within a family only.
    #[error("service `{service}`: backend {backend} is {}, its VIP {vip} is {}: both must be of one family", backend.family(), vip.family())]
    Family {
        /// The service.
        service: ServiceName,
        /// The backend's address.
        backend: Endpoint,
        /// The service's.
        vip: Endpoint,
    },
    /// Packets would come back to the balancer.
    #[error("service `{0}`: backend {1} is a VIP, that of service `{2}`: name a server's own address")]
    BackendIsVip(ServiceName, Endpoint, ServiceName),
    /// The data plane walks the services of an endpoint, and its walk is bounded.
    #[error("service `{0}`: backend {1}/{2} serves {max} services already: give it another address or port", max = Refusal::MAX_SHARED)]
    Shared(ServiceName, Endpoint, Protocol),
    /// Clients of a service are of its VIP's family.
    #[error("service `{service}`: prefix {prefix} is {}, its VIP {vip} is {}: both must be of one family", prefix.family(), vip.family())]
    PrefixFamily {
        /// The service.
        service: ServiceName,
        /// The prefix.
        prefix: Prefix,
        /// The service's address.
        vip: Endpoint,
    },
    /// A prefix cannot be let in and turned away.
    #[error("service `{0}`: prefix {1} is allowed and denied: take it out of one of the lists")]
    PrefixTwice(ServiceName, Prefix),
    /// A limit of all flows does not tell sources apart.
    #[error(
        "service `{0}`: limit-new-flows has no prefix: it counts all sources together; limit-source counts each"
    )]
    LimitPrefix(ServiceName),
    /// IPv4 addresses have 32 bits.
    #[error("service `{0}`: limit-source with prefix={1}: the VIP {2} is IPv4, whose addresses have 32 bits")]
    SourcePrefix(ServiceName, u8, Endpoint),
    /// The trie for prefixes is full.
    #[error("{0} prefixes are more than the {max} that there is room for: aggregate some", max = lb_common::maps::MAX_PREFIXES)]
    TooManyPrefixes(usize),
    /// The table for services is full.
    #[error(
        "{0} services are more than `[limits] services = {1}`: remove some, or raise the limit in the configuration"
    )]
    TooManyServices(usize, u32),
    /// The table for backends is full.
    #[error(
        "{0} backends are more than `[limits] backends = {1}`: remove some, or raise the limit in the configuration"
    )]
    TooManyBackends(usize, u32),
    /// There is nothing to measure.
    #[error(
        "service `{0}`: `strategy = \"least-latency\"` goes by how long TCP handshakes take, and the service is udp: choose another, such as least-connections"
    )]
    NoHandshakes(ServiceName),
    /// Flows that are not remembered are found again by their hash.
    #[error("service `{0}`: `track = \"exceptions\"` cannot have {1}: {2}, or use `track = \"full\"`")]
    ByException(ServiceName, String, &'static str),
    /// Nobody knows which flows there are.
    #[error(
        "service `{0}`: {1} cannot change while the service is in use, since no flow is remembered that would have to keep its backend: remove it and add it again, or add another service"
    )]
    Fixed(ServiceName, &'static str),
    /// Full NAT needs addresses.
    #[error(
        "service `{0}`: mode full-nat needs a source pool: name addresses of this balancer with `--source-pool` or `source_pool`"
    )]
    NoSourcePool(ServiceName),
    /// Nobody would use the addresses.
    #[error(
        "service `{0}`: a source pool is for mode full-nat, its mode is {1}: set the mode, or leave the pool out"
    )]
    IdleSourcePool(ServiceName, Mode),
    /// Addresses are rewritten within a family only.
    #[error(
        "service `{0}`: source address {1} is not of the same family as its VIP {2}: both must be IPv4, or both IPv6"
    )]
    SourceFamily(ServiceName, IpAddr, Endpoint),
    /// A packet to it could be a request or a reply.
    #[error(
        "service `{0}`: source address {1} is a VIP, that of service `{2}`: choose an address that is nothing else"
    )]
    SourceIsVip(ServiceName, IpAddr, ServiceName),
    /// It belongs to a server.
    #[error(
        "service `{0}`: source address {1} is a backend's, of service `{2}`: choose an address of the balancer"
    )]
    SourceIsBackend(ServiceName, IpAddr, ServiceName),
    /// More than a service's row has room for.
    #[error("service `{0}`: {1} source addresses are more than {max}, as many as one service can have", max = super::source_pool::SourcePool::MAX)]
    TooManySources(ServiceName, usize),
    /// The table for ports is full.
    #[error(
        "{0} source addresses are more than `[limits] source_addresses = {1}`: remove some, or raise the limit in the configuration"
    )]
    TooManySourceAddresses(usize, u32),
    /// It is on its way out.
    #[error(
        "backend {1} of service `{0}` is being removed: keep it with `lb-agent backend enable {0} {1}` first"
    )]
    BeingRemoved(ServiceName, Endpoint),
}

impl Refusal {
    /// Services that one backend endpoint can serve.
    pub const MAX_SHARED: usize = lb_common::backend::MAX_SIBLINGS;
}
