//! The tables as the kernel has them.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_BLACKHOLE, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_PROHIBIT,
    BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LKUP_RET_UNREACHABLE, bpf_fib_lookup as FibLookup,
};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup, bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_ns,
};
use aya_ebpf::programs::XdpContext;
use lb_common::address::Address;
use lb_common::atomic::Word;
use lb_common::backend::{Backend, Load};
use lb_common::counters::{IcmpBudget, Outcomes, Traffic};
use lb_common::directory;
use lb_common::flow::{Bucket4, Bucket6};
use lb_common::fragment::{FragmentKey, Ports};
use lb_common::latency::ConnectTimes;
use lb_common::limit::SourceLine;
use lb_common::maps::{SOURCE_LINES, SYN_CAPACITY};
use lb_common::next_hop::{Hop, NextHop, Tag};
use lb_common::port::{PoolAddress, Port};
use lb_common::prefix::{LIST_BITS, PrefixKey};
use lb_common::service::{Service, ServiceState};
use lb_common::settings::Settings;
use lb_common::slot::SlotLine;
use lb_common::syn::SynRow;
use lb_ebpf::family::{Ipv4, Ipv6};
use lb_ebpf::open::Opening;
use lb_ebpf::tables::{Route, RouteQuery, Tables};

use super::frame::opaque;
use super::{cold, guards, maps};

/// The maps, with the rows that every packet needs looked up once.
pub(super) struct KernelTables<'a> {
    /// The packet's, where there is one.
    ctx: Option<&'a XdpContext>,
    settings: &'a Settings,
    outcomes: &'a Outcomes,
    cpu: u32,
}

impl<'a> KernelTables<'a> {
    /// `None` where a map has no row for this CPU: the object was loaded with sizes that are not this machine's.
    #[inline(always)]
    pub(super) fn new(ctx: Option<&'a XdpContext>) -> Option<Self> {
        // SAFETY: no arguments.
        let cpu = unsafe { bpf_get_smp_processor_id() as u32 };
        Some(Self { ctx, settings: maps::SETTINGS.get(0)?, outcomes: maps::OUTCOMES.get(cpu)?, cpu })
    }
}

impl Tables for KernelTables<'_> {
    #[inline(always)]
    fn settings(&self) -> &Settings {
        self.settings
    }

    #[inline(always)]
    fn directory(&self, bucket: u32) -> Option<&directory::Bucket> {
        maps::DIRECTORY.get(bucket)
    }

    #[inline(always)]
    fn service(&self, id: u16) -> Option<&Service> {
        maps::SERVICES.get(id as u32)
    }

    #[inline(always)]
    fn backend(&self, id: u16) -> Option<&Backend> {
        maps::BACKENDS.get(id as u32)
    }

    #[inline(always)]
    fn service_state(&self, id: u16) -> Option<&ServiceState> {
        maps::SERVICE_STATES.get(id as u32)
    }

    #[inline(always)]
    fn load(&self, backend: u16) -> Option<&Load> {
        maps::LOADS.get(backend as u32)
    }

    #[inline(always)]
    fn slots(&self, line: u32) -> Option<&SlotLine> {
        maps::SLOTS.get(line)
    }

    #[inline(always)]
    fn flows4(&self, bucket: u32) -> Option<&Bucket4> {
        maps::FLOWS4.get(bucket)
    }

    #[inline(always)]
    fn flows6(&self, bucket: u32) -> Option<&Bucket6> {
        maps::FLOWS6.get(bucket)
    }

    #[inline(always)]
    fn client_hop(&self, hash: u32) -> Option<&Word> {
        maps::CLIENT_HOPS.get(hash & (lb_common::maps::CLIENT_HOP_CAPACITY - 1))
    }

    #[inline(always)]
    fn next_hop(&self, id: u16) -> Option<&NextHop> {
        maps::NEXT_HOPS.get(id as u32)
    }

    #[inline(always)]
    fn pool_address(&self, id: u8) -> Option<&PoolAddress> {
        maps::POOL_ADDRESSES.get(id as u32)
    }

    #[inline(always)]
    fn port(&self, row: u32) -> Option<&Port> {
        maps::PORTS.get(row)
    }

    #[inline(always)]
    fn outcomes(&self) -> &Outcomes {
        self.outcomes
    }

    #[inline(always)]
    fn open4(&self, opening: &Opening<Ipv4>) -> u64 {
        cold::call4(opening)
    }

    #[inline(always)]
    fn open6(&self, opening: &Opening<Ipv6>) -> u64 {
        cold::call6(opening)
    }

    #[inline(always)]
    fn traffic(&self, backend: u16) -> Option<&Traffic> {
        let row = self.cpu.wrapping_mul(self.settings.backends).wrapping_add(backend as u32);
        maps::TRAFFIC.get(row)
    }

    #[inline(always)]
    fn connect_times(&self, backend: u16) -> Option<&ConnectTimes> {
        let row = self.cpu.wrapping_mul(self.settings.backends).wrapping_add(backend as u32);
        maps::CONNECT_TIMES.get(row)
    }

    #[inline(always)]
    fn icmp_budget(&self) -> Option<&IcmpBudget> {
        maps::ICMP_BUDGET.get(self.cpu)
    }

    #[inline(always)]
    fn settle4(&self, opening: &Opening<Ipv4>, chosen: u16) -> u16 {
        guards::settle4(opening, chosen)
    }

    #[inline(always)]
    fn settle6(&self, opening: &Opening<Ipv6>, chosen: u16) -> u16 {
        guards::settle6(opening, chosen)
    }

    #[inline(always)]
    fn is_taken(&self, id: u16, home: u64, second: u64) -> bool {
        guards::is_taken(id, home, second)
    }

    #[inline(always)]
    fn refuses(&self, service: u16, options: u64, client: Address) -> u32 {
        guards::refuses(service, options, client)
    }

    #[inline(always)]
    fn allows(&self, service: u16, options: u64, client: Address) -> bool {
        guards::allows(service, options, client)
    }

    #[inline(always)]
    fn syn(&self, hash: u32) -> Option<&SynRow> {
        maps::SYNS.get(hash & (SYN_CAPACITY - 1))
    }

    #[inline(always)]
    fn prefer4(&self, opening: &Opening<Ipv4>) -> u64 {
        cold::prefer4(opening)
    }

    #[inline(always)]
    fn prefer6(&self, opening: &Opening<Ipv6>) -> u64 {
        cold::prefer6(opening)
    }

    #[inline(always)]
    fn next4(&self, flow: &Opening<Ipv4>, excluded: u64) -> u16 {
        guards::next4(flow, excluded)
    }

    #[inline(always)]
    fn next6(&self, flow: &Opening<Ipv6>, excluded: u64) -> u16 {
        guards::next6(flow, excluded)
    }

    #[inline(always)]
    fn candidate(&self, place: u64, at: u32) -> u64 {
        guards::candidate(place, at)
    }

    #[inline(always)]
    fn source_line(&self, hash: u32) -> Option<&SourceLine> {
        maps::SOURCES.get(hash & (SOURCE_LINES - 1))
    }

    #[inline(always)]
    fn listed(&self, key: &PrefixKey) -> Option<u32> {
        // All bits of the address count; the trie ignores those behind each of its prefixes.
        maps::PREFIXES.get(&Key::new(LIST_BITS + 128, *key)).copied()
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<Ports> {
        // SAFETY: copied at once. A row recycled meanwhile gives another datagram's ports, and that fragment is lost.
        unsafe { maps::FRAGMENTS.get(key).copied() }
    }

    #[inline(always)]
    fn remember_fragment(&self, key: &FragmentKey, ports: Ports) {
        // An LRU map always has room; where it has not, later fragments are counted as coming before their first.
        let _ = maps::FRAGMENTS.insert(key, ports, 0);
    }

    #[inline(always)]
    fn blur(&self, number: u64) -> u64 {
        let mask = self.settings.flow_key;
        opaque((number ^ mask) as usize) as u64 ^ mask
    }

    #[inline(always)]
    fn forget(&self, number: usize) -> usize {
        // As for a frame's offsets, by another number that the verifier cannot know.
        let mask = self.settings.flow_key as usize;
        (opaque(number ^ mask) ^ mask) & 63
    }

    #[inline(always)]
    fn jiffies(&self) -> u64 {
        // SAFETY: no arguments.
        unsafe { bpf_jiffies64() }
    }

    #[inline(always)]
    fn nanoseconds(&self) -> u64 {
        // SAFETY: no arguments.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn route(&self, query: &RouteQuery) -> Route {
        let Some(ctx) = self.ctx else { return Route::Unfollowable };
        // SAFETY: a plain C struct; all zeros is valid.
        let mut fib: FibLookup = unsafe { core::mem::zeroed() };
        fib.ifindex = query.ingress;
        // Any length but zero makes the kernel (5.12) return the route's MTU in the same field.
        fib.__bindgen_anon_1.tot_len = 1;
        if query.destination.is_v4() {
            fib.family = AF_INET;
            fib.__bindgen_anon_3.ipv4_src = query.source.v4().0;
            fib.__bindgen_anon_4.ipv4_dst = query.destination.v4().0;
        } else {
            fib.family = AF_INET6;
            fib.__bindgen_anon_3.ipv6_src = query.source.words().map(|word| word.0);
            fib.__bindgen_anon_4.ipv6_dst = query.destination.words().map(|word| word.0);
        }
        let size = size_of::<FibLookup>() as i32;
        // SAFETY: the context is the kernel's own, the block lives on this stack and its size is told.
        let answer = unsafe { bpf_fib_lookup(ctx.as_ptr(), &raw mut fib, size, 0) };
        match answer as u32 {
            BPF_FIB_LKUP_RET_SUCCESS => Route::Hop(through_link(&fib)),
            BPF_FIB_LKUP_RET_NO_NEIGH => Route::NeighbourUnknown,
            BPF_FIB_LKUP_RET_BLACKHOLE | BPF_FIB_LKUP_RET_UNREACHABLE | BPF_FIB_LKUP_RET_PROHIBIT => {
                Route::None
            }
            _ => Route::Unfollowable,
        }
    }
}

/// The hop that the kernel found: by a VLAN device, through the interface below it.
#[inline(always)]
fn through_link(fib: &FibLookup) -> Hop {
    // SAFETY: the field that the kernel wrote.
    let mtu = unsafe { fib.__bindgen_anon_1.mtu_result };
    // SAFETY: copied at once.
    let link = unsafe { maps::LINKS.get(fib.ifindex) };
    let (ifindex, tag_count, tags) = match link {
        Some(link) => (link.ifindex, link.tag_count as u8, link.tags),
        None => (fib.ifindex, 0, [Tag::default(); 2]),
    };
    Hop { ifindex, mtu, tag_count, destination: mac(&fib.dmac), source: mac(&fib.smac), tags }
}

/// Reads an address by two bytes at a time. Left alone, the compiler joins the loads into wider ones, as it may for
/// packets; but on the stack, where `dmac` lies at an offset of 58, the verifier wants them aligned.
#[inline(always)]
fn mac(bytes: &[u8; 6]) -> [u8; 6] {
    let at = bytes.as_ptr().cast::<u16>();
    // SAFETY: both fields start at even offsets of an aligned block.
    let [a, b, c] = unsafe { [at.read_volatile(), at.add(1).read_volatile(), at.add(2).read_volatile()] };
    let [[a0, a1], [b0, b1], [c0, c1]] = [a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes()];
    [a0, a1, b0, b1, c0, c1]
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
