//! A service: a virtual address, port and protocol, and the table its new flows are spread by.

use crate::abi::row;
use crate::address::{Address, Be16, Protocol};
use crate::atomic::Word;
use crate::port::Pool;

/// A service's row. Everything but the table and the options stays as it is for as long as the identifier is in use:
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
    /// What else it does: see [`Options`]. One word, changed while packets read it.
    pub options: Word,
    /// The virtual port.
    pub port: Be16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// 1 while the row is in use.
    pub live: u8,
    /// Zero.
    pub reserved: u32,
    /// With [`Options::FULL_NAT`]: the addresses that stand for its clients. Changed while packets read it.
    pub pool: Pool,
}
row!(Service, 64, { Address, Word, u64, Word, Be16, Protocol, u8, u32, Pool });

/// What the data plane keeps for a service, shared by all CPUs. In a line of its own: the row itself is only read.
#[repr(C, align(64))]
#[derive(Clone, Debug, Default)]
pub struct ServiceState {
    /// New flows that were spread in turn ([`Index::RoundRobin`]).
    pub cursor: Word,
    /// Where flows are tracked by exception: the tick of the last change of a slot's owner, or of the last flow from
    /// before it that could not be remembered. 0 while no slot has another base than its owner.
    pub changed: Word,
    /// State of the limit of new flows: see [`Limit::admit`](crate::limit::Limit::admit).
    pub limit: Word,
    /// That [limit](crate::limit::Limit). Written by the agent.
    pub service_limit: Word,
    /// The limit of each source of new flows. Written by the agent.
    pub source_limit: Word,
    /// Zero.
    pub reserved: [u64; 3],
}
/// [`ServiceState::changed`] of a change whose time the agent has not noted yet: now.
pub const CHANGED_NOW: u64 = u64::MAX;

row!(ServiceState, 64, { Word, Word, Word, Word, Word, [u64; 3] });

/// A service's options word.
///
/// ```text
///  63   56 55              40 39                16 15             0
/// +-------+------------------+--------------------+----------------+
/// | 0     | list generation  | affinity (ticks)   | flags          |
/// +-------+------------------+--------------------+----------------+
/// ```
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options(pub u64);

impl Options {
    /// A flow whose backend is gone is ended towards its client instead of given another backend.
    pub const RESET_ON_BACKEND_DOWN: Self = Self(1 << 0);
    /// Flows of a client go where those before them went.
    pub const AFFINITY: Self = Self(1 << 4);
    /// Flows are remembered only where their slot has changed hands; slots are pairs ([`crate::slot::Owners`]).
    pub const EXCEPTIONS: Self = Self(1 << 5);
    /// Packets go to the backends from an address and a port of the service's pool. Not changed while the row is in use.
    pub const FULL_NAT: Self = Self(1 << 6);

    /// A TCP flow that its backend refuses or does not answer is given another ([`crate::syn`]).
    pub const RETRY: Self = Self(1 << 7);

    /// With [affinity](Self::AFFINITY) for so many ticks since the client's last new flow, 24 bits of them.
    #[inline(always)]
    pub const fn with_affinity(self, ticks: u64) -> Self {
        Self(self.with(Self::AFFINITY).0 & !(0xff_ffff << 16) | (ticks & 0xff_ffff) << 16)
    }

    /// How long a client's affinity holds, in ticks.
    #[inline(always)]
    pub const fn affinity(self) -> u64 {
        self.0 >> 16 & 0xff_ffff
    }

    /// Clients are looked up in [prefix lists](crate::prefix).
    pub const PREFIX_LISTS: Self = Self(1 << 1);
    /// New flows are limited.
    pub const LIMIT_SERVICE: Self = Self(1 << 2);
    /// New flows of each source are limited.
    pub const LIMIT_SOURCE: Self = Self(1 << 3);
    /// Clients that no prefix matches are denied.
    pub const DENY_UNLISTED: Self = Self(1 << 8);

    /// Which generation of the service's prefix lists holds.
    #[inline(always)]
    pub const fn list_generation(self) -> u16 {
        (self.0 >> 40) as u16
    }

    /// With another generation of prefix lists.
    pub const fn with_list(self, generation: u16) -> Self {
        Self(self.0 & !(0xffff << 40) | (generation as u64) << 40)
    }

    /// Whether any of `flags` is set.
    #[inline(always)]
    pub const fn has_any(self, flags: Self) -> bool {
        self.0 & flags.0 != 0
    }

    /// Whether all of `flags` are set.
    #[inline(always)]
    pub const fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// With `flags` set too.
    #[inline(always)]
    pub const fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }
}

/// How a new flow is mapped to a slot.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    /// Keyed hash of the client's address and port.
    Flow = 0,
    /// Keyed hash of the client's address: all flows of a client go to one backend.
    Source = 1,
    /// The next slot in turn.
    RoundRobin = 2,
    /// Any slot.
    Random = 3,
    /// Of two random slots of different backends, the one with fewer active flows per weight.
    LeastConnections = 4,
    /// The same by connect time times active flows per weight.
    LeastLatency = 5,
}

impl Index {
    /// Every one, each at its number.
    pub const ALL: [Self; 6] = [
        Self::Flow,
        Self::Source,
        Self::RoundRobin,
        Self::Random,
        Self::LeastConnections,
        Self::LeastLatency,
    ];

    /// Whether the slot follows from the packet alone, so that a flow finds its backend again without being remembered.
    #[inline(always)]
    pub const fn is_hash(self) -> bool {
        (self as u8) <= Self::Source as u8
    }
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

    /// The same at another line.
    pub const fn at(self, line: u32) -> Self {
        Self(self.0 & !(0xff_ffff << 24) | ((line & 0xff_ffff) as u64) << 24)
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

    /// How a new flow is mapped to a slot.
    #[inline(always)]
    pub const fn index(self) -> Index {
        match self.0 >> 48 & 0xff {
            0 => Index::Flow,
            1 => Index::Source,
            2 => Index::RoundRobin,
            3 => Index::Random,
            4 => Index::LeastConnections,
            _ => Index::LeastLatency,
        }
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
        for index in Index::ALL {
            let table = Table::new(0xff_ffff, 0xff_ffff, index, OnNoBackend::Drop);
            assert_eq!((table.index(), table.on_no_backend()), (index, OnNoBackend::Drop));
        }
    }
}
