//! A backend: one server behind one service.

use crate::abi::row;
use crate::address::{Address, Be16, Protocol};
use crate::atomic::Word;
use crate::checksum::Delta;

/// A backend's row: all that a packet needs once its backend is known, in one cache line.
///
/// An endpoint that serves several services has one row for each; the rows are chained by `state`.
#[repr(C)]
#[derive(Clone, Debug, Default)]
pub struct Backend {
    /// Where requests go.
    pub address: Address,
    /// The service's virtual address: where replies come from.
    pub vip: Address,
    /// Port that requests go to.
    pub port: Be16,
    /// The service's port.
    pub vip_port: Be16,
    /// The service.
    pub service: u16,
    /// What replacing the virtual address by the backend's does to a header checksum.
    pub address_delta: Delta,
    /// What replacing virtual address and port does to a TCP or UDP checksum.
    pub endpoint_delta: Delta,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Zero.
    pub reserved: [u8; 5],
    /// What it is used for: see [`Standing`] and [`IN_USE`]. Written by the agent.
    pub state: Word,
    /// Next hop towards the backend: an index into the next-hop table, 0 while unknown. Written by the data plane.
    pub next_hop: Word,
}
row!(Backend, 64, { Address, Address, Be16, Be16, u16, Delta, Delta, Protocol, [u8; 5], Word, Word });

/// A backend row's state word, taken apart.
///
/// ```text
///  63     48 47           32 31           16 15  5 4          3              2   1      0
/// +---------+---------------+---------------+-----+----------+--------------+---+------+---------+
/// | 0       | weight        | sibling       | 0   | full NAT | by exception | 0 |in use| serving |
/// +---------+---------------+---------------+-----+----------+--------------+---+------+---------+
/// ```
///
/// Bit 2: shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether flows that name the row stay on it.
    pub serving: bool,
    /// The next row of the same endpoint in another service; 0 ends the chain.
    pub sibling: u16,
    /// Whether the endpoint has other rows, before this one in the chain or behind it, whose services keep their clients'
    /// addresses as this one's does. A full-NAT service's row is never shared: its flows have ports of their own.
    pub shared: bool,
    /// Share of new flows relative to the service's other rows; 0 takes none.
    pub weight: u16,
    /// Whether its service tracks flows by exception ([`crate::service::Options::EXCEPTIONS`]).
    pub by_exception: bool,
    /// A full-NAT service has this endpoint, so what it sends to an address of a source pool may be a reply. Counts in
    /// the first row of the endpoint's chain, which is the one that packets find.
    pub behind_full_nat: bool,
}

/// Bit of a row's state word: see [`Standing::by_exception`].
const BY_EXCEPTION: u64 = 1 << 3;

impl Standing {
    /// As the word has it; [`IN_USE`] is clear.
    pub const fn to_word(self) -> u64 {
        let shared = if self.shared { SHARED } else { 0 };
        let by_exception = if self.by_exception { BY_EXCEPTION } else { 0 };
        let behind_full_nat = if self.behind_full_nat { BEHIND_FULL_NAT } else { 0 };
        let flags = behind_full_nat | by_exception | shared | self.serving as u64;
        (self.weight as u64) << 32 | (self.sibling as u64) << 16 | flags
    }

    /// As the word says it.
    pub const fn from_word(word: u64) -> Self {
        Self {
            serving: word & 1 == 1,
            by_exception: word & BY_EXCEPTION != 0,
            sibling: (word >> 16) as u16,
            shared: word & SHARED != 0,
            weight: (word >> 32) as u16,
            behind_full_nat: word & BEHIND_FULL_NAT != 0,
        }
    }
}

/// What the data plane keeps for a backend, shared by all CPUs.
#[repr(C, align(64))]
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// Flows that it has or is about to have: entries of the flow table in a state that
    /// [counts](crate::flow::State::is_load).
    pub active: Word,
    /// Its smoothed connect time: see [`crate::latency::Latency`].
    pub latency: Word,
    /// Whether new flows avoid it: see [`crate::suspicion::Suspicion`].
    pub suspicion: Word,
    /// Connections that it refused: a reset for a SYN. This and what follows is added up since the maps were made.
    pub refused: Word,
    /// SYNs that it had not answered when their clients sent them again.
    pub unanswered: Word,
    /// Established flows that it reset.
    pub resets: Word,
    /// Flows that it was given because another backend had refused or not answered them.
    pub retried: Word,
    /// Zero.
    pub reserved: u64,
}
row!(Load, 64, { Word, Word, Word, Word, Word, Word, Word, u64 });

/// Rows of one endpoint at most: the bound of the data plane's walk along the chain.
pub const MAX_SIBLINGS: usize = 8;

/// Bit of a row's state word: the agent counts the row as a backend. Clear in a row that is kept only until no flow
/// names it any more. Packets do not ask.
pub const IN_USE: u64 = 1 << 1;
/// Bit of a row's state word: [`Standing::shared`].
const SHARED: u64 = 1 << 2;

/// Bit of a row's state word: [`Standing::behind_full_nat`].
const BEHIND_FULL_NAT: u64 = 1 << 4;

impl Backend {
    /// The row of a backend, with the checksum differences of its translation.
    pub fn new(service: u16, vip: (Address, Be16), endpoint: (Address, Be16), protocol: Protocol) -> Self {
        let address_delta = Delta::address(&vip.0, &endpoint.0);
        Self {
            address: endpoint.0,
            vip: vip.0,
            port: endpoint.1,
            vip_port: vip.1,
            service,
            address_delta,
            endpoint_delta: address_delta.and(Delta::port(vip.1, endpoint.1)),
            protocol,
            state: Word::from(Standing { serving: true, weight: 1, ..Standing::default() }.to_word()),
            ..Self::default()
        }
    }

    /// Whether flows that name this row stay on it. False for a row out of use and for a dead backend.
    #[inline(always)]
    pub fn is_serving(&self) -> bool {
        self.state.load() & 1 == 1
    }

    /// Whether its service tracks flows by exception.
    #[inline(always)]
    pub fn is_by_exception(&self) -> bool {
        self.state.load() & BY_EXCEPTION != 0
    }

    /// Share of new flows relative to the service's other backends. 0 takes none: draining, unfit or out of use.
    #[inline(always)]
    pub fn weight(&self) -> u64 {
        self.state.load() >> 32 & 0xffff
    }

    /// Whether the endpoint serves other services too, to which a flow could look the same.
    #[inline(always)]
    pub fn is_shared(&self) -> bool {
        self.state.load() & SHARED != 0
    }

    /// Whether a full-NAT service has this endpoint; asked of the first row of its chain.
    #[inline(always)]
    pub fn is_behind_full_nat(&self) -> bool {
        self.state.load() & BEHIND_FULL_NAT != 0
    }

    /// The next row of the same endpoint; 0 ends the chain.
    #[inline(always)]
    pub fn sibling(&self) -> u16 {
        (self.state.load() >> 16) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_word_keeps_its_parts_apart() {
        for flags in 0..8 {
            let [shared, by_exception, behind_full_nat] = [0, 1, 2].map(|bit| flags >> bit & 1 == 1);
            for serving in [true, false] {
                let standing = Standing {
                    serving,
                    sibling: 0xfffe,
                    shared,
                    weight: 0xfffd,
                    by_exception,
                    behind_full_nat,
                };
                assert_eq!(Standing::from_word(standing.to_word()), standing);
                let row = Backend { state: standing.to_word().into(), ..Backend::default() };
                assert_eq!(
                    (row.is_serving(), row.is_shared(), row.is_behind_full_nat()),
                    (serving, shared, behind_full_nat)
                );
            }
        }
        let standing = Standing { serving: true, sibling: 0xfffe, weight: 0xfffd, ..Standing::default() };
        assert_eq!(standing.to_word() & IN_USE, 0);
        let row = Backend { state: (standing.to_word() | IN_USE).into(), ..Backend::default() };
        assert_eq!((row.is_serving(), row.sibling(), row.weight()), (true, 0xfffe, 0xfffd));
    }
}
