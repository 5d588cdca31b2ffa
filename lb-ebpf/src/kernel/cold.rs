//! Functions that the verifier checks by themselves, once and for any arguments, because they are exported. What a program
//! knows of its packet where it calls one is not multiplied by all that can happen inside.
//!
//! Arguments are plain numbers, five at most; tables are looked up anew. A call costs about 15 ns: not for established flows.

use lb_common::address::{Address, Be16, Be32};
use lb_ebpf::family::{Ipv4, Ipv6};
use lb_ebpf::open::{Facts, Opening, open};
use lb_ebpf::select::Choice;

use super::tables::KernelTables;

/// Packs what there is to know of an IPv4 flow.
#[inline(always)]
pub(super) fn call4(opening: &Opening<Ipv4>) -> u64 {
    let &Opening { client, port, service, hash, facts } = opening;
    lb_open4((client.0 as u64) << 32 | (port.0 as u64) << 16 | service as u64, hash, facts.0)
}

/// Packs what there is to know of an IPv6 flow.
#[inline(always)]
pub(super) fn call6(opening: &Opening<Ipv6>) -> u64 {
    let &Opening { client, port, service, hash, facts } = opening;
    lb_open6(client.0[0], client.0[1], (port.0 as u64) << 16 | service as u64, hash, facts.0)
}

/// [`open`] for IPv4.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_open4(flow: u64, hash: u64, facts: u64) -> u64 {
    let Some(tables) = KernelTables::new(None) else { return Choice::CONTRADICTION.0 };
    let (client, port, service) = (Be32((flow >> 32) as u32), Be16((flow >> 16) as u16), flow as u16);
    open::<Ipv4, _>(&tables, &Opening { client, port, service, hash, facts: Facts(facts) })
}

/// [`open`] for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_open6(head: u64, tail: u64, flow: u64, hash: u64, facts: u64) -> u64 {
    let Some(tables) = KernelTables::new(None) else { return Choice::CONTRADICTION.0 };
    let (client, port, service) = (Address([head, tail]), Be16((flow >> 16) as u16), flow as u16);
    open::<Ipv6, _>(&tables, &Opening { client, port, service, hash, facts: Facts(facts) })
}
