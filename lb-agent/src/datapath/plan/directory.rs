//! What the directory lists: services and backends' endpoints, the addresses of either, and source pools' addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_common::directory::{Bucket, Kind, Listing, build};
use lb_common::{Be16, Protocol};

use crate::datapath::identity::Endpoint;

/// Builds a half: its key and its buckets.
///
/// `backends` yields every backend row with its endpoint; the lowest identifier of an endpoint is its chain's first.
pub(crate) fn half(
    services: &BTreeMap<Endpoint, u16>,
    sources: &BTreeMap<IpAddr, u8>,
    backends: impl Iterator<Item = (u16, Endpoint)>,
    buckets: u32,
) -> anyhow::Result<(u64, Vec<Bucket>, usize)> {
    let mut listings: Vec<_> =
        services.iter().map(|(endpoint, &id)| listing(endpoint, Kind::Service, id)).collect();
    let mut addresses = BTreeSet::new();
    for (service, &id) in services {
        if addresses.insert(service.address) {
            let key = Endpoint { port: Be16(0), protocol: Protocol(0), ..*service };
            listings.push(listing(&key, Kind::Vip, id));
        }
    }
    for (&source, &number) in sources {
        // One that becomes a virtual address is listed as that: it is about to be no source any more.
        if addresses.insert(source.into()) {
            let key = Endpoint { address: source.into(), port: Be16(0), protocol: Protocol(0) };
            listings.push(listing(&key, Kind::Pool, number.into()));
        }
    }
    let mut first: BTreeMap<Endpoint, u16> = BTreeMap::new();
    let mut hosts: BTreeMap<Endpoint, u16> = BTreeMap::new();
    for (id, endpoint) in backends {
        let host = Endpoint { port: Be16(0), ..endpoint };
        for (key, lowest) in [(endpoint, &mut first), (host, &mut hosts)] {
            lowest.entry(key).and_modify(|lowest| *lowest = id.min(*lowest)).or_insert(id);
        }
    }
    if let Some(clash) = first.keys().find(|endpoint| services.contains_key(endpoint)) {
        anyhow::bail!(
            "{clash} is a service's virtual address and a backend's at once: remove the one before the other is added"
        );
    }
    listings.extend(first.iter().map(|(endpoint, &id)| listing(endpoint, Kind::Backend, id)));
    listings.extend(hosts.iter().map(|(host, &id)| listing(host, Kind::Host, id)));
    let entries = listings.len();
    let (key, buckets) = build(&listings, buckets).ok_or_else(|| {
        anyhow::anyhow!(
            "no key found under which {entries} entries fit into the directory's {buckets} buckets"
        )
    })?;
    Ok((key, buckets, entries))
}

fn listing(endpoint: &Endpoint, kind: Kind, id: u16) -> Listing {
    Listing { address: endpoint.address, port: endpoint.port, protocol: endpoint.protocol, kind, id }
}
