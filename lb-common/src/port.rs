//! Full NAT: the addresses and ports that stand for clients towards their backends.
//!
//! A service's *pool* is a set of addresses; each address has the same range of ports
//! ([`Settings::pool_port`](crate::settings::Settings::pool_port)), cut into blocks of equal length. Every port has a
//! row, and two records name each other: the row holds the flow's key, and the flow's word holds a *code*, 12 bits that
//! lead, with a hash of the client, to the row. A packet is translated only where both agree, whichever way it goes: a
//! record that is out of date translates nothing.
//!
//! ```text
//!  11      10        0
//! +-------+-----------+     The hash has two halves; the choice says which of them picks address and block. So a port
//! | choice| offset    |     can be taken from either of two blocks, and a block is full only when most others are too.
//! +-------+-----------+
//! ```

use crate::abi::row;
use crate::address::{Address, Be16};
use crate::atomic::Word;
use crate::settings::Settings;

/// Addresses of all pools together at most: one byte of a pool, and [`NO_ADDRESS`].
pub const MAX_ADDRESSES: u32 = 128;
/// Entry of a pool that names no address.
pub const NO_ADDRESS: u8 = 0xff;
/// Entries of a pool: bytes of two words.
pub const ENTRIES: u32 = 16;
/// Ports of a block at most: 11 bits of a flow's word.
pub const MAX_BLOCK: u32 = 1 << OFFSET_BITS;
/// Ticks for which a port rests after the last packet of the flow that had it: a little longer than Linux's TIME-WAIT, in
/// which the backend may take a new connection for a part of the old one (RFC 9293 section 3.4.3).
pub const REST: u64 = 64;

const OFFSET_BITS: u32 = 11;
const OFFSET_MASK: u16 = (1 << OFFSET_BITS) - 1;

/// An address of a pool: its row.
#[repr(C)]
#[derive(Clone, Debug, Default)]
pub struct PoolAddress {
    /// The address.
    pub address: Address,
    /// 1 while the row is in use.
    pub live: Word,
    /// Zero.
    pub reserved: u64,
}
row!(PoolAddress, 32, { Address, Word, u64 });

/// A port of a pool's address: who has it.
#[repr(C, align(32))]
#[derive(Clone, Debug, Default)]
pub struct Port {
    /// The client's address.
    pub client: [Word; 2],
    /// The client's port and the service: see `Owner::to_word`.
    pub flow: Word,
    /// See [`PortState`]. Whoever swaps it to [`Life::Claimed`] writes the rest.
    pub state: Word,
}
row!(Port, 32, { [Word; 2], Word, Word });

/// The flow that a port belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The client's address.
    pub client: Address,
    /// The client's port.
    pub port: Be16,
    /// The service.
    pub service: u16,
}

impl Owner {
    #[inline(always)]
    const fn to_word(self) -> u64 {
        (self.port.0 as u64) << 16 | self.service as u64
    }
}

impl Port {
    /// Whose port it is; meaningful while it is [`Life::Used`].
    #[inline(always)]
    pub fn owner(&self) -> Owner {
        let flow = self.flow.load();
        Owner {
            client: Address([self.client[0].load(), self.client[1].load()]),
            port: Be16((flow >> 16) as u16),
            service: flow as u16,
        }
    }

    /// Whether it is in use, by that flow.
    #[inline(always)]
    pub fn is_of(&self, owner: &Owner) -> bool {
        PortState(self.state.load()).is(Life::Used)
            && self.flow.load() == owner.to_word()
            && self.client[0].load() == owner.client.0[0]
            && self.client[1].load() == owner.client.0[1]
    }

    /// Takes the port, if it may be taken: claimed, written, in use.
    #[inline(always)]
    pub fn take(&self, seen: PortState, owner: &Owner) -> bool {
        let claimed = seen.claimed();
        if !self.state.replace(seen.0, claimed.0) {
            return false;
        }
        self.client[0].store(owner.client.0[0]);
        self.client[1].store(owner.client.0[1]);
        self.flow.store(owner.to_word());
        // Nobody else touches a claimed row.
        self.state.replace(claimed.0, claimed.used().0)
    }
}

/// What a port is in.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Nobody's, and free to be taken.
    Free = 0,
    /// Being written.
    Claimed = 1,
    /// A flow's.
    Used = 2,
    /// Nobody's, but not yet free.
    Resting = 3,
}

/// A port's state word.
///
/// ```text
///  63     50 49                22 21        10 9          2 1    0
/// +---------+--------------------+------------+------------+------+
/// | 0       | time               | next hop   | generation | life |
/// +---------+--------------------+------------+------------+------+
/// ```
///
/// The time of a resting port is the tick of its flow's last packet; that of one in use is whatever the data plane keeps
/// there. The next hop is the client's. The generation counts the flows that have had the port, so that a late swap
/// against another flow's fails.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortState(pub u64);

const GENERATION_SHIFT: u32 = 2;
const NEXT_HOP_SHIFT: u32 = 10;
const TIME_SHIFT: u32 = 22;
const TIME_MASK: u64 = (1 << 28) - 1;
const TICK_MASK: u64 = (1 << 22) - 1;

impl PortState {
    /// Whether it is in that part of its life.
    #[inline(always)]
    pub const fn is(self, life: Life) -> bool {
        self.0 & 3 == life as u64
    }

    /// The client's next hop; 0 while unknown.
    #[inline(always)]
    pub const fn next_hop(self) -> u16 {
        (self.0 >> NEXT_HOP_SHIFT) as u16 & 0xfff
    }

    /// The same by another next hop.
    #[inline(always)]
    pub const fn by_next_hop(self, next_hop: u16) -> Self {
        Self(self.0 & !(0xfff << NEXT_HOP_SHIFT) | ((next_hop & 0xfff) as u64) << NEXT_HOP_SHIFT)
    }

    /// The time.
    #[inline(always)]
    pub const fn time(self) -> u64 {
        self.0 >> TIME_SHIFT & TIME_MASK
    }

    /// The same at another time.
    #[inline(always)]
    pub const fn at(self, time: u64) -> Self {
        Self(self.0 & !(TIME_MASK << TIME_SHIFT) | (time & TIME_MASK) << TIME_SHIFT)
    }

    /// Whether a flow may take it at `now`, in ticks.
    #[inline(always)]
    pub const fn is_free(self, now: u64) -> bool {
        self.is(Life::Free) || self.is(Life::Resting) && self.rested(now) >= REST
    }

    /// Ticks since the last packet of the flow that had the port. Wraps at 48 days; by then it has long been found free.
    #[inline(always)]
    pub const fn rested(self, now: u64) -> u64 {
        now.wrapping_sub(self.time()) & TICK_MASK
    }

    /// Being taken by the next flow.
    #[inline(always)]
    pub const fn claimed(self) -> Self {
        let generation = (self.0 >> GENERATION_SHIFT).wrapping_add(1) & 0xff;
        Self(generation << GENERATION_SHIFT | Life::Claimed as u64)
    }

    const fn living(self, life: Life) -> Self {
        Self(self.0 & !3 | life as u64)
    }

    /// In use.
    #[inline(always)]
    pub const fn used(self) -> Self {
        self.living(Life::Used)
    }

    /// Nobody's since `last`, in ticks.
    #[inline(always)]
    pub const fn resting(self, last: u64) -> Self {
        self.living(Life::Resting).by_next_hop(0).at(last & TICK_MASK)
    }

    /// Nobody's.
    pub const fn free(self) -> Self {
        self.living(Life::Free).by_next_hop(0).at(0)
    }
}

/// Where a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which of the pools' addresses.
    pub address: u8,
    /// The port.
    pub port: Be16,
    /// Its row.
    pub row: u32,
}

/// A service's pool: an address for each sixteenth of its flows.
#[repr(C)]
#[derive(Clone, Debug, Default)]
pub struct Pool(pub [Word; 2]);

impl Pool {
    /// The pool with these entries.
    pub fn new(entries: [u8; ENTRIES as usize]) -> Self {
        let [head, tail] = Self::words(entries);
        Self([head.into(), tail.into()])
    }

    /// The words that entries are kept in.
    pub fn words(entries: [u8; ENTRIES as usize]) -> [u64; 2] {
        let [head, tail] = *entries.as_chunks::<8>().0 else { return [u64::MAX; 2] };
        [u64::from_le_bytes(head), u64::from_le_bytes(tail)]
    }

    /// Its entries.
    pub fn entries(&self) -> [u8; ENTRIES as usize] {
        let mut entries = [NO_ADDRESS; ENTRIES as usize];
        entries[..8].copy_from_slice(&self.0[0].load().to_le_bytes());
        entries[8..].copy_from_slice(&self.0[1].load().to_le_bytes());
        entries
    }

    #[inline(always)]
    fn entry(&self, number: u32) -> u8 {
        let word = if number & 8 == 0 { self.0[0].load() } else { self.0[1].load() };
        (word >> ((number & 7) * 8)) as u8
    }

    /// The place that a code stands for, of a client with that hash; `None` where it stands for none.
    #[inline(always)]
    pub fn place(&self, settings: &Settings, hash: u64, code: u16) -> Option<Place> {
        let half = half(hash, code);
        let address = self.entry(half);
        let offset = (code & OFFSET_MASK) as u32;
        if address as u32 >= MAX_ADDRESSES || offset >= settings.pool_block {
            return None;
        }
        let block = ((half >> 4 & 0xffff).wrapping_mul(settings.pool_blocks)) >> 16;
        let port = block.wrapping_mul(settings.pool_block).wrapping_add(offset);
        Some(Place {
            address,
            port: Be16::new(settings.pool_port.wrapping_add(port) as u16),
            row: (address as u32).wrapping_mul(settings.pool_ports()).wrapping_add(port),
        })
    }
}

/// The half of a client's hash that a code goes by.
#[inline(always)]
const fn half(hash: u64, code: u16) -> u32 {
    if code >> OFFSET_BITS & 1 == 0 { hash as u32 } else { (hash >> 32) as u32 }
}

/// The code that is tried as the `probe`th of a choice, 0 or 1: a client begins somewhere in its block and goes round.
#[inline(always)]
pub const fn code(settings: &Settings, hash: u64, choice: u16, probe: u32) -> u16 {
    let start = ((half(hash, choice << OFFSET_BITS) >> 20) * settings.pool_block) >> 12;
    let offset = start.wrapping_add(probe);
    let offset =
        if offset >= settings.pool_block { offset.wrapping_sub(settings.pool_block) } else { offset };
    choice << OFFSET_BITS | offset as u16 & OFFSET_MASK
}

/// The row of an address's port; `None` for a port that is not in the pools' range.
#[inline(always)]
pub const fn row_of(settings: &Settings, address: u8, port: Be16) -> Option<u32> {
    let number = (port.get() as u32).wrapping_sub(settings.pool_port);
    if number >= settings.pool_ports() {
        return None;
    }
    Some((address as u32).wrapping_mul(settings.pool_ports()).wrapping_add(number))
}
