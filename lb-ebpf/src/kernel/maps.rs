//! The maps. BTF definitions, so that libbpf's tools load the object too; the agent sets every size when it loads it.
//!
//! `BPF_F_MMAPABLE`: the agent reads and writes rows as memory. It also aligns values to the page, without which
//! they would start 56 bytes into a cache line and every 64-byte row would straddle two.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, ProgramArray};
use aya_ebpf::macros::btf_map;
use lb_common::atomic::Word;
use lb_common::backend::{Backend, Load};
use lb_common::counters::{IcmpBudget, Outcomes, Traffic};
use lb_common::directory;
use lb_common::flow::{Bucket4, Bucket6};
use lb_common::fragment::{FragmentKey, Ports};
use lb_common::latency::ConnectTimes;
use lb_common::limit::SourceLine;
use lb_common::link::Link;
use lb_common::maps;
use lb_common::next_hop::NextHop;
use lb_common::port::{PoolAddress, Port};
use lb_common::prefix::PrefixKey;
use lb_common::service::{Service, ServiceState};
use lb_common::settings::Settings;
use lb_common::slot::SlotLine;
use lb_common::syn::SynRow;
use lb_ebpf::verdict::Stage;

const MMAPABLE: usize = BPF_F_MMAPABLE as usize;

// What an object that is loaded without the agent gets: small, but enough to pass packets.
const SERVICES_SIZE: u32 = 16;
const BACKENDS_SIZE: u32 = 256;
const FLOWS_SIZE: u32 = 65_536;
const TABLE_SIZE: u32 = 65_537;
const POOL_ADDRESSES_SIZE: u32 = 1;
const PORTS_SIZE: u32 = 31_744;
const CPUS: usize = 64;

#[btf_map]
pub(super) static SETTINGS: Array<Settings, 1, MMAPABLE> = Array::new();
#[btf_map]
pub(super) static DIRECTORY: Array<
    directory::Bucket,
    { (maps::directory_buckets(SERVICES_SIZE, BACKENDS_SIZE) * directory::HALVES) as usize },
    MMAPABLE,
> = Array::new();
#[btf_map]
pub(super) static SERVICES: Array<Service, { SERVICES_SIZE as usize }, MMAPABLE> = Array::new();
#[btf_map]
pub(super) static BACKENDS: Array<Backend, { BACKENDS_SIZE as usize }, MMAPABLE> = Array::new();
#[btf_map]
pub(super) static SERVICE_STATES: Array<ServiceState, { SERVICES_SIZE as usize }, MMAPABLE> = Array::new();
#[btf_map]
pub(super) static LOADS: Array<Load, { BACKENDS_SIZE as usize }, MMAPABLE> = Array::new();
#[btf_map]
pub(super) static SLOTS: Array<SlotLine, { maps::slot_lines(SERVICES_SIZE, TABLE_SIZE) as usize }, MMAPABLE> =
    Array::new();
#[btf_map]
pub(super) static FLOWS4: Array<Bucket4, { maps::flow_buckets(FLOWS_SIZE) as usize }, MMAPABLE> =
    Array::new();
#[btf_map]
pub(super) static FLOWS6: Array<Bucket6, { maps::flow_buckets(FLOWS_SIZE) as usize }, MMAPABLE> =
    Array::new();
#[btf_map]
pub(super) static CLIENT_HOPS: Array<Word, { maps::CLIENT_HOP_CAPACITY as usize }, MMAPABLE> = Array::new();
#[btf_map]
pub(super) static NEXT_HOPS: Array<NextHop, { maps::NEXT_HOP_CAPACITY as usize }, MMAPABLE> = Array::new();
#[btf_map]
pub(super) static POOL_ADDRESSES: Array<PoolAddress, { POOL_ADDRESSES_SIZE as usize }, MMAPABLE> =
    Array::new();
#[btf_map]
pub(super) static PORTS: Array<Port, { (POOL_ADDRESSES_SIZE * PORTS_SIZE) as usize }, MMAPABLE> =
    Array::new();
#[btf_map]
pub(super) static OUTCOMES: Array<Outcomes, CPUS, MMAPABLE> = Array::new();
#[btf_map]
pub(super) static TRAFFIC: Array<Traffic, { CPUS * BACKENDS_SIZE as usize }, MMAPABLE> = Array::new();
#[btf_map]
pub(super) static CONNECT_TIMES: Array<ConnectTimes, { CPUS * BACKENDS_SIZE as usize }, MMAPABLE> =
    Array::new();
#[btf_map]
pub(super) static ICMP_BUDGET: Array<IcmpBudget, CPUS, MMAPABLE> = Array::new();

#[btf_map]
pub(super) static SYNS: Array<SynRow, { maps::SYN_CAPACITY as usize }, MMAPABLE> = Array::new();
#[btf_map]
pub(super) static SOURCES: Array<SourceLine, { maps::SOURCE_LINES as usize }, MMAPABLE> = Array::new();
#[btf_map]
pub(super) static PREFIXES: LpmTrie<PrefixKey, u32, { maps::PREFIX_CAPACITY as usize }> = LpmTrie::new();
#[btf_map]
pub(super) static FRAGMENTS: LruHashMap<FragmentKey, Ports, { maps::FRAGMENT_CAPACITY as usize }> =
    LruHashMap::new();
#[btf_map]
pub(super) static LINKS: HashMap<u32, Link, { maps::LINK_CAPACITY as usize }> = HashMap::new();
#[btf_map]
pub(super) static STAGES: ProgramArray<{ Stage::ALL.len() }> = ProgramArray::new();
#[btf_map]
pub(super) static WATCHED: HashMap<u64, u32, { maps::WATCHED_CAPACITY as usize }> = HashMap::new();
