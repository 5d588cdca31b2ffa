//! Who gets into a service, and how often: its prefix lists and its limits of new flows.

use std::collections::BTreeSet;

use super::endpoint::Endpoint;
use super::flow_limit::FlowLimit;
use super::name::ServiceName;
use super::prefix::Prefix;
use super::refusal::Refusal;

/// What guards a service. All of it is off by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// New flows of the service.
    pub limit_new_flows: FlowLimit,
    /// New flows of each source.
    pub limit_source: FlowLimit,
    /// Clients that get in. If there are any, nobody else does.
    pub allow: BTreeSet<Prefix>,
    /// Clients that do not. The longest prefix decides.
    pub deny: BTreeSet<Prefix>,
}

impl Guard {
    /// Bits by which the sources of an IPv4 service are told apart, and those of an IPv6 service: a host, and what a site's
    /// link has (RFC 4291 section 2.5.4), within which a host may have any address.
    const SOURCE_BITS: (u8, u8) = (32, 64);

    /// With its limit by source complete.
    pub fn for_vip(mut self, vip: Endpoint) -> Self {
        let default = if vip.ip().is_ipv4() { Self::SOURCE_BITS.0 } else { Self::SOURCE_BITS.1 };
        if let FlowLimit(Some(rate)) = &mut self.limit_source {
            rate.prefix.get_or_insert(default);
        }
        self
    }

    /// How many prefixes it has.
    pub fn prefixes(&self) -> usize {
        self.allow.len() + self.deny.len()
    }

    /// Adds prefixes to one of the lists, and takes them out of the other.
    pub fn allow(&mut self, prefixes: &[Prefix]) {
        self.deny.retain(|prefix| !prefixes.contains(prefix));
        self.allow.extend(prefixes);
    }

    /// As [`allow`](Self::allow).
    pub fn deny(&mut self, prefixes: &[Prefix]) {
        self.allow.retain(|prefix| !prefixes.contains(prefix));
        self.deny.extend(prefixes);
    }

    /// Takes prefixes out of whichever list has them.
    pub fn unlist(&mut self, prefixes: &[Prefix]) {
        self.allow.retain(|prefix| !prefixes.contains(prefix));
        self.deny.retain(|prefix| !prefixes.contains(prefix));
    }

    /// Checks it for a service at that address.
    ///
    /// # Errors
    /// Where a prefix is of the wrong family or on both lists, or a limit has what it cannot have.
    pub fn validate(&self, service: &ServiceName, vip: Endpoint) -> Result<(), Refusal> {
        let foreign = self
            .allow
            .iter()
            .chain(&self.deny)
            .find(|prefix| prefix.network().is_ipv4() != vip.ip().is_ipv4());
        if let Some(prefix) = foreign {
            return Err(Refusal::PrefixFamily { service: service.clone(), prefix: *prefix, vip });
        }
        if let Some(prefix) = self.allow.intersection(&self.deny).next() {
            return Err(Refusal::PrefixTwice(service.clone(), *prefix));
        }
        if self.limit_new_flows.0.is_some_and(|rate| rate.prefix.is_some()) {
            return Err(Refusal::LimitPrefix(service.clone()));
        }
        let bits = self.limit_source.0.and_then(|rate| rate.prefix);
        match bits.filter(|bits| vip.ip().is_ipv4() && *bits > 32) {
            Some(bits) => Err(Refusal::SourcePrefix(service.clone(), bits, vip)),
            None => Ok(()),
        }
    }
}
