//! A service: a virtual address, port and protocol, and the table its new flows are spread by.

use crate::abi::row;
use crate::address::{Address, Be16, Protocol};
use crate::atomic::Word;

/// A service's row. Everything but the table word stays as it is for as long as the identifier is in use:
/// a changed address, port or protocol is another service.
#[repr(C)]
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// The virtual address.
    pub vip: Address,
    /// The table: see [`Table`]. One word, so that base, length and index function change together.
    pub table: Word,
    /// Keys the hash that picks a slot. A property of the service, not of the node: two nodes choose alike.
    pub seed: u64,
    /// The virtual port.
    pub port: Be16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// 1 while the row is in use.
    pub live: u8,
    /// Zero.
    pub reserved: [u32; 7],
}
row!(Service, 64, { Address, Word, u64, Be16, Protocol, u8, [u32; 7] });

/// How a packet is mapped to a slot.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    /// Keyed hash of the client's address and port.
    Flow = 0,
}

/// What a new flow meets while no backend takes traffic.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnNoBackend {
    /// A TCP reset, or an ICMP "port unreachable" for UDP.
    Reset = 0,
    /// Nothing.
    Drop = 1,
}

/// A service's table word.
///
/// ```text
///  63      56 55     48 47                24 23                 0
/// +----------+---------+--------------------+--------------------+
/// | on no bk | index   | first slot line    | slots              |
/// +----------+---------+--------------------+--------------------+
/// ```
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table(pub u64);

impl Table {
    /// Slots that a table can have.
    pub const MAX_SLOTS: u32 = (1 << 24) - 1;

    /// A table of `slots` slots that starts at a line of the slot array; no slots: no backend takes traffic.
    #[inline(always)]
    pub const fn new(line: u32, slots: u32, index: Index, on_no_backend: OnNoBackend) -> Self {
        Self(
            (on_no_backend as u64) << 56
                | (index as u64) << 48
                | ((line & 0xff_ffff) as u64) << 24
                | (slots & 0xff_ffff) as u64,
        )
    }

    /// Its length.
    #[inline(always)]
    pub const fn slots(self) -> u32 {
        self.0 as u32 & 0xff_ffff
    }

    /// Its first line in the slot array.
    #[inline(always)]
    pub const fn line(self) -> u32 {
        (self.0 >> 24) as u32 & 0xff_ffff
    }

    /// What a new flow meets while there is no slot.
    #[inline(always)]
    pub const fn on_no_backend(self) -> OnNoBackend {
        match self.0 >> 56 & 1 {
            0 => OnNoBackend::Reset,
            _ => OnNoBackend::Drop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_word_keeps_its_parts_apart() {
        let table = Table::new(0xff_fffe, 65_537, Index::Flow, OnNoBackend::Drop);
        assert_eq!(
            (table.line(), table.slots(), table.on_no_backend()),
            (0xff_fffe, 65_537, OnNoBackend::Drop)
        );
        assert_eq!(Table::new(0, 0, Index::Flow, OnNoBackend::Reset).0, 0);
    }
}
