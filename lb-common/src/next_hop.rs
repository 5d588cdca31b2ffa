//! Next hops, interned: the link-layer header that leads to a neighbour, found once and used by many.
//!
//! Rows are filled by the data plane from one FIB look-up and never changed while they are live; backends and flows
//! refer to them by index. A row is trusted for a second ([`fresh`](NextHop::fresh)); then the packet that finds it
//! stale looks up its own destination anew. If it comes to the same row, that row is good for another second; if
//! not, the row is retired, and everything that refers to it looks up for itself. So a gateway that changes its
//! address and a route that changes its gateway are followed within about a second, with or without an agent.

use crate::abi::row;
use crate::address::Be16;
use crate::atomic::Word;

/// Rows of the table; index 0 is never used, so that a zero reference says "unknown". 12 bits of a flow's word.
pub const CAPACITY: u32 = 4096;

/// Rows that interning tries from a hash on before it gives up and leaves the hop uncached.
pub const PROBES: u32 = 8;

/// An 802.1Q or 802.1ad tag as it stands in a frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tag {
    /// EtherType of the tag: 0x8100 or 0x88a8.
    pub protocol: Be16,
    /// Priority, drop eligibility and VLAN identifier.
    pub control: Be16,
}

/// What it takes to reach a neighbour.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hop {
    /// Interface that the frame leaves by. A physical one: VLAN devices are resolved to it and their tags.
    pub ifindex: u32,
    /// Largest IP packet that the route takes, in bytes.
    pub mtu: u16,
    /// Tags in front of the payload: 0, 1 or 2 of `tags`.
    pub tag_count: u8,
    /// Zero.
    pub reserved: u8,
    /// The neighbour's address.
    pub destination: [u8; 6],
    /// Our address on the interface.
    pub source: [u8; 6],
    /// Outermost first.
    pub tags: [Tag; 2],
}

/// A row of the table.
#[repr(C)]
#[derive(Clone, Debug, Default)]
pub struct NextHop {
    /// Bits 0-1: a [`RowState`]; the rest: when last confirmed, in jiffies.
    pub state: Word,
    /// The neighbour.
    pub hop: Hop,
    /// Zero.
    pub reserved: [u32; 7],
}
row!(NextHop, 64, { Word, Hop, [u32; 7] });
row!(Hop, 28, { u32, u16, u8, u8, [u8; 6], [u8; 6], [Tag; 2] });

/// A row's life.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowState {
    /// Nobody's.
    Free = 0,
    /// Being written.
    Claimed = 1,
    /// Good since the time beside it.
    Live = 2,
    /// No longer where some destination leads; freed once nothing refers to it.
    Retired = 3,
}

impl NextHop {
    /// The state word of a row confirmed at `jiffies`.
    #[inline(always)]
    pub const fn live(jiffies: u64) -> u64 {
        jiffies << 2 | RowState::Live as u64
    }

    /// Whether a state word is a live row's.
    #[inline(always)]
    pub const fn is_live(state: u64) -> bool {
        state & 3 == RowState::Live as u64
    }

    /// Whether a state word is a live row's that was confirmed less than `lifetime` jiffies ago.
    /// A time in the future counts as fresh: that is how tests and benches hold a row still.
    #[inline(always)]
    pub const fn fresh(state: u64, jiffies: u64, lifetime: u64) -> bool {
        Self::is_live(state) && (jiffies.wrapping_sub(state >> 2) as i64) < lifetime as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freshness_ends_after_the_lifetime() {
        let state = NextHop::live(1000);
        assert!(NextHop::fresh(state, 1249, 250));
        assert!(!NextHop::fresh(state, 1250, 250));
        assert!(NextHop::fresh(state, 10, 250), "the future is fresh");
        assert!(!NextHop::fresh(1000 << 2 | RowState::Retired as u64, 1000, 250));
        assert!(!NextHop::fresh(0, 0, 250));
    }
}
