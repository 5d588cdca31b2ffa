//! The slot array: every service's table, two bytes a slot.

use crate::abi::row;

/// Slots of a line. A BPF array rounds its elements up to eight bytes, so slots are kept by the cache line.
pub const SLOTS_PER_LINE: u32 = 32;

/// 32 slots. A slot is a backend's identifier; 0 is nobody's and never in a table that a service names.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotLine {
    /// Backend identifiers.
    pub backends: [u16; SLOTS_PER_LINE as usize],
}
row!(SlotLine, 64, { [u16; SLOTS_PER_LINE as usize] });

/// Lines that a table of this many slots takes.
pub const fn lines(slots: u32) -> u32 {
    slots.div_ceil(SLOTS_PER_LINE)
}
