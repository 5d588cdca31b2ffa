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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hop {
    /// Interface that the frame leaves by. A physical one: VLAN devices are resolved to it and their tags.
    pub ifindex: u32,
    /// Largest IP packet that the route takes, in bytes.
    pub mtu: u16,
    /// Tags in front of the payload: 0, 1 or 2 of `tags`.
    pub tag_count: u8,
    /// The neighbour's address.
    pub destination: [u8; 6],
    /// Our address on the interface.
    pub source: [u8; 6],
    /// Outermost first.
    pub tags: [Tag; 2],
}

impl Hop {
    /// As a row keeps it: equal hops, and only those, have equal words.
    #[inline(always)]
    pub const fn to_words(&self) -> [u64; 4] {
        [
            self.ifindex as u64 | (self.mtu as u64) << 32 | (self.tag_count as u64) << 48,
            mac_to_word(self.destination),
            mac_to_word(self.source),
            self.tags[0].to_word() | self.tags[1].to_word() << 32,
        ]
    }

    /// The hop that a row keeps.
    #[inline(always)]
    pub const fn from_words(words: [u64; 4]) -> Self {
        Self {
            ifindex: words[0] as u32,
            mtu: (words[0] >> 32) as u16,
            tag_count: (words[0] >> 48) as u8,
            destination: mac_from_word(words[1]),
            source: mac_from_word(words[2]),
            tags: [Tag::from_word(words[3]), Tag::from_word(words[3] >> 32)],
        }
    }
}

#[inline(always)]
const fn mac_to_word(mac: [u8; 6]) -> u64 {
    u64::from_ne_bytes([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], 0, 0])
}

#[inline(always)]
const fn mac_from_word(word: u64) -> [u8; 6] {
    let [a, b, c, d, e, f, ..] = word.to_ne_bytes();
    [a, b, c, d, e, f]
}

impl Tag {
    #[inline(always)]
    const fn to_word(self) -> u64 {
        self.protocol.0 as u64 | (self.control.0 as u64) << 16
    }

    #[inline(always)]
    const fn from_word(word: u64) -> Self {
        Self { protocol: Be16(word as u16), control: Be16((word >> 16) as u16) }
    }
}

/// A row of the table.
#[repr(C, align(64))]
#[derive(Clone, Debug, Default)]
pub struct NextHop {
    /// Bits 0-1: a [`RowState`]; the rest: when last confirmed, in jiffies.
    pub state: Word,
    /// The [`Hop`], written once while the row is claimed.
    pub hop: [Word; 4],
    /// Zero.
    pub reserved: [u64; 3],
}
row!(NextHop, 64, { Word, [Word; 4], [u64; 3] });

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
    /// The hop of a live row.
    #[inline(always)]
    pub fn read(&self) -> Hop {
        Hop::from_words([self.hop[0].load(), self.hop[1].load(), self.hop[2].load(), self.hop[3].load()])
    }

    /// Whether the row holds this hop.
    #[inline(always)]
    pub fn holds(&self, words: &[u64; 4]) -> bool {
        self.hop[0].load() == words[0]
            && self.hop[1].load() == words[1]
            && self.hop[2].load() == words[2]
            && self.hop[3].load() == words[3]
    }

    /// Writes the hop; only whoever claimed the row may.
    #[inline(always)]
    pub fn write(&self, words: &[u64; 4]) {
        self.hop[0].store(words[0]);
        self.hop[1].store(words[1]);
        self.hop[2].store(words[2]);
        self.hop[3].store(words[3]);
    }

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
    fn hops_survive_the_way_there_and_back() {
        let hop = Hop {
            ifindex: 7,
            mtu: 9000,
            tag_count: 2,
            destination: [2, 0, 0, 0, 0, 1],
            source: [2, 0, 0, 0, 0, 2],
            tags: [
                Tag { protocol: Be16::new(0x88a8), control: Be16::new(100) },
                Tag { protocol: Be16::new(0x8100), control: Be16::new(0xffff) },
            ],
        };
        assert_eq!(Hop::from_words(hop.to_words()), hop);
    }

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
