//! What a datagram's later fragments lack: its ports, by what all of its fragments carry.

use crate::abi::row;
use crate::address::{Address, Be16};

/// Identifies the fragments of one datagram (RFC 791 section 3.2; RFC 8200 section 4.5).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// Who sends it.
    pub source: Address,
    /// Whom to.
    pub destination: Address,
    /// The identification field, as on the wire; IPv4's 16 bits in the first two bytes.
    pub identification: u32,
    /// The protocol that the datagram carries.
    pub protocol: u32,
}
row!(copy FragmentKey, 40, { Address, Address, u32, u32 });

/// The ports that only a datagram's first fragment carries.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// Sender's.
    pub source: Be16,
    /// Receiver's.
    pub destination: Be16,
}
row!(copy Ports, 4, { Be16, Be16 });
