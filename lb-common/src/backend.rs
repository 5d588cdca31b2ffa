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
    /// Bit 0: whether flows that name this row stay on it; bits 16-31: the next row of the same endpoint in
    /// another service, 0 at the end. Written by the agent; see [`state`](Self::state) and [`IN_USE`].
    pub state: Word,
    /// Next hop towards the backend: an index into the next-hop table, 0 while unknown. Written by the data plane.
    pub next_hop: Word,
}
row!(Backend, 64, { Address, Address, Be16, Be16, u16, Delta, Delta, Protocol, [u8; 5], Word, Word });

/// Rows of one endpoint at most: the bound of the data plane's walk along the chain.
pub const MAX_SIBLINGS: usize = 8;

/// Bit of a row's state word: the agent counts the row as a backend. Clear in a row that is kept only until no flow
/// names it any more. Packets do not ask.
pub const IN_USE: u64 = 1 << 1;

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
            state: Word::from(Self::state(true, 0)),
            ..Self::default()
        }
    }

    /// The word that says whether flows stay, and which row of the same endpoint comes next.
    pub const fn state(serving: bool, sibling: u16) -> u64 {
        (sibling as u64) << 16 | serving as u64
    }

    /// Whether flows that name this row stay on it. False for a row out of use and for a dead backend.
    #[inline(always)]
    pub fn is_serving(&self) -> bool {
        self.state.load() & 1 == 1
    }

    /// The next row of the same endpoint; 0 ends the chain.
    #[inline(always)]
    pub fn sibling(&self) -> u16 {
        (self.state.load() >> 16) as u16
    }
}
