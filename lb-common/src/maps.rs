//! Names and sizes of the maps: the only place.

use crate::next_hop;
use crate::slot;

/// [`crate::settings::Settings`], one row.
pub const SETTINGS: &str = "SETTINGS";
/// [`crate::directory::Bucket`]s, two halves.
pub const DIRECTORY: &str = "DIRECTORY";
/// [`crate::service::Service`]s by identifier.
pub const SERVICES: &str = "SERVICES";
/// [`crate::backend::Backend`]s by identifier; 0 is nobody.
pub const BACKENDS: &str = "BACKENDS";
/// [`crate::service::ServiceState`]s by service.
pub const SERVICE_STATES: &str = "SERVICE_STATES";
/// [`crate::backend::Load`]s by backend.
pub const LOADS: &str = "LOADS";
/// [`crate::slot::SlotLine`]s: every service's table.
pub const SLOTS: &str = "SLOTS";
/// [`crate::flow::Bucket4`]s.
pub const FLOWS4: &str = "FLOWS4";
/// [`crate::flow::Bucket6`]es.
pub const FLOWS6: &str = "FLOWS6";
/// Words that remember the next hop of a client whose flow has no entry: the client in the upper bits, the next hop
/// in the lower twelve.
pub const CLIENT_HOPS: &str = "CLIENT_HOPS";
/// [`crate::next_hop::NextHop`]s.
pub const NEXT_HOPS: &str = "NEXT_HOPS";
/// [`crate::port::PoolAddress`]es: those of all source pools together.
pub const POOL_ADDRESSES: &str = "POOL_ADDRESSES";
/// [`crate::port::Port`]s: address by address, as many as [`crate::settings::Settings::pool_ports`] for each.
pub const PORTS: &str = "PORTS";
/// [`crate::counters::Outcomes`], a row for each CPU.
pub const OUTCOMES: &str = "OUTCOMES";
/// [`crate::counters::Traffic`], a row for each CPU and backend.
pub const TRAFFIC: &str = "TRAFFIC";
/// [`crate::latency::ConnectTimes`], a row for each CPU and backend.
pub const CONNECT_TIMES: &str = "CONNECT_TIMES";
/// [`crate::counters::IcmpBudget`], a row for each CPU.
pub const ICMP_BUDGET: &str = "ICMP_BUDGET";
/// [`crate::syn::SynRow`]s, by hash of a flow.
pub const SYNS: &str = "SYNS";
/// [`crate::limit::SourceLine`]s, by hash.
pub const SOURCES: &str = "SOURCES";
/// Allow and deny by [`crate::prefix::PrefixKey`]: a longest-prefix-match trie.
pub const PREFIXES: &str = "PREFIXES";
/// Ports by [`crate::fragment::FragmentKey`]: a kernel LRU hash, off the common path.
pub const FRAGMENTS: &str = "FRAGMENTS";
/// [`crate::link::Link`]s by interface index.
pub const LINKS: &str = "LINKS";
/// The program array of the cold stages; one for each loaded program.
pub const STAGES: &str = "STAGES";

/// Program identifiers, and interface indices with [`WATCHED_INTERFACE`] set, that the tracepoint programs count for;
/// one for each loaded program.
pub const WATCHED: &str = "WATCHED";
/// Programs and interfaces that are watched at most.
pub const WATCHED_CAPACITY: u32 = 256;
/// Marks an interface's index among the keys of [`WATCHED`].
pub const WATCHED_INTERFACE: u64 = 1 << 32;

/// Maps that outlive a program: pinned by name. [`STAGES`] and [`WATCHED`] are not among them.
pub const PINNED: [&str; 22] = [
    SETTINGS,
    DIRECTORY,
    SERVICES,
    BACKENDS,
    SERVICE_STATES,
    LOADS,
    SLOTS,
    FLOWS4,
    FLOWS6,
    CLIENT_HOPS,
    NEXT_HOPS,
    POOL_ADDRESSES,
    PORTS,
    OUTCOMES,
    TRAFFIC,
    CONNECT_TIMES,
    ICMP_BUDGET,
    SYNS,
    SOURCES,
    PREFIXES,
    FRAGMENTS,
    LINKS,
];

/// SYNs that are remembered at once: 4 MiB. A power of two.
pub const SYN_CAPACITY: u32 = 1 << 16;
/// Lines of sources whose new flows are limited: room for 131,072 at once. A power of two.
pub const SOURCE_LINES: u32 = 16_384;
/// Prefixes that the trie has room for; memory is taken as they come.
pub const PREFIX_CAPACITY: u32 = 1 << 20;
/// Prefixes over all services: a list is written beside the one that it replaces.
pub const MAX_PREFIXES: u32 = PREFIX_CAPACITY / 2;

/// Datagrams whose fragments are remembered at once.
pub const FRAGMENT_CAPACITY: u32 = 8192;
/// VLAN devices that are known at once.
pub const LINK_CAPACITY: u32 = 1024;
/// Next hops, and the never-used row 0.
pub const NEXT_HOP_CAPACITY: u32 = next_hop::CAPACITY;
/// Clients whose next hop is remembered apart from a flow: 8 MiB. A power of two.
pub const CLIENT_HOP_CAPACITY: u32 = 1 << 20;

/// Buckets of half a directory: three for each thing that may be listed. Services and backends list themselves and
/// their addresses.
pub const fn directory_buckets(services: u32, backends: u32) -> u32 {
    ((services + backends) * 2 * 3).next_power_of_two()
}

/// Lines of the slot array: a table for each service, and two more, so that a new one can be written beside the old.
pub const fn slot_lines(services: u32, table_size: u32) -> u32 {
    (services + 2) * slot::lines(table_size)
}

/// Buckets of a flow table for that many flows. Four-way buckets half full find room for 96.2 % of the flows at home and for
/// all but 0.4 % in a second bucket (`docs/adr/0009-second-choice-buckets.md`).
pub const fn flow_buckets(flows: u32) -> u32 {
    if flows == 0 { 1 } else { flows.div_ceil(2) }
}
