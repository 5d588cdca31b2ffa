//! The entries: one call, one count, one action.

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_redirect};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use lb_common::reason::Reason;
use lb_common::settings::REDIRECT_BACK;
use lb_ebpf::frame::Frame;
use lb_ebpf::pipeline;
use lb_ebpf::tables::Tables;
use lb_ebpf::verdict::{Stage, Verdict};

use super::frame::{XdpFrame, opaque};
use super::maps::STAGES;
use super::tables::KernelTables;

#[xdp]
#[inline(always)]
fn balance(ctx: XdpContext) -> u32 {
    let Some(tables) = KernelTables::new(Some(&ctx)) else { return XDP_PASS };
    let verdict = pipeline::balance(&mut XdpFrame(&ctx), &tables);
    conclude(&ctx, &tables, verdict)
}

#[xdp]
#[inline(always)]
fn balance_slow(ctx: XdpContext) -> u32 {
    let Some(tables) = KernelTables::new(Some(&ctx)) else { return XDP_PASS };
    let verdict = pipeline::slow(&mut XdpFrame(&ctx), &tables);
    conclude(&ctx, &tables, verdict)
}

#[xdp]
#[inline(always)]
fn balance_icmp(ctx: XdpContext) -> u32 {
    let Some(tables) = KernelTables::new(Some(&ctx)) else { return XDP_PASS };
    let verdict = pipeline::icmp(&mut XdpFrame(&ctx), &tables);
    conclude(&ctx, &tables, verdict)
}

#[xdp]
#[inline(always)]
fn balance_reject(ctx: XdpContext) -> u32 {
    let Some(tables) = KernelTables::new(Some(&ctx)) else { return XDP_PASS };
    let verdict = pipeline::reject(&mut XdpFrame(&ctx), &tables);
    conclude(&ctx, &tables, verdict)
}

#[xdp]
#[inline(always)]
fn balance_exceptions(ctx: XdpContext) -> u32 {
    let Some(tables) = KernelTables::new(Some(&ctx)) else { return XDP_PASS };
    let verdict = pipeline::exceptions(&mut XdpFrame(&ctx), &tables);
    conclude(&ctx, &tables, verdict)
}

#[xdp]
#[inline(always)]
fn balance_nat(ctx: XdpContext) -> u32 {
    let Some(tables) = KernelTables::new(Some(&ctx)) else { return XDP_PASS };
    let verdict = pipeline::nat(&mut XdpFrame(&ctx), &tables);
    conclude(&ctx, &tables, verdict)
}

#[xdp]
#[inline(always)]
fn balance_nat_open(ctx: XdpContext) -> u32 {
    let Some(tables) = KernelTables::new(Some(&ctx)) else { return XDP_PASS };
    let verdict = pipeline::nat_open(&mut XdpFrame(&ctx), &tables);
    conclude(&ctx, &tables, verdict)
}

#[xdp]
#[inline(always)]
fn balance_nat_reply(ctx: XdpContext) -> u32 {
    let Some(tables) = KernelTables::new(Some(&ctx)) else { return XDP_PASS };
    let verdict = pipeline::nat_reply(&mut XdpFrame(&ctx), &tables);
    conclude(&ctx, &tables, verdict)
}

#[xdp]
#[inline(always)]
fn balance_nat_icmp(ctx: XdpContext) -> u32 {
    let Some(tables) = KernelTables::new(Some(&ctx)) else { return XDP_PASS };
    let verdict = pipeline::nat_icmp(&mut XdpFrame(&ctx), &tables);
    conclude(&ctx, &tables, verdict)
}

#[xdp]
#[inline(always)]
fn balance_retry(ctx: XdpContext) -> u32 {
    let Some(tables) = KernelTables::new(Some(&ctx)) else { return XDP_PASS };
    let verdict = pipeline::retry(&mut XdpFrame(&ctx), &tables);
    conclude(&ctx, &tables, verdict)
}

#[xdp]
#[inline(always)]
fn balance_resend(ctx: XdpContext) -> u32 {
    let Some(tables) = KernelTables::new(Some(&ctx)) else { return XDP_PASS };
    let verdict = pipeline::resend(&mut XdpFrame(&ctx), &tables);
    conclude(&ctx, &tables, verdict)
}

/// Turns a verdict into an action and counts its reason. Nothing else does either.
#[inline(always)]
fn conclude(ctx: &XdpContext, tables: &KernelTables<'_>, verdict: Verdict) -> u32 {
    let (reason, action) = match verdict {
        Verdict::Pass(reason) => (reason, XDP_PASS),
        Verdict::Drop(reason) => (reason, XDP_DROP),
        Verdict::Transmit(reason) if tables.settings().flags.load() & REDIRECT_BACK == 0 => (reason, XDP_TX),
        Verdict::Transmit(reason) => (reason, redirect(ctx.ingress_ifindex() as u32)),
        Verdict::Redirect(reason, ifindex) => (reason, redirect(ifindex)),
        Verdict::Defer(stage) => {
            tail_call(ctx, stage);
            (Reason::DropInternal, XDP_DROP)
        }
    };
    // The compiler knows that a reason is none but one of them. The verifier must see the bound: that of Linux 6.1 does not
    // know what a byte on the stack can be, where the compiler may keep it.
    tables.outcomes().reason_at(opaque(reason as usize)).count(1);
    #[cfg(feature = "log")]
    aya_log_ebpf::info!(ctx, "ifindex={} reason={} action={}", ctx.ingress_ifindex(), reason as u8, action);
    action
}

/// What becomes of the frame after this is counted by the tracepoint programs.
#[inline(always)]
fn redirect(ifindex: u32) -> u32 {
    // SAFETY: no pointers.
    unsafe { bpf_redirect(ifindex, 0) as u32 }
}

/// Comes back only where the stage is not there. With a constant index the JIT makes it a direct jump.
#[inline(always)]
fn tail_call(ctx: &XdpContext, stage: Stage) {
    let call = |stage: Stage| {
        // SAFETY: nothing is left to be dropped.
        unsafe { STAGES.tail_call(ctx, stage.index()) };
    };
    match stage {
        Stage::Slow => call(Stage::Slow),
        Stage::Icmp => call(Stage::Icmp),
        Stage::Reject => call(Stage::Reject),
        Stage::Exceptions => call(Stage::Exceptions),
        Stage::Nat => call(Stage::Nat),
        Stage::NatOpen => call(Stage::NatOpen),
        Stage::NatReply => call(Stage::NatReply),
        Stage::NatIcmp => call(Stage::NatIcmp),
        Stage::Retry => call(Stage::Retry),
        Stage::Resend => call(Stage::Resend),
    }
}

/// Writes the kernel's clock into the packet: run by `BPF_PROG_TEST_RUN` alone, to learn how long a jiffy is.
#[xdp]
#[inline(always)]
fn clock(ctx: XdpContext) -> u32 {
    // SAFETY: no arguments.
    let jiffies = unsafe { bpf_jiffies64() };
    match XdpFrame(&ctx).write(0, jiffies.to_ne_bytes()) {
        Some(()) => XDP_PASS,
        None => XDP_ABORTED,
    }
}
