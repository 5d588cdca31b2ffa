//! Allow and deny lists: prefixes of clients, for each service, in one longest-prefix-match trie.
//!
//! A list is written whole under a new generation before the service's options name that, so that a packet sees
//! the list before a change or the one after, never half of one.

use crate::abi::row;
use crate::address::{Address, Be32};

/// What a prefix is looked up by: the list, then the address. The kernel compares from the first byte on and from the
/// highest bit down, which is the order of the wire.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrefixKey {
    /// The service, and the generation of its list above it. Compared whole, in whatever order.
    pub list: u32,
    /// The address as an [`Address`] has it: IPv4 behind 96 bits.
    pub address: [u32; 4],
}
row!(copy PrefixKey, 20, { u32, [u32; 4] });

/// Bits of a key before the address.
pub const LIST_BITS: u32 = 32;

impl PrefixKey {
    /// The key of an address in a service's list of that generation.
    #[inline(always)]
    pub const fn new(service: u16, generation: u16, address: &Address) -> Self {
        let [Be32(a), Be32(b), Be32(c), Be32(d)] = address.words();
        Self { list: (generation as u32) << 16 | service as u32, address: [a, b, c, d] }
    }

    /// The list's service.
    pub const fn service(&self) -> u16 {
        self.list as u16
    }

    /// The list's generation.
    pub const fn generation(&self) -> u16 {
        (self.list >> 16) as u16
    }

    /// The address.
    pub const fn address(&self) -> Address {
        let [a, b, c, d] = self.address;
        Address([a as u64 | (b as u64) << 32, c as u64 | (d as u64) << 32])
    }
}

/// What becomes of clients with a prefix: the trie's values.
pub const ALLOW: u32 = 1;
/// See [`ALLOW`].
pub const DENY: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    #[test]
    fn a_key_has_the_address_in_wire_order_and_gives_it_back() {
        for text in ["10.1.2.3", "fd00:1:2:3:4:5:6:7"] {
            let address = Address::from(text.parse::<IpAddr>().unwrap());
            let key = PrefixKey::new(7, 0xfffe, &address);
            assert_eq!((key.service(), key.generation(), key.address()), (7, 0xfffe, address));
            let bytes: Vec<u8> = key.address.iter().flat_map(|word| word.to_ne_bytes()).collect();
            assert_eq!(bytes, address.to_wire());
        }
    }
}
