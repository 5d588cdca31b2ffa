//! What happens to a frame after the verdict: redirects that fail, queues that are full, actions a driver lacks.
//!
//! The kernel's XDP tracepoints fire for every program on the machine; `WATCHED` holds the identifiers of ours and
//! the interfaces they are attached to. Offsets are those of the tracepoints' `format` files (kernel 5.10 to 7.2).

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use lb_common::maps::WATCHED_INTERFACE;
use lb_common::reason::Event;

use super::maps::{OUTCOMES, WATCHED};

/// Offset of `prog_id` in `xdp_exception` and `xdp_redirect_err`, of `ifindex` in `xdp_bulk_tx`, of `from_ifindex` in `xdp_devmap_xmit`.
const SUBJECT: usize = 8;
/// Offset of `drops` in `xdp_bulk_tx`.
const BULK_TX_DROPS: usize = 16;
/// Offset of `drops` in `xdp_devmap_xmit`, behind `to_ifindex`.
const DEVMAP_XMIT_DROPS: usize = 20;

#[tracepoint]
fn xdp_redirect_err(ctx: TracePointContext) -> u32 {
    if is_watched(field(&ctx, SUBJECT) as u64) {
        count(Event::RedirectFailed, 1);
    }
    0
}

#[tracepoint]
fn xdp_exception(ctx: TracePointContext) -> u32 {
    if is_watched(field(&ctx, SUBJECT) as u64) {
        count(Event::ProgramException, 1);
    }
    0
}

#[tracepoint]
fn xdp_bulk_tx(ctx: TracePointContext) -> u32 {
    if is_watched(WATCHED_INTERFACE | field(&ctx, SUBJECT) as u64) {
        count(Event::TransmitFailed, field(&ctx, BULK_TX_DROPS) as u64);
    }
    0
}

#[tracepoint]
fn xdp_devmap_xmit(ctx: TracePointContext) -> u32 {
    if is_watched(WATCHED_INTERFACE | field(&ctx, SUBJECT) as u64) {
        count(Event::RedirectFailed, field(&ctx, DEVMAP_XMIT_DROPS) as u64);
    }
    0
}

#[inline(always)]
fn field(ctx: &TracePointContext, offset: usize) -> u32 {
    // SAFETY: the read is checked by the kernel; a field that cannot be read counts as zero.
    unsafe { bpf_probe_read_kernel(ctx.as_ptr().byte_add(offset) as *const u32).unwrap_or(0) }
}

#[inline(always)]
fn is_watched(key: u64) -> bool {
    // SAFETY: only whether it is there matters.
    unsafe { WATCHED.get(key).is_some() }
}

#[inline(always)]
fn count(event: Event, amount: u64) {
    // SAFETY: no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() } as u32;
    if let Some(outcomes) = OUTCOMES.get(cpu) {
        outcomes.event(event).count(amount);
    }
}
