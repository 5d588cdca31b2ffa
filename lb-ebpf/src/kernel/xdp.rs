//! The entries: one call, one count, one action.

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use lb_common::reason::Reason;
use lb_ebpf::frame::Frame;
use lb_ebpf::pipeline;
use lb_ebpf::tables::Tables;
use lb_ebpf::verdict::{Stage, Verdict};

use super::frame::XdpFrame;
use super::maps::STAGES;
use super::tables::KernelTables;

#[xdp]
fn balance(ctx: XdpContext) -> u32 {
    let verdict = pipeline::balance(&mut XdpFrame(&ctx), &KernelTables(&ctx));
    conclude(&ctx, verdict)
}

#[xdp]
fn balance_slow(ctx: XdpContext) -> u32 {
    let verdict = pipeline::slow(&mut XdpFrame(&ctx), &KernelTables(&ctx));
    conclude(&ctx, verdict)
}

#[xdp]
fn balance_icmp(ctx: XdpContext) -> u32 {
    let verdict = pipeline::icmp(&mut XdpFrame(&ctx), &KernelTables(&ctx));
    conclude(&ctx, verdict)
}

#[xdp]
fn balance_reject(ctx: XdpContext) -> u32 {
    let verdict = pipeline::reject(&mut XdpFrame(&ctx), &KernelTables(&ctx));
    conclude(&ctx, verdict)
}

/// Writes the kernel's clock into the packet: run by `BPF_PROG_TEST_RUN` alone, to learn how long a jiffy is.
#[xdp]
fn clock(ctx: XdpContext) -> u32 {
    let jiffies = KernelTables(&ctx).jiffies();
    match XdpFrame(&ctx).bytes_mut::<8>(0) {
        Some(bytes) => {
            *bytes = jiffies.to_ne_bytes();
            XDP_PASS
        }
        None => XDP_ABORTED,
    }
}

/// Counts the reason and turns the verdict into an action. Nothing else does either.
#[inline(always)]
fn conclude(ctx: &XdpContext, verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Pass(reason) => ended(ctx, reason, XDP_PASS),
        Verdict::Drop(reason) => ended(ctx, reason, XDP_DROP),
        Verdict::Transmit(reason) => ended(ctx, reason, XDP_TX),
        Verdict::Redirect(reason, ifindex) => {
            // SAFETY: no pointers. What becomes of the frame after that is counted by the tracepoint programs.
            let action = unsafe { bpf_redirect(ifindex, 0) } as u32;
            ended(ctx, reason, action)
        }
        Verdict::Defer(Stage::Slow) => go_on(ctx, Stage::Slow),
        Verdict::Defer(Stage::Icmp) => go_on(ctx, Stage::Icmp),
        Verdict::Defer(Stage::Reject) => go_on(ctx, Stage::Reject),
    }
}

#[inline(always)]
fn ended(ctx: &XdpContext, reason: Reason, action: u32) -> u32 {
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(ctx, "ifindex {} reason {} action {}", ctx.ingress_ifindex(), reason as u8, action);
    if let Some(outcomes) = KernelTables(ctx).outcomes() {
        outcomes.reason(reason).count(1);
    }
    action
}

/// With a constant index the JIT makes this a direct jump. It comes back only where the stage is not there.
#[inline(always)]
fn go_on(ctx: &XdpContext, stage: Stage) -> u32 {
    // SAFETY: nothing is left to be dropped.
    unsafe { STAGES.tail_call(ctx, stage.index()) };
    ended(ctx, Reason::DropInternal, XDP_DROP)
}
