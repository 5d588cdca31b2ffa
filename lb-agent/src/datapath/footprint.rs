//! What the tables of a configuration take of the kernel's memory.

use lb_common::atomic::Word;
use lb_common::backend::{Backend, Load};
use lb_common::counters::{IcmpBudget, Outcomes, Traffic};
use lb_common::directory::Bucket;
use lb_common::flow::{Bucket4, Bucket6};
use lb_common::fragment::FragmentKey;
use lb_common::latency::ConnectTimes;
use lb_common::limit::SourceLine;
use lb_common::link::Link;
use lb_common::maps;
use lb_common::next_hop::NextHop;
use lb_common::port::{PoolAddress, Port};
use lb_common::service::{Service, ServiceState};
use lb_common::settings::Settings;
use lb_common::slot::SlotLine;
use lb_common::syn::SynRow;

use super::arrays::Sizes;
use crate::config::Limits;

/// Bytes of each table, by the table's name, that these limits ask for on a machine with so many CPUs.
pub fn footprint(limits: &Limits, cpus: u32) -> Vec<(&'static str, u64)> {
    let rows = Sizes::of_limits(limits, cpus).rows();
    rows.into_iter().map(|(map, rows)| (map, u64::from(rows) * row_bytes(map).unwrap_or(0))).collect()
}

/// What a kernel hash table takes for an entry beside key and value: `struct htab_elem`, and its bucket.
const HASH_ENTRY: usize = 48 + 16;

/// Bytes of a row, as the kernel lays it out. Memory of the prefixes is taken as they come, and is not foreseen.
fn row_bytes(map: &str) -> Option<u64> {
    let bytes = match map {
        maps::SETTINGS => size_of::<Settings>(),
        maps::DIRECTORY => size_of::<Bucket>(),
        maps::SERVICES => size_of::<Service>(),
        maps::BACKENDS => size_of::<Backend>(),
        maps::SERVICE_STATES => size_of::<ServiceState>(),
        maps::LOADS => size_of::<Load>(),
        maps::SLOTS => size_of::<SlotLine>(),
        maps::FLOWS4 => size_of::<Bucket4>(),
        maps::FLOWS6 => size_of::<Bucket6>(),
        maps::CLIENT_HOPS => size_of::<Word>(),
        maps::NEXT_HOPS => size_of::<NextHop>(),
        maps::POOL_ADDRESSES => size_of::<PoolAddress>(),
        maps::PORTS => size_of::<Port>(),
        maps::OUTCOMES => size_of::<Outcomes>(),
        maps::TRAFFIC => size_of::<Traffic>(),
        maps::CONNECT_TIMES => size_of::<ConnectTimes>(),
        maps::ICMP_BUDGET => size_of::<IcmpBudget>(),
        maps::SYNS => size_of::<SynRow>(),
        maps::SOURCES => size_of::<SourceLine>(),
        maps::PREFIXES => 0,
        maps::FRAGMENTS => HASH_ENTRY + size_of::<FragmentKey>() + size_of::<u64>(),
        maps::LINKS => HASH_ENTRY + size_of::<u64>() + size_of::<Link>(),
        _ => return None,
    };
    Some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_counted() {
        for map in maps::PINNED {
            assert!(row_bytes(map).is_some(), "{map}: say what a row of it takes");
        }
    }

    #[test]
    fn a_flow_takes_what_the_design_says() {
        let bytes = |limits: &Limits| footprint(limits, 2).iter().map(|(_, bytes)| bytes).sum::<u64>();
        let limits = Limits::default();
        let more = Limits { flows: limits.flows + 1_000_000, ..Limits::default() };
        // 32 bytes an IPv4 flow, and 16 for the quarter as many of IPv6 that come with it.
        assert_eq!(bytes(&more) - bytes(&limits), 48_000_000);
    }
}
