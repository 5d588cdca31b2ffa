//! Functions that the verifier checks by themselves, once and for any arguments, because they are exported. What a program
//! knows of its packet where it calls one is not multiplied by all that can happen inside.
//!
//! Arguments are plain numbers, five at most; tables are looked up anew. A call costs about 15 ns: not for established flows.

use lb_common::address::{Address, Be16, Be32};
use lb_ebpf::affinity;
use lb_ebpf::family::{Ipv4, Ipv6};
use lb_ebpf::open::{Facts, Opening, open, reopen};
use lb_ebpf::select::Choice;

use super::tables::KernelTables;

/// Packs what there is to know of an IPv4 flow.
#[inline(always)]
pub(super) fn call4(opening: &Opening<Ipv4>) -> u64 {
    let &Opening { client, port, service, hash, facts } = opening;
    let flow = (client.0 as u64) << 32 | (port.0 as u64) << 16 | service as u64;
    if facts.is_known() { lb_reopen4(flow, hash, facts.0) } else { lb_open4(flow, hash, facts.0) }
}

/// Packs what there is to know of an IPv6 flow.
#[inline(always)]
pub(super) fn call6(opening: &Opening<Ipv6>) -> u64 {
    let &Opening { client, port, service, hash, facts } = opening;
    let [head, tail] = client.0;
    let flow = (port.0 as u64) << 16 | service as u64;
    if facts.is_known() {
        lb_reopen6(head, tail, flow, hash, facts.0)
    } else {
        lb_open6(head, tail, flow, hash, facts.0)
    }
}

/// [`affinity::prefer`] for IPv4.
#[inline(always)]
pub(super) fn prefer4(opening: &Opening<Ipv4>) -> u64 {
    let &Opening { client, port, service, hash, facts } = opening;
    lb_prefer4((client.0 as u64) << 32 | (port.0 as u64) << 16 | service as u64, hash, facts.0)
}

/// [`affinity::prefer`] for IPv6.
#[inline(always)]
pub(super) fn prefer6(opening: &Opening<Ipv6>) -> u64 {
    let &Opening { client, port, service, hash, facts } = opening;
    lb_prefer6(client.0[0], client.0[1], (port.0 as u64) << 16 | service as u64, hash, facts.0)
}

#[inline(always)]
fn with4(flow: u64, hash: u64, facts: u64, step: impl Fn(&KernelTables<'_>, &Opening<Ipv4>) -> u64) -> u64 {
    let Some(tables) = KernelTables::new(None) else { return Choice::CONTRADICTION.0 };
    let (client, port, service) = (Be32((flow >> 32) as u32), Be16((flow >> 16) as u16), flow as u16);
    step(&tables, &Opening { client, port, service, hash, facts: Facts(facts) })
}

#[inline(always)]
fn with6(
    client: [u64; 2],
    flow: u64,
    hash: u64,
    facts: u64,
    step: impl Fn(&KernelTables<'_>, &Opening<Ipv6>) -> u64,
) -> u64 {
    let Some(tables) = KernelTables::new(None) else { return Choice::CONTRADICTION.0 };
    let (client, port, service) = (Address(client), Be16((flow >> 16) as u16), flow as u16);
    step(&tables, &Opening { client, port, service, hash, facts: Facts(facts) })
}

/// Exports a step for both families.
macro_rules! export {
    ($step:path: $for_ipv4:ident, $for_ipv6:ident) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $for_ipv4(flow: u64, hash: u64, facts: u64) -> u64 {
            with4(flow, hash, facts, |tables, opening| $step(tables, opening))
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $for_ipv6(head: u64, tail: u64, flow: u64, hash: u64, facts: u64) -> u64 {
            with6([head, tail], flow, hash, facts, |tables, opening| $step(tables, opening))
        }
    };
}

export!(open: lb_open4, lb_open6);
export!(reopen: lb_reopen4, lb_reopen6);
export!(affinity::prefer: lb_prefer4, lb_prefer6);
