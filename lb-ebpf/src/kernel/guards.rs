//! Functions that the verifier checks by themselves, once and for any arguments, because they are exported.
//!
//! Arguments are plain numbers, five at most; tables are looked up anew. A call costs some 15 ns: not for established flows
//! of services that have nothing of the kind.

use lb_common::address::{Address, Be16, Be32};
use lb_ebpf::family::{Ipv4, Ipv6};
use lb_ebpf::open::{Facts, Opening};
use lb_ebpf::{clash, flood, retry};

use super::tables::KernelTables;

/// [`flood::allows`].
#[inline(always)]
pub(super) fn allows(service: u16, options: u64, client: Address) -> bool {
    let [head, tail] = client.0;
    lb_allows(service as u64, options, head, tail) != 0
}

/// [`clash::settle`] for IPv4.
#[inline(always)]
pub(super) fn settle4(opening: &Opening<Ipv4>, chosen: u16) -> u16 {
    let &Opening { client, port, hash, .. } = opening;
    lb_settle4((client.0 as u64) << 32 | (port.0 as u64) << 16 | chosen as u64, hash) as u16
}

/// [`clash::settle`] for IPv6.
#[inline(always)]
pub(super) fn settle6(opening: &Opening<Ipv6>, chosen: u16) -> u16 {
    let &Opening { client, port, hash, .. } = opening;
    lb_settle6(client.0[0], client.0[1], (port.0 as u64) << 16 | chosen as u64, hash) as u16
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_settle4(flow: u64, hash: u64) -> u64 {
    let Some(tables) = KernelTables::new(None) else { return 0 };
    let (client, port) = (Be32((flow >> 32) as u32), Be16((flow >> 16) as u16));
    let opening = Opening::<Ipv4> { client, port, service: 0, hash, facts: Facts(0) };
    clash::settle(&tables, &opening, flow as u16) as u64
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_settle6(head: u64, tail: u64, flow: u64, hash: u64) -> u64 {
    let Some(tables) = KernelTables::new(None) else { return 0 };
    let (client, port) = (Address([head, tail]), Be16((flow >> 16) as u16));
    let opening = Opening::<Ipv6> { client, port, service: 0, hash, facts: Facts(0) };
    clash::settle(&tables, &opening, flow as u16) as u64
}

/// [`retry::next`] for IPv4.
#[inline(always)]
pub(super) fn next4(flow: &Opening<Ipv4>, excluded: u64) -> u16 {
    let &Opening { client, port, service, hash, .. } = flow;
    lb_next4((client.0 as u64) << 32 | (port.0 as u64) << 16 | service as u64, hash, excluded) as u16
}

/// [`retry::next`] for IPv6.
#[inline(always)]
pub(super) fn next6(flow: &Opening<Ipv6>, excluded: u64) -> u16 {
    let &Opening { client, port, service, hash, .. } = flow;
    lb_next6(client.0[0], client.0[1], (port.0 as u64) << 16 | service as u64, hash, excluded) as u16
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_next4(flow: u64, hash: u64, excluded: u64) -> u64 {
    let Some(tables) = KernelTables::new(None) else { return 0 };
    let (client, port, service) = (Be32((flow >> 32) as u32), Be16((flow >> 16) as u16), flow as u16);
    let flow = Opening::<Ipv4> { client, port, service, hash, facts: Facts(0) };
    retry::next(&tables, &flow, excluded) as u64
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_next6(head: u64, tail: u64, flow: u64, hash: u64, excluded: u64) -> u64 {
    let Some(tables) = KernelTables::new(None) else { return 0 };
    let (client, port, service) = (Address([head, tail]), Be16((flow >> 16) as u16), flow as u16);
    let flow = Opening::<Ipv6> { client, port, service, hash, facts: Facts(0) };
    retry::next(&tables, &flow, excluded) as u64
}

/// [`clash::candidate`].
#[inline(always)]
pub(super) fn candidate(place: u64, at: u32) -> u64 {
    lb_candidate(place, at as u64)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_candidate(place: u64, at: u64) -> u64 {
    let Some(tables) = KernelTables::new(None) else { return 0 };
    clash::candidate(&tables, place, at as u32)
}

/// [`clash::is_taken`].
#[inline(always)]
pub(super) fn is_taken(id: u16, home: u64, second: u64) -> bool {
    lb_is_taken(id as u64, home, second) != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_is_taken(id: u64, home: u64, second: u64) -> u64 {
    let Some(tables) = KernelTables::new(None) else { return 1 };
    clash::is_taken(&tables, id as u16, [home, second]) as u64
}

/// [`flood::refuses`].
#[inline(always)]
pub(super) fn refuses(service: u16, options: u64, client: Address) -> u32 {
    let [head, tail] = client.0;
    lb_refuses(service as u64, options, head, tail) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_refuses(service: u64, options: u64, head: u64, tail: u64) -> u64 {
    let Some(tables) = KernelTables::new(None) else { return 0 };
    flood::refuses(&tables, service as u16, options, Address([head, tail])) as u64
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_allows(service: u64, options: u64, head: u64, tail: u64) -> u64 {
    let Some(tables) = KernelTables::new(None) else { return 1 };
    flood::allows(&tables, service as u16, options, Address([head, tail])) as u64
}
