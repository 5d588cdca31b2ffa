//! Rewrites one end of a packet: address, port, and every checksum that covers them.

use lb_common::address::{Be16, Protocol};
use lb_common::backend::Backend;
use lb_common::checksum::Delta;

use crate::family::{Family, Side};
use crate::frame::{Fields, FieldsMut, Frame};
use crate::parse::{Headers, Packet};
use crate::verdict::{Step, Verdict};

/// Offset of a TCP header's checksum.
pub const TCP_CHECKSUM: usize = 16;
/// Offset of a UDP header's checksum.
pub const UDP_CHECKSUM: usize = 6;

/// One end replaced by another.
#[derive(Clone, Copy, Debug)]
pub struct Translation<A: Family> {
    /// Which end.
    pub side: Side,
    /// Its new address.
    pub address: A::Address,
    /// Its new port.
    pub port: Be16,
    /// What the new address does to a checksum over addresses.
    pub address_delta: Delta,
    /// What address and port together do.
    pub endpoint_delta: Delta,
}

impl<A: Family> Translation<A> {
    /// One end given another address and port.
    #[inline(always)]
    pub fn between(side: Side, old: (A::Address, Be16), new: (A::Address, Be16)) -> Self {
        let address_delta = Delta::address(&A::widen(old.0), &A::widen(new.0));
        let endpoint_delta = address_delta.and(Delta::port(old.1, new.1));
        Self { side, address: new.0, port: new.1, address_delta, endpoint_delta }
    }

    /// A request's destination: from the virtual address to the backend.
    #[inline(always)]
    pub fn to_backend(backend: &Backend) -> Self {
        Self {
            side: Side::Destination,
            address: A::narrow(&backend.address),
            port: backend.port,
            address_delta: backend.address_delta,
            endpoint_delta: backend.endpoint_delta,
        }
    }

    /// A reply's source: from the backend to the virtual address.
    #[inline(always)]
    pub fn from_backend(backend: &Backend) -> Self {
        Self {
            side: Side::Source,
            address: A::narrow(&backend.vip),
            port: backend.vip_port,
            address_delta: backend.address_delta.reversed(),
            endpoint_delta: backend.endpoint_delta.reversed(),
        }
    }

    /// Rewrites the IP header.
    #[inline(always)]
    pub fn apply_ip<F: Frame>(&self, frame: &mut F, ip: &Headers<A>, by: Forwarder) -> Option<()> {
        let hop_limit = match by {
            Forwarder::Here => ip.hop_limit.wrapping_sub(1),
            Forwarder::Kernel => ip.hop_limit,
        };
        A::rewrite(frame, ip.l3, (self.side, self.address), hop_limit, self.address_delta)
    }

    #[inline(always)]
    fn apply_transport<F: Frame>(&self, frame: &mut F, packet: &Packet<A>) -> Option<()> {
        let l4 = packet.ip.l4;
        if packet.ip.protocol == Protocol::TCP {
            let mut header = frame.fields_mut::<20>(l4)?;
            write_port(&mut header, self.side, self.port);
            let field = u16::from_ne_bytes(header.get::<TCP_CHECKSUM, 2>());
            header.set::<TCP_CHECKSUM, 2>(self.endpoint_delta.apply(field).to_ne_bytes());
        } else {
            let mut header = frame.fields_mut::<8>(l4)?;
            write_port(&mut header, self.side, self.port);
            if !packet.unchecked {
                let field = u16::from_ne_bytes(header.get::<UDP_CHECKSUM, 2>());
                header.set::<UDP_CHECKSUM, 2>(self.endpoint_delta.apply_udp(field).to_ne_bytes());
            }
        }
        Some(())
    }
}

/// What a packet becomes.
pub trait Rewrite<A: Family> {
    /// Rewrites a packet. Where the kernel forwards it afterwards, the kernel also takes the hop off its TTL.
    fn apply<F: Frame>(&self, frame: &mut F, packet: &Packet<A>, by: Forwarder) -> Step<()>;
}

impl<A: Family> Rewrite<A> for Translation<A> {
    #[inline(always)]
    fn apply<F: Frame>(&self, frame: &mut F, packet: &Packet<A>, by: Forwarder) -> Step<()> {
        self.apply_ip(frame, &packet.ip, by).ok_or(Verdict::INTERNAL)?;
        if packet.has_transport {
            self.apply_transport(frame, packet).ok_or(Verdict::INTERNAL)?;
        }
        Ok(())
    }
}

/// Both ends replaced.
#[derive(Clone, Copy, Debug)]
pub struct Both<A: Family> {
    /// One end.
    pub first: Translation<A>,
    /// The other.
    pub second: Translation<A>,
}

impl<A: Family> Rewrite<A> for Both<A> {
    #[inline(always)]
    fn apply<F: Frame>(&self, frame: &mut F, packet: &Packet<A>, by: Forwarder) -> Step<()> {
        // The TTL is written, not counted down: twice is as good as once.
        self.first.apply(frame, packet, by)?;
        self.second.apply(frame, packet, by)
    }
}

/// Who sends the packet on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarder {
    /// XDP: the hop is counted here.
    Here,
    /// The kernel's stack, which counts it.
    Kernel,
}

#[inline(always)]
fn write_port<const N: usize>(header: &mut impl FieldsMut<N>, side: Side, port: Be16) {
    match side {
        Side::Source => header.set::<0, 2>(port.to_wire()),
        Side::Destination => header.set::<2, 2>(port.to_wire()),
    }
}

#[cfg(test)]
mod tests;
