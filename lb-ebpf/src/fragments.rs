//! Fragments: only a datagram's first has the ports, so these are remembered for the others.
//!
//! Remembered is every first fragment to a virtual address, and every one from a backend of a protocol that it serves,
//! whatever the ports: a datagram that is not ours must stay so to its end. Hence a later fragment of either kind whose
//! first is not known came before it, or the first was lost; without ports nobody can say whose it is. It is dropped:
//! were it ours, the receiver could not put it together with its translated first.
//!
//! Fragments are rare. What is done about them are functions of their own in the kernel too, with plain arguments, and
//! take the addresses from the frame: the program has neither stack nor states of the verifier to spare.

use lb_common::address::{Be16, Protocol};
use lb_common::fragment::{FragmentKey, Ports};
use lb_common::reason::Reason;

use crate::classify;
use crate::family::{Family, Side};
use crate::frame::Frame;
use crate::parse::{Headers, Packet, Part};
use crate::tables::Tables;
use crate::verdict::{Step, Verdict};

/// Remembers a first fragment's ports; does nothing for other packets.
#[inline(always)]
pub fn remember<A: Family, F: Frame, T: Tables>(frame: &F, tables: &T, packet: &Packet<A>) {
    if packet.ip.part == Part::FIRST {
        let ports = (packet.source_port.0 as u32) << 16 | packet.destination_port.0 as u32;
        enter::<A, F, T>(frame, tables, packet.ip.l3, datagram(&packet.ip), ports);
    }
}

/// The ports of the datagram that a later fragment belongs to.
#[inline(always)]
pub fn ports<A: Family, F: Frame, T: Tables>(frame: &F, tables: &T, ip: &Headers<A>) -> Step<Ports> {
    let found = find::<A, F, T>(frame, tables, ip.l3, datagram(ip));
    match found >> 32 {
        FOUND => Ok(Ports { source: Be16((found >> 16) as u16), destination: Be16(found as u16) }),
        TO_VIP => Err(Verdict::Drop(Reason::DropFragmentBeforeFirst)),
        FROM_BACKEND => Err(Verdict::Drop(Reason::DropReplyFragmentBeforeFirst)),
        _ => Err(Verdict::Pass(Reason::PassNotOurs)),
    }
}

/// Protocol and identification of a datagram in one word.
#[inline(always)]
fn datagram<A: Family>(ip: &Headers<A>) -> u64 {
    (ip.protocol.0 as u64) << 32 | ip.identification as u64
}

/// What is known of a later fragment: upper half of a word whose lower half are the ports, if there are.
const FOUND: u64 = 1;
/// Its first is not known, and it goes to a virtual address.
const TO_VIP: u64 = 2;
/// Its first is not known, and it comes from a backend.
const FROM_BACKEND: u64 = 3;
/// It does not concern us.
const NOT_OURS: u64 = 4;

#[inline(never)]
fn enter<A: Family, F: Frame, T: Tables>(frame: &F, tables: &T, l3: usize, datagram: u64, ports: u32) {
    if let Some(key) = key::<A, F>(frame, l3, datagram)
        && concern::<A, T>(tables, &key) != NOT_OURS
    {
        let ports = Ports { source: Be16((ports >> 16) as u16), destination: Be16(ports as u16) };
        tables.remember_fragment(&key, ports);
    }
}

#[inline(never)]
fn find<A: Family, F: Frame, T: Tables>(frame: &F, tables: &T, l3: usize, datagram: u64) -> u64 {
    let Some(key) = key::<A, F>(frame, l3, datagram) else { return NOT_OURS << 32 };
    match tables.fragment(&key) {
        Some(ports) => FOUND << 32 | (ports.source.0 as u64) << 16 | ports.destination.0 as u64,
        None => concern::<A, T>(tables, &key) << 32,
    }
}

#[inline(always)]
fn key<A: Family, F: Frame>(frame: &F, l3: usize, datagram: u64) -> Option<FragmentKey> {
    Some(FragmentKey {
        source: A::widen(A::read_address(frame, l3, Side::Source)?),
        destination: A::widen(A::read_address(frame, l3, Side::Destination)?),
        identification: datagram as u32,
        protocol: (datagram >> 32) as u32,
    })
}

/// Whom a datagram may concern, by its addresses alone.
#[inline(always)]
fn concern<A: Family, T: Tables>(tables: &T, key: &FragmentKey) -> u64 {
    if classify::is_vip::<A, T>(tables, A::narrow(&key.destination)) {
        TO_VIP
    } else if classify::is_host::<A, T>(tables, A::narrow(&key.source), Protocol(key.protocol as u8)) {
        FROM_BACKEND
    } else {
        NOT_OURS
    }
}
