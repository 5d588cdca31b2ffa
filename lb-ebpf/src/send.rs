//! The last steps of both ways: does it fit, rewrite it, send it out.

use lb_common::next_hop::Hop;
use lb_common::reason::Reason;

use crate::family::Family;
use crate::frame::Frame;
use crate::link;
use crate::next_hops::{Kind, Way};
use crate::parse::Packet;
use crate::reject::{self, Rejection};
use crate::tables::Tables;
use crate::translate::{Forwarder, Rewrite};
use crate::verdict::{Step, Verdict};

/// Rewrites a packet and sends it on its way, or leaves it to the kernel where XDP cannot.
///
/// What would be answered with an error is answered *before* anything is rewritten: the sender does not know the
/// translated packet, so neither the kernel nor we may quote it.
#[inline(always)]
pub fn send<A: Family, F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    packet: &Packet<A>,
    way: &Way,
    translation: &impl Rewrite<A>,
    reason: Reason,
) -> Step<Verdict> {
    let hop = match way.kind {
        Kind::Hop => way.hop,
        Kind::NeighbourUnknown => return leave(frame, packet, translation, Reason::PassNeighbourUnknown),
        Kind::Unfollowable => return leave(frame, packet, translation, Reason::PassForRouting),
        Kind::NoRoute => return Err(Verdict::Drop(Reason::DropNoRoute)),
    };
    if packet.ip.length > hop.mtu {
        if packet.ip.dont_fragment {
            return Err(reject::with(tables, Rejection::TooBig(hop.mtu)));
        }
        return leave(frame, packet, translation, Reason::PassForFragmentation);
    }
    translation.apply(frame, packet, Forwarder::Here)?;
    link::address_to(frame, packet.ip.l3, &hop, A::ETHERTYPE)?;
    Ok(out(frame, &hop, reason))
}

/// Rewrites a packet and leaves it to the kernel.
#[inline(always)]
fn leave<A: Family, F: Frame>(
    frame: &mut F,
    packet: &Packet<A>,
    translation: &impl Rewrite<A>,
    reason: Reason,
) -> Step<Verdict> {
    translation.apply(frame, packet, Forwarder::Kernel)?;
    Ok(Verdict::Pass(reason))
}

/// Out of the hop's interface.
#[inline(always)]
pub fn out<F: Frame>(frame: &F, hop: &Hop, reason: Reason) -> Verdict {
    if hop.ifindex == frame.ingress() {
        Verdict::Transmit(reason)
    } else {
        Verdict::Redirect(reason, hop.ifindex)
    }
}
