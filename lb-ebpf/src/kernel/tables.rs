//! The tables as the kernel has them.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_BLACKHOLE, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_PROHIBIT, BPF_FIB_LKUP_RET_SUCCESS,
    BPF_FIB_LKUP_RET_UNREACHABLE, bpf_fib_lookup as FibLookup,
};
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_get_smp_processor_id, bpf_jiffies64};
use aya_ebpf::programs::XdpContext;
use lb_common::address::Address;
use lb_common::backend::Backend;
use lb_common::counters::{IcmpBudget, Outcomes, Traffic};
use lb_common::directory;
use lb_common::flow::{Bucket4, Bucket6, FragmentKey, Ports};
use lb_common::next_hop::{Hop, NextHop};
use lb_common::service::Service;
use lb_common::settings::Settings;
use lb_common::slot::SlotLine;
use lb_ebpf::tables::{Route, RouteQuery, Tables};

use super::maps;

pub(super) struct KernelTables<'a>(pub(super) &'a XdpContext);

#[inline(always)]
fn cpu() -> u32 {
    // SAFETY: no arguments.
    unsafe { bpf_get_smp_processor_id() as u32 }
}

impl Tables for KernelTables<'_> {
    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        maps::SETTINGS.get(0)
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
    fn next_hop(&self, id: u16) -> Option<&NextHop> {
        maps::NEXT_HOPS.get(id as u32)
    }

    #[inline(always)]
    fn outcomes(&self) -> Option<&Outcomes> {
        maps::OUTCOMES.get(cpu())
    }

    #[inline(always)]
    fn traffic(&self, backend: u16) -> Option<&Traffic> {
        let row = cpu().wrapping_mul(self.settings()?.backends).wrapping_add(backend as u32);
        maps::TRAFFIC.get(row)
    }

    #[inline(always)]
    fn icmp_budget(&self) -> Option<&IcmpBudget> {
        maps::ICMP_BUDGET.get(cpu())
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
    fn jiffies(&self) -> u64 {
        // SAFETY: no arguments.
        unsafe { bpf_jiffies64() }
    }

    #[inline(always)]
    fn route(&self, query: &RouteQuery) -> Route {
        let mut hop = Hop::default();
        match look_up(self.0, query, &mut hop) {
            BPF_FIB_LKUP_RET_SUCCESS => Route::Hop(hop),
            BPF_FIB_LKUP_RET_NO_NEIGH => Route::NeighbourUnknown,
            BPF_FIB_LKUP_RET_BLACKHOLE | BPF_FIB_LKUP_RET_UNREACHABLE | BPF_FIB_LKUP_RET_PROHIBIT => Route::None,
            _ => Route::Unfollowable,
        }
    }
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// One FIB look-up (kernel 4.18; the MTU in the answer from 5.12 on). A function of its own: the parameter block
/// would otherwise take an eighth of the caller's stack.
#[inline(never)]
fn look_up(ctx: &XdpContext, query: &RouteQuery, hop: &mut Hop) -> u32 {
    // SAFETY: a plain C struct; all zeros is valid.
    let mut fib: FibLookup = unsafe { core::mem::zeroed() };
    fib.ifindex = query.ingress;
    // Any length but zero makes the kernel return the route's MTU in the same field.
    fib.__bindgen_anon_1.tot_len = 1;
    if query.destination.is_v4() {
        fib.family = AF_INET;
        fib.__bindgen_anon_3.ipv4_src = query.source.v4().0;
        fib.__bindgen_anon_4.ipv4_dst = query.destination.v4().0;
    } else {
        fib.family = AF_INET6;
        fib.__bindgen_anon_3.ipv6_src = words(&query.source);
        fib.__bindgen_anon_4.ipv6_dst = words(&query.destination);
    }
    let size = size_of::<FibLookup>() as i32;
    // SAFETY: the context is the kernel's own, the block lives on this stack and its size is told.
    let result = unsafe { bpf_fib_lookup(ctx.as_ptr(), &raw mut fib, size, 0) };
    if result != BPF_FIB_LKUP_RET_SUCCESS as i64 {
        return if result < 0 { u32::MAX } else { result as u32 };
    }
    hop.ifindex = fib.ifindex;
    // SAFETY: the field that the kernel wrote.
    hop.mtu = unsafe { fib.__bindgen_anon_1.mtu_result };
    hop.destination = fib.dmac;
    hop.source = fib.smac;
    // SAFETY: copied at once.
    if let Some(link) = unsafe { maps::LINKS.get(&fib.ifindex) } {
        hop.ifindex = link.ifindex;
        hop.tag_count = link.tag_count as u8;
        hop.tags = link.tags;
    }
    BPF_FIB_LKUP_RET_SUCCESS
}

#[inline(always)]
fn words(address: &Address) -> [u32; 4] {
    address.0.map(|word| word.0)
}
