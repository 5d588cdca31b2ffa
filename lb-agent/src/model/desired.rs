//! The whole desired state, and what must hold for it as a whole.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use super::affinity::Affinity;
use super::endpoint::Endpoint;
use super::keyword::{Mode, OnBackendDown, Protocol, Retry, Strategy, Track};
use super::name::ServiceName;
use super::refusal::Refusal;
use super::service::Service;
use super::source_pool::SourcePool;
use crate::config::Limits;

/// Every service, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The services.
    pub services: BTreeMap<ServiceName, Service>,
}

impl Desired {
    /// The service of that name.
    pub fn service(&self, name: &ServiceName) -> Result<&Service, Refusal> {
        self.services.get(name).ok_or_else(|| Refusal::UnknownService(name.clone()))
    }

    /// The service of that name, to be changed.
    pub fn service_mut(&mut self, name: &ServiceName) -> Result<&mut Service, Refusal> {
        self.services.get_mut(name).ok_or_else(|| Refusal::UnknownService(name.clone()))
    }

    /// How many backends there are, over all services.
    pub fn backend_count(&self) -> usize {
        self.services.values().map(|service| service.endpoints().count()).sum()
    }

    /// Checks what concerns more than one object.
    ///
    /// # Errors
    /// The first thing that is wrong, in the order of the services' names.
    pub fn validate(&self, limits: &Limits) -> Result<(), Refusal> {
        self.validate_limits(limits)?;
        let vips = self.validate_vips()?;
        self.validate_pools(&vips, limits)?;
        let mut sharing: HashMap<(Endpoint, Protocol), usize> = HashMap::new();
        for service in self.services.values() {
            validate_track(service)?;
            if service.strategy == Strategy::LeastLatency && service.protocol == Protocol::Udp {
                return Err(Refusal::NoHandshakes(service.name.clone()));
            }
            service.guard.validate(&service.name, service.vip)?;
            for endpoint in service.endpoints() {
                validate_backend(service, endpoint, &vips)?;
                let services = sharing.entry((endpoint, service.protocol)).or_default();
                *services += 1;
                if *services > Refusal::MAX_SHARED {
                    return Err(Refusal::Shared(service.name.clone(), endpoint, service.protocol));
                }
            }
        }
        for service in self.services.values().filter(|service| service.track == Track::Exceptions) {
            let shared = service.endpoints().find(|endpoint| sharing[&(*endpoint, service.protocol)] > 1);
            if let Some(endpoint) = shared {
                let what = format!("backend {endpoint}, which serves another service too");
                let way = "give it another port for this one";
                return Err(Refusal::ByException(service.name.clone(), what, way));
            }
        }
        Ok(())
    }

    /// The addresses that stand for clients, over all services.
    pub fn source_addresses(&self) -> BTreeSet<IpAddr> {
        self.services.values().flat_map(|service| service.source_pool.iter()).collect()
    }

    fn validate_pools(&self, vips: &HashMap<IpAddr, &ServiceName>, limits: &Limits) -> Result<(), Refusal> {
        let servers: HashMap<IpAddr, &ServiceName> = self
            .services
            .values()
            .flat_map(|service| service.endpoints().map(move |endpoint| (endpoint.ip(), &service.name)))
            .collect();
        for service in self.services.values() {
            validate_pool(service, vips, &servers)?;
        }
        let count = self.source_addresses().len();
        match count > limits.source_addresses as usize {
            true => Err(Refusal::TooManySourceAddresses(count, limits.source_addresses)),
            false => Ok(()),
        }
    }

    fn validate_limits(&self, limits: &Limits) -> Result<(), Refusal> {
        let (services, backends) = (self.services.len(), self.backend_count());
        if services > limits.services as usize {
            return Err(Refusal::TooManyServices(services, limits.services));
        }
        let prefixes = self.services.values().map(|service| service.guard.prefixes()).sum();
        if prefixes > lb_common::maps::MAX_PREFIXES as usize {
            return Err(Refusal::TooManyPrefixes(prefixes));
        }
        if backends > limits.backends as usize {
            return Err(Refusal::TooManyBackends(backends, limits.backends));
        }
        Ok(())
    }

    /// The virtual addresses with the first service that has each.
    fn validate_vips(&self) -> Result<HashMap<IpAddr, &ServiceName>, Refusal> {
        let mut taken: HashMap<(Endpoint, Protocol), &ServiceName> = HashMap::new();
        let mut addresses = HashMap::new();
        for service in self.services.values() {
            addresses.entry(service.vip.ip()).or_insert(&service.name);
            if let Some(other) = taken.insert((service.vip, service.protocol), &service.name) {
                let (name, vip) = (service.name.clone(), service.vip);
                return Err(Refusal::DuplicateVip(name, vip, service.protocol, other.clone()));
            }
        }
        Ok(addresses)
    }
}

/// What cannot be had where most flows are not remembered.
fn validate_track(service: &Service) -> Result<(), Refusal> {
    let refused = |what: &str, way| Err(Refusal::ByException(service.name.clone(), what.to_owned(), way));
    match service.track {
        Track::Full => Ok(()),
        Track::Exceptions if service.on_backend_down == OnBackendDown::Reset => {
            refused("`on-backend-down = \"reset\"`", "set it to \"rebalance\"")
        }
        Track::Exceptions if service.retry == Retry::On => refused("`retry = \"on\"`", "set it to \"off\""),
        Track::Exceptions if service.affinity != Affinity::default() => {
            let what = format!("`affinity = \"{}\"`", service.affinity);
            refused(&what, "set it to \"off\", or choose source-hash")
        }
        Track::Exceptions
            if service.guard.limit_new_flows.0.is_some() || service.guard.limit_source.0.is_some() =>
        {
            refused("a limit of new flows", "set limit-new-flows and limit-source to \"none\"")
        }
        Track::Exceptions if !service.strategy.is_hash() => {
            let what = format!("`strategy = \"{}\"`", service.strategy);
            refused(&what, "choose maglev, consistent-hash or source-hash")
        }
        Track::Exceptions if service.mode == Mode::FullNat => {
            refused("`mode = \"full-nat\"`, which needs a port for each flow", "set it to \"dnat\"")
        }
        Track::Exceptions => Ok(()),
    }
}

fn validate_pool(
    service: &Service,
    vips: &HashMap<IpAddr, &ServiceName>,
    servers: &HashMap<IpAddr, &ServiceName>,
) -> Result<(), Refusal> {
    let (name, pool) = (|| service.name.clone(), &service.source_pool);
    match (service.mode, pool.is_empty()) {
        (Mode::FullNat, true) => return Err(Refusal::NoSourcePool(name())),
        (mode, false) if mode != Mode::FullNat => return Err(Refusal::IdleSourcePool(name(), mode)),
        _ => {}
    }
    if pool.len() > SourcePool::MAX {
        return Err(Refusal::TooManySources(name(), pool.len()));
    }
    for address in pool.iter() {
        if address.is_ipv4() != service.vip.ip().is_ipv4() {
            return Err(Refusal::SourceFamily(name(), address, service.vip));
        }
        if let Some(owner) = vips.get(&address) {
            return Err(Refusal::SourceIsVip(name(), address, (*owner).clone()));
        }
        if let Some(owner) = servers.get(&address) {
            return Err(Refusal::SourceIsBackend(name(), address, (*owner).clone()));
        }
    }
    Ok(())
}

fn validate_backend(
    service: &Service,
    endpoint: Endpoint,
    vips: &HashMap<IpAddr, &ServiceName>,
) -> Result<(), Refusal> {
    if endpoint.ip().is_ipv4() != service.vip.ip().is_ipv4() {
        return Err(Refusal::Family { service: service.name.clone(), backend: endpoint, vip: service.vip });
    }
    match vips.get(&endpoint.ip()) {
        Some(owner) => Err(Refusal::BackendIsVip(service.name.clone(), endpoint, (*owner).clone())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::file;

    fn refusal(state: &str, limits: Limits) -> String {
        file::parse(state, "state").unwrap().validate(&limits).unwrap_err().to_string()
    }

    fn service(name: &str, vip: &str, backends: &[&str]) -> String {
        let backends: String = backends
            .iter()
            .map(|address| format!("[[service.backend]]\naddress = \"{address}\"\n"))
            .collect();
        format!("[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\n{backends}")
    }

    #[test]
    fn two_services_cannot_have_one_vip_and_protocol() {
        let state = service("a", "10.0.0.1:80", &[]) + &service("b", "10.0.0.1:80", &[]);
        assert_eq!(
            refusal(&state, Limits::default()),
            "services `a` and `b` cannot both have 10.0.0.1:80/tcp: choose another address, port or protocol for one"
        );
        let state =
            service("a", "10.0.0.1:80", &[]) + &service("b", "10.0.0.1:80", &[]) + "protocol = \"udp\"\n";
        assert_eq!(file::parse(&state, "state").unwrap().validate(&Limits::default()), Ok(()));
    }

    #[test]
    fn a_backend_is_of_its_vips_family() {
        assert_eq!(
            refusal(&service("a", "10.0.0.1:80", &["[fd00::2]:80"]), Limits::default()),
            "service `a`: backend [fd00::2]:80 is IPv6, its VIP 10.0.0.1:80 is IPv4: both must be of one family"
        );
    }

    #[test]
    fn guards_are_checked_against_the_vip() {
        let state = |key: &str| service("a", "10.0.0.1:80", &[]) + key + "\n";
        for (key, message) in [
            (
                "deny = [\"fd00::/8\"]",
                "service `a`: prefix fd00::/8 is IPv6, its VIP 10.0.0.1:80 is IPv4: both must be of one family",
            ),
            (
                "allow = [\"10.0.0.0/8\"]\ndeny = [\"10.0.0.0/8\"]",
                "service `a`: prefix 10.0.0.0/8 is allowed and denied: take it out of one of the lists",
            ),
            (
                "limit-new-flows = \"10/s,prefix=24\"",
                "service `a`: limit-new-flows has no prefix: it counts all sources together; limit-source counts each",
            ),
            (
                "limit-source = \"10/s,prefix=64\"",
                "service `a`: limit-source with prefix=64: the VIP 10.0.0.1:80 is IPv4, whose addresses have 32 bits",
            ),
        ] {
            assert_eq!(refusal(&state(key), Limits::default()), message);
        }
    }

    #[test]
    fn a_backend_is_no_vip_on_whatever_port() {
        let state = service("a", "10.0.0.1:80", &["10.0.0.2:8080"]) + &service("b", "10.0.0.2:443", &[]);
        assert_eq!(
            refusal(&state, Limits::default()),
            "service `a`: backend 10.0.0.2:8080 is a VIP, that of service `b`: name a server's own address"
        );
    }

    fn full_nat(name: &str, vip: &str, pool: &str) -> String {
        format!(
            "[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nmode = \"full-nat\"\nsource_pool = [{pool}]\n"
        )
    }

    #[test]
    fn each_bad_source_pool_has_its_message() {
        let fine = full_nat("a", "10.0.0.1:80", "\"10.0.1.5\"");
        assert_eq!(file::parse(&fine, "state").unwrap().validate(&Limits::default()), Ok(()));
        let many: Vec<_> = (1..=17).map(|n| format!("\"10.0.2.{n}\"")).collect();
        let cases = [
            (
                full_nat("a", "10.0.0.1:80", ""),
                "service `a`: mode full-nat needs a source pool: name addresses of this balancer with `--source-pool` or `source_pool`",
            ),
            (
                fine.replace("full-nat", "dnat"),
                "service `a`: a source pool is for mode full-nat, its mode is dnat: set the mode, or leave the pool out",
            ),
            (
                full_nat("a", "10.0.0.1:80", "\"fd00::5\""),
                "service `a`: source address fd00::5 is not of the same family as its VIP 10.0.0.1:80: both must be IPv4, or both IPv6",
            ),
            (
                full_nat("a", "10.0.0.1:80", "\"10.0.0.2\"") + &service("b", "10.0.0.2:443", &[]),
                "service `a`: source address 10.0.0.2 is a VIP, that of service `b`: choose an address that is nothing else",
            ),
            (
                fine.clone() + &service("b", "10.0.0.2:443", &["10.0.1.5:80"]),
                "service `a`: source address 10.0.1.5 is a backend's, of service `b`: choose an address of the balancer",
            ),
            (
                full_nat("a", "10.0.0.1:80", &many.join(", ")),
                "service `a`: 17 source addresses are more than 16, as many as one service can have",
            ),
        ];
        for (state, message) in cases {
            assert_eq!(refusal(&state, Limits::default()), message);
        }
        let two = fine + &full_nat("b", "10.0.0.1:81", "\"10.0.1.6\"");
        assert_eq!(
            refusal(&two, Limits { source_addresses: 1, ..Limits::default() }),
            "2 source addresses are more than `[limits] source_addresses = 1`: remove some, or raise the limit in the configuration"
        );
    }

    #[test]
    fn full_nat_cannot_track_by_exception() {
        let state = full_nat("a", "10.0.0.1:80", "\"10.0.1.5\"");
        assert_eq!(
            refusal(&(state.clone() + "track = \"exceptions\"\n"), Limits::default()),
            "service `a`: `track = \"exceptions\"` cannot have `mode = \"full-nat\"`, which needs a port for each flow: set it to \"dnat\", or use `track = \"full\"`"
        );
        let state = state + "track = \"full\"\n";
        assert_eq!(file::parse(&state, "state").unwrap().validate(&Limits::default()), Ok(()));
    }

    #[test]
    fn limits_are_named_with_their_key() {
        let state = service("a", "10.0.0.1:80", &["10.0.1.1:80", "10.0.1.2:80"]);
        assert_eq!(
            refusal(&state, Limits { backends: 1, ..Limits::default() }),
            "2 backends are more than `[limits] backends = 1`: remove some, or raise the limit in the configuration"
        );
        let state = state + &service("b", "10.0.0.1:81", &[]);
        assert_eq!(
            refusal(&state, Limits { services: 1, ..Limits::default() }),
            "2 services are more than `[limits] services = 1`: remove some, or raise the limit in the configuration"
        );
    }

    #[test]
    fn least_latency_is_for_tcp() {
        let state = service("a", "10.0.0.1:80", &[]) + "protocol = \"udp\"\nstrategy = \"least-latency\"\n";
        assert_eq!(
            refusal(&state, Limits::default()),
            "service `a`: `strategy = \"least-latency\"` goes by how long TCP handshakes take, and the service is udp: choose another, such as least-connections"
        );
    }

    #[test]
    fn affinity_and_tracking_by_exception_exclude_each_other() {
        let state = service("a", "10.0.0.1:80", &[]) + "track = \"exceptions\"\naffinity = \"10m\"\n";
        assert_eq!(
            refusal(&state, Limits::default()),
            "service `a`: `track = \"exceptions\"` cannot have `affinity = \"10m\"`: set it to \"off\", or choose source-hash, or use `track = \"full\"`"
        );
    }

    #[test]
    fn an_endpoint_serves_eight_services_at_most() {
        let state: String =
            (1..=9).map(|n| service(&format!("s{n}"), &format!("10.0.0.1:{n}"), &["10.0.1.1:80"])).collect();
        assert_eq!(
            refusal(&state, Limits::default()),
            "service `s9`: backend 10.0.1.1:80/tcp serves 8 services already: give it another address or port"
        );
    }
}
