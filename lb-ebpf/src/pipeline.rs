//! The programs: which steps each takes, in which order.
//!
//! ```text
//! balance         plain TCP and UDP: nearly everything
//!   balance_slow    tags, options, extension headers, fragments, broken frames: the same steps, another parser
//!   balance_icmp    echo and errors
//!     balance_reject  answers of our own, from the frame as it came in
//!   balance_exceptions  flows tracked by exception whose slot has changed: the slow parser, then the flow table
//!   balance_nat        requests to full-NAT services, found by balance and balance_slow
//!     balance_nat_open   those that have no flow or no port yet
//!   balance_nat_reply  replies from such services' backends
//!   balance_nat_icmp   errors about either, found by balance_icmp
//!   balance_retry      resets of flows that nobody has answered, and packets of backends that flows have left
//!     balance_resend     those of the resets that become the client's SYN to another backend
//! ```

use lb_common::reason::Reason;

use crate::family::{Family, Ipv4, Ipv6};
use crate::frame::Frame;
use crate::icmp::Messages;
use crate::parse::{self, Broken, Headers, Packet, Part, Plain};
use crate::reject::Answering;
use crate::tables::Tables;
use crate::verdict::{Stage, Step, Verdict};
use crate::{classify, fragments, icmp, link, nat, reject, reply, request, retry as retrying};

/// The TCP or UDP packet of a frame that an earlier stage has read already; returns from the function where it cannot be.
///
/// A macro, since the verifier does not let a register be saved that some variant of a result left unset, and a packet has
/// many.
macro_rules! packet_again {
    ($family:ident, $frame:ident, $tables:ident, $l3:ident) => {{
        let ip = headers_of_ours::<$family, _, _>($frame, $tables, $l3)?;
        if ip.part == Part::LATER {
            Packet::later_fragment(ip, fragments::ports($frame, $tables, &ip)?)
        } else {
            Packet::read($frame, ip).ok_or(Verdict::INTERNAL)?
        }
    }};
}

/// Moves one frame from the wire to a backend or a client, or says why not. The XDP entry.
#[inline(always)]
pub fn balance<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    match link::ethertype(frame, 12) {
        Some(ethertype) if ethertype == Ipv4::ETHERTYPE => plain::<Ipv4, F, T>(frame, tables),
        Some(ethertype) if ethertype == Ipv6::ETHERTYPE => plain::<Ipv6, F, T>(frame, tables),
        Some(ethertype) if link::is_tag(ethertype) => Verdict::Defer(Stage::Slow),
        _ => Verdict::Pass(Reason::PassNotIp),
    }
}

/// Runs a deferred stage.
#[inline(always)]
pub fn stage<F: Frame, T: Tables>(stage: Stage, frame: &mut F, tables: &T) -> Verdict {
    match stage {
        Stage::Slow => slow(frame, tables),
        Stage::Icmp => icmp(frame, tables),
        Stage::Reject => reject(frame, tables),
        Stage::Exceptions => exceptions(frame, tables),
        Stage::Nat => nat(frame, tables),
        Stage::NatOpen => nat_open(frame, tables),
        Stage::NatReply => nat_reply(frame, tables),
        Stage::NatIcmp => nat_icmp(frame, tables),
        Stage::Retry => retry(frame, tables),
        Stage::Resend => resend(frame, tables),
    }
}

/// Runs a frame through all its stages, as the kernel does by tail calls.
#[cfg(not(target_arch = "bpf"))]
pub fn run<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    let mut verdict = balance(frame, tables);
    while let Verdict::Defer(next) = verdict {
        verdict = stage(next, frame, tables);
    }
    if let Some(reason) = verdict.reason() {
        tables.outcomes().reason(reason).count(1);
    }
    verdict
}

#[inline(always)]
fn plain<A: Plain, F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    finish(plain_ip::<A, F, T>(frame, tables))
}

#[inline(always)]
fn plain_ip<A: Plain, F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Step<Verdict> {
    let ip = A::plain(frame)?;
    if !parse::is_balanced(ip.protocol) {
        return Err(match ip.protocol {
            icmp if icmp == A::ICMP => Verdict::Defer(Stage::Icmp),
            // Behind an extension header there may be a packet of ours; IPv4 has no such thing.
            _ if A::HAS_EXTENSIONS => Verdict::Defer(Stage::Slow),
            _ => Verdict::Pass(Reason::PassNotOurs),
        });
    }
    let packet = Packet::read(frame, ip).ok_or(Verdict::Defer(Stage::Slow))?;
    steer::<A, F, T>(frame, tables, &packet)
}

/// The second look at what the plain parser did not take.
#[inline(always)]
pub fn slow<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    match after_tags(frame) {
        Some((l3, Protocols::Ipv4)) => finish(slow_ip::<Ipv4, F, T>(frame, tables, l3)),
        Some((l3, Protocols::Ipv6)) => finish(slow_ip::<Ipv6, F, T>(frame, tables, l3)),
        None => Verdict::Pass(Reason::PassNotIp),
    }
}

#[inline(always)]
fn slow_ip<A: Plain, F: Frame, T: Tables>(frame: &mut F, tables: &T, l3: usize) -> Step<Verdict> {
    let packet = slow_packet::<A, F, T>(frame, tables, l3)?;
    steer::<A, F, T>(frame, tables, &packet)
}

/// A TCP or UDP packet, however many tags, options, extension headers and fragments it comes with.
#[inline(always)]
fn slow_packet<A: Plain, F: Frame, T: Tables>(frame: &F, tables: &T, l3: usize) -> Step<Packet<A>> {
    let ip = headers_of_ours::<A, F, T>(frame, tables, l3)?;
    if ip.protocol == A::ICMP {
        return Err(Verdict::Defer(Stage::Icmp));
    }
    if !parse::is_balanced(ip.protocol) {
        return Err(Verdict::Pass(Reason::PassNotOurs));
    }
    let packet = if ip.part == Part::LATER {
        Packet::later_fragment(ip, fragments::ports(frame, tables, &ip)?)
    } else {
        let cut_off = Broken::<A> { destination: Some(ip.destination), reason: Reason::DropTruncated };
        Packet::read(frame, ip).ok_or_else(|| broken(tables, cut_off))?
    };
    fragments::remember(frame, tables, &packet);
    Ok(packet)
}

/// Flows tracked by exception, where a slot has changed.
#[inline(always)]
pub fn exceptions<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    match after_tags(frame) {
        Some((l3, Protocols::Ipv4)) => finish(exceptions_ip::<Ipv4, F, T>(frame, tables, l3)),
        Some((l3, Protocols::Ipv6)) => finish(exceptions_ip::<Ipv6, F, T>(frame, tables, l3)),
        None => Verdict::Pass(Reason::PassNotIp),
    }
}

#[inline(always)]
fn exceptions_ip<A: Plain, F: Frame, T: Tables>(frame: &mut F, tables: &T, l3: usize) -> Step<Verdict> {
    let packet = &slow_packet::<A, F, T>(frame, tables, l3)?;
    let settings = tables.settings();
    let ip = &packet.ip;
    if let Some(service) =
        classify::service::<A, T>(tables, ip.destination, packet.destination_port, ip.protocol)
    {
        return request::forward_exception(frame, tables, settings, packet, &service);
    }
    let backend = classify::endpoint::<A, T>(tables, ip.source, packet.source_port, ip.protocol)
        .ok_or(Verdict::Pass(Reason::PassNotOurs))?;
    reply::forward_exception(frame, tables, settings, packet, backend)
}

/// The headers of a packet; a broken one is dropped where it goes to a virtual address, and passed where it does not.
#[inline(always)]
fn headers_of_ours<A: Plain, F: Frame, T: Tables>(frame: &F, tables: &T, l3: usize) -> Step<Headers<A>> {
    A::headers(frame, l3).map_err(|error| broken(tables, error))
}

#[inline(always)]
fn broken<A: Plain, T: Tables>(tables: &T, broken: Broken<A>) -> Verdict {
    match broken.destination {
        Some(destination) if classify::is_vip::<A, T>(tables, destination) => Verdict::Drop(broken.reason),
        _ => Verdict::Pass(Reason::PassNotOurs),
    }
}

/// To a backend, to a client, or past us.
#[inline(always)]
fn steer<A: Plain, F: Frame, T: Tables>(frame: &mut F, tables: &T, packet: &Packet<A>) -> Step<Verdict> {
    let settings = tables.settings();
    let ip = &packet.ip;
    if let Some(service) =
        classify::service::<A, T>(tables, ip.destination, packet.destination_port, ip.protocol)
    {
        if nat::is_for(service.row) {
            return Err(Verdict::Defer(Stage::Nat));
        }
        return request::forward(frame, tables, settings, packet, &service);
    }
    if let Some(backend) = classify::endpoint::<A, T>(tables, ip.source, packet.source_port, ip.protocol) {
        if backend.row.is_behind_full_nat() {
            return Err(Verdict::Defer(Stage::NatReply));
        }
        return reply::forward(frame, tables, settings, packet, backend);
    }
    Err(Verdict::Pass(Reason::PassNotOurs))
}

/// Requests to full-NAT services, whatever they look like.
#[inline(always)]
pub fn nat<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    match after_tags(frame) {
        Some((l3, Protocols::Ipv4)) => finish(nat_ip::<Ipv4, F, T>(frame, tables, l3)),
        Some((l3, Protocols::Ipv6)) => finish(nat_ip::<Ipv6, F, T>(frame, tables, l3)),
        None => Verdict::Pass(Reason::PassNotIp),
    }
}

#[inline(always)]
fn nat_ip<A: Plain, F: Frame, T: Tables>(frame: &mut F, tables: &T, l3: usize) -> Step<Verdict> {
    let packet = packet_again!(A, frame, tables, l3);
    nat::forward(frame, tables, &packet)
}

/// Those that have no flow or no port yet.
#[inline(always)]
pub fn nat_open<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    match after_tags(frame) {
        Some((l3, Protocols::Ipv4)) => finish(nat_open_ip::<Ipv4, F, T>(frame, tables, l3)),
        Some((l3, Protocols::Ipv6)) => finish(nat_open_ip::<Ipv6, F, T>(frame, tables, l3)),
        None => Verdict::Pass(Reason::PassNotIp),
    }
}

#[inline(always)]
fn nat_open_ip<A: Plain, F: Frame, T: Tables>(frame: &mut F, tables: &T, l3: usize) -> Step<Verdict> {
    let packet = packet_again!(A, frame, tables, l3);
    nat::open(frame, tables, &packet)
}

/// Replies from full-NAT services' backends.
#[inline(always)]
pub fn nat_reply<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    match after_tags(frame) {
        Some((l3, Protocols::Ipv4)) => finish(nat_reply_ip::<Ipv4, F, T>(frame, tables, l3)),
        Some((l3, Protocols::Ipv6)) => finish(nat_reply_ip::<Ipv6, F, T>(frame, tables, l3)),
        None => Verdict::Pass(Reason::PassNotIp),
    }
}

#[inline(always)]
fn nat_reply_ip<A: Plain, F: Frame, T: Tables>(frame: &mut F, tables: &T, l3: usize) -> Step<Verdict> {
    let packet = packet_again!(A, frame, tables, l3);
    nat::reply(frame, tables, &packet)
}

/// ICMP errors about packets of full-NAT services.
#[inline(always)]
pub fn nat_icmp<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    match after_tags(frame) {
        Some((l3, Protocols::Ipv4)) => finish(nat_icmp_ip::<Ipv4, F, T>(frame, tables, l3)),
        Some((l3, Protocols::Ipv6)) => finish(nat_icmp_ip::<Ipv6, F, T>(frame, tables, l3)),
        None => Verdict::Pass(Reason::PassNotIp),
    }
}

#[inline(always)]
fn nat_icmp_ip<A: Plain + Messages, F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    l3: usize,
) -> Step<Verdict> {
    let ip = headers_of_ours::<A, F, T>(frame, tables, l3)?;
    nat::handle_error(frame, tables, &ip)
}

/// Resets of flows that nobody has answered, and packets of backends that flows have left.
#[inline(always)]
pub fn retry<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    match after_tags(frame) {
        Some((l3, Protocols::Ipv4)) => finish(retry_ip::<Ipv4, F, T>(frame, tables, l3)),
        Some((l3, Protocols::Ipv6)) => finish(retry_ip::<Ipv6, F, T>(frame, tables, l3)),
        None => Verdict::Pass(Reason::PassNotIp),
    }
}

#[inline(always)]
fn retry_ip<A: Plain, F: Frame, T: Tables>(frame: &mut F, tables: &T, l3: usize) -> Step<Verdict> {
    let packet = packet_again!(A, frame, tables, l3);
    retrying::handle(frame, tables, &packet)
}

/// Resets that become the client's SYN to another backend.
#[inline(always)]
pub fn resend<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    match after_tags(frame) {
        Some((l3, Protocols::Ipv4)) => finish(resend_ip::<Ipv4, F, T>(frame, tables, l3)),
        Some((l3, Protocols::Ipv6)) => finish(resend_ip::<Ipv6, F, T>(frame, tables, l3)),
        None => Verdict::Pass(Reason::PassNotIp),
    }
}

#[inline(always)]
fn resend_ip<A: Plain + Answering, F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    l3: usize,
) -> Step<Verdict> {
    let packet = packet_again!(A, frame, tables, l3);
    retrying::resend(frame, tables, &packet)
}

/// ICMP: echo to a virtual address, errors about our packets.
#[inline(always)]
pub fn icmp<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    match after_tags(frame) {
        Some((l3, Protocols::Ipv4)) => finish(icmp_ip::<Ipv4, F, T>(frame, tables, l3)),
        Some((l3, Protocols::Ipv6)) => finish(icmp_ip::<Ipv6, F, T>(frame, tables, l3)),
        None => Verdict::Pass(Reason::PassNotIp),
    }
}

#[inline(always)]
fn icmp_ip<A: Plain + Messages, F: Frame, T: Tables>(frame: &mut F, tables: &T, l3: usize) -> Step<Verdict> {
    let ip = headers_of_ours::<A, F, T>(frame, tables, l3)?;
    icmp::handle(frame, tables, &ip)
}

/// Answers of our own.
#[inline(always)]
pub fn reject<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    match after_tags(frame) {
        Some((l3, Protocols::Ipv4)) => finish(reject_ip::<Ipv4, F, T>(frame, tables, l3)),
        Some((l3, Protocols::Ipv6)) => finish(reject_ip::<Ipv6, F, T>(frame, tables, l3)),
        None => Verdict::Pass(Reason::PassNotIp),
    }
}

#[inline(always)]
fn reject_ip<A: Plain + Answering, F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    l3: usize,
) -> Step<Verdict> {
    let ip = headers_of_ours::<A, F, T>(frame, tables, l3)?;
    reject::answer(frame, tables, ip)
}

enum Protocols {
    Ipv4,
    Ipv6,
}

/// Where the IP header starts, behind at most two tags.
#[inline(always)]
fn after_tags<F: Frame>(frame: &F) -> Option<(usize, Protocols)> {
    let mut l3 = link::HEADER;
    let mut ethertype = link::ethertype(frame, l3 - 2)?;
    if link::is_tag(ethertype) {
        l3 += link::TAG;
        ethertype = link::ethertype(frame, l3 - 2)?;
        if link::is_tag(ethertype) {
            l3 += link::TAG;
            ethertype = link::ethertype(frame, l3 - 2)?;
        }
    }
    let l3 = frame.forget(l3);
    if ethertype == Ipv4::ETHERTYPE {
        Some((l3, Protocols::Ipv4))
    } else if ethertype == Ipv6::ETHERTYPE {
        Some((l3, Protocols::Ipv6))
    } else {
        None
    }
}

/// Both arms of a step are verdicts in the end.
#[inline(always)]
fn finish(step: Step<Verdict>) -> Verdict {
    match step {
        Ok(verdict) | Err(verdict) => verdict,
    }
}
