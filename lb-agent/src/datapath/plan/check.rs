//! What no state of the data plane could stand for.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{bail, ensure};
use lb_common::backend::MAX_SIBLINGS;

use crate::datapath::Wanted;
use crate::datapath::identity::Endpoint;

/// Refuses what no state of the data plane could stand for.
pub(crate) fn check(wanted: &Wanted) -> anyhow::Result<()> {
    let mut services = BTreeMap::new();
    let mut endpoints: BTreeMap<Endpoint, usize> = BTreeMap::new();
    for service in &wanted.services {
        let vip = Endpoint::new(service.vip, service.protocol);
        if let Some(other) = services.insert(vip, &service.name) {
            bail!("service {}: {vip} is already service {other}'s", service.name);
        }
        for source in &service.source_pool {
            ensure!(
                source.is_ipv4() == service.vip.is_ipv4(),
                "source address {source} of service {}: not of the same address family as {}",
                service.name,
                service.vip
            );
            ensure!(
                !wanted.services.iter().any(|service| service.vip.ip() == *source),
                "source address {source} of service {}: it is a virtual address",
                service.name
            );
        }
        let mut own = BTreeSet::new();
        for backend in &service.backends {
            let (name, address) = (&service.name, backend.address);
            ensure!(
                address.is_ipv4() == service.vip.is_ipv4(),
                "backend {address} of service {name}: not of the same address family as {}",
                service.vip
            );
            ensure!(own.insert(address), "backend {address} of service {name}: listed twice");
            let shared = endpoints.entry(Endpoint::new(address, service.protocol)).or_default();
            *shared += 1;
            ensure!(
                *shared <= MAX_SIBLINGS,
                "backend {address} of service {name}: already serves {MAX_SIBLINGS} services, as many as one can"
            );
        }
    }
    if let Some((clash, name)) = services.iter().find(|(vip, _)| endpoints.contains_key(vip)) {
        bail!("service {name}: {clash} is also a backend's address");
    }
    Ok(())
}
