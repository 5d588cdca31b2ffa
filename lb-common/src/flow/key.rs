//! What identifies a flow, and how the table holds it.

use crate::address::{Address, Be16, Be32};
use crate::atomic::Word;
use crate::hash::{mix, mix3};

/// What identifies a flow: the client and the service it talks to. Held whole, so there are no false matches.
pub trait Key: Copy + PartialEq + core::fmt::Debug {
    /// How the table stores it.
    type Stored: core::fmt::Debug;

    /// Which buckets: a keyed hash of the client alone, whose upper half [scales](crate::hash::scale) to the home bucket's number
    /// and whose lower half to the [second choice's](crate::hash::second). The service is left
    /// out, so that the bucket is on its way from memory while the packet's service is still being looked up.
    fn hash(self, key: u64) -> u64;
    /// Whether the stored key is this one.
    fn is(self, stored: &Self::Stored) -> bool;
    /// Whether the stored key is of the same client, address and port, but of another service.
    fn is_sibling(self, stored: &Self::Stored) -> bool;
    /// Writes the key. Only the holder of the bucket's lock may.
    fn write(self, stored: &Self::Stored);
    /// The key as words, those that it does not have zero: functions of the kernel take words in registers, where a key
    /// would lie on a stack that is nearly full.
    fn to_words(self) -> [u64; 3];
    /// The key of these words.
    fn from_words(words: [u64; 3]) -> Self;
    /// Reads the key back.
    fn load(stored: &Self::Stored) -> Self;
    /// Client address, client port, service.
    fn parts(self) -> (Address, Be16, u16);

    /// Reads the parts of a stored key.
    fn read(stored: &Self::Stored) -> (Address, Be16, u16) {
        Self::load(stored).parts()
    }
}

/// Of the service in the key of an [affinity entry](super::State::AFFINITY): identifiers of services are below it.
pub const AFFINITY_OF: u16 = 1 << 15;

/// The service's bits in a key's last word.
const SERVICE: u64 = 0xffff;

/// Key of an IPv4 flow: address, port and service in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key4(u64);

impl Key4 {
    /// The flow of `client` to a service.
    #[inline(always)]
    pub const fn new(client: Be32, port: Be16, service: u16) -> Self {
        Self((client.0 as u64) << 32 | (port.0 as u64) << 16 | service as u64)
    }
}

impl Key for Key4 {
    type Stored = Word;

    #[inline(always)]
    fn hash(self, key: u64) -> u64 {
        mix(self.0 & !SERVICE, key)
    }

    #[inline(always)]
    fn is(self, stored: &Word) -> bool {
        stored.load() == self.0
    }

    #[inline(always)]
    fn to_words(self) -> [u64; 3] {
        [self.0, 0, 0]
    }

    #[inline(always)]
    fn from_words(words: [u64; 3]) -> Self {
        Self(words[0])
    }

    #[inline(always)]
    fn is_sibling(self, stored: &Word) -> bool {
        let difference = stored.load() ^ self.0;
        difference != 0 && difference & !SERVICE == 0
    }

    #[inline(always)]
    fn write(self, stored: &Word) {
        stored.store(self.0);
    }

    #[inline(always)]
    fn load(stored: &Word) -> Self {
        Self(stored.load())
    }

    #[inline(always)]
    fn parts(self) -> (Address, Be16, u16) {
        (Address::from_v4(Be32((self.0 >> 32) as u32)), Be16((self.0 >> 16) as u16), self.0 as u16)
    }
}

/// Key of an IPv6 flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key6([u64; 3]);

impl Key6 {
    /// The flow of `client` to a service.
    #[inline(always)]
    pub const fn new(client: &Address, port: Be16, service: u16) -> Self {
        Self([client.0[0], client.0[1], (port.0 as u64) << 16 | service as u64])
    }
}

impl Key for Key6 {
    type Stored = [Word; 3];

    #[inline(always)]
    fn hash(self, key: u64) -> u64 {
        mix3([self.0[0], self.0[1], self.0[2] & !SERVICE], key)
    }

    #[inline(always)]
    fn is(self, stored: &[Word; 3]) -> bool {
        stored[0].load() == self.0[0] && stored[1].load() == self.0[1] && stored[2].load() == self.0[2]
    }

    #[inline(always)]
    fn to_words(self) -> [u64; 3] {
        self.0
    }

    #[inline(always)]
    fn from_words(words: [u64; 3]) -> Self {
        Self(words)
    }

    #[inline(always)]
    fn is_sibling(self, stored: &[Word; 3]) -> bool {
        let difference = stored[2].load() ^ self.0[2];
        difference != 0
            && difference & !SERVICE == 0
            && stored[0].load() == self.0[0]
            && stored[1].load() == self.0[1]
    }

    #[inline(always)]
    fn write(self, stored: &[Word; 3]) {
        stored[0].store(self.0[0]);
        stored[1].store(self.0[1]);
        stored[2].store(self.0[2]);
    }

    #[inline(always)]
    fn load(stored: &[Word; 3]) -> Self {
        Self([stored[0].load(), stored[1].load(), stored[2].load()])
    }

    #[inline(always)]
    fn parts(self) -> (Address, Be16, u16) {
        let Self([head, tail, rest]) = self;
        (Address([head, tail]), Be16((rest >> 16) as u16), rest as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    #[test]
    fn a_clients_flows_share_a_bucket_and_nothing_else() {
        let client = Be32::from_wire([10, 9, 8, 7]);
        let [web, dns] = [1, 2].map(|service| Key4::new(client, Be16::new(40_000), service));
        assert_eq!(web.hash(7), dns.hash(7));
        assert_ne!(web, dns);
        let client = Address::from_v4(client);
        let [web, dns] = [1, 2].map(|service| Key6::new(&client, Be16::new(40_000), service));
        assert_eq!(web.hash(7), dns.hash(7));
        assert_ne!(web, dns);
    }

    #[test]
    fn keys_read_back() {
        let v4 = Word::default();
        Key4::new(Be32::from_wire([10, 9, 8, 7]), Be16::new(40_000), 511).write(&v4);
        let (address, port, service) = Key4::read(&v4);
        assert_eq!(
            (IpAddr::from(address).to_string(), port.get(), service),
            ("10.9.8.7".into(), 40_000, 511)
        );

        let v6 = Default::default();
        let client = Address::from("fd00::1:2".parse::<IpAddr>().unwrap());
        Key6::new(&client, Be16::new(1), 65_535).write(&v6);
        assert_eq!(Key6::read(&v6), (client, Be16::new(1), 65_535));
    }
}
