//! The directory: from a packet's address, port and protocol to a service or a backend, in one or two cache lines.
//!
//! A bucketed hash table that the agent builds whole, in the half that is not in use, and switches to by one
//! word. It holds tags, not keys: whoever finds an entry compares the key with the row that it names, which a
//! packet of ours needs anyhow, while a packet that is not ours is turned away by four comparisons.
//! The agent picks a hash key under which no bucket overflows and no two tags of a bucket are equal, so a
//! look-up is one bucket, without probing.

use crate::abi::row;
use crate::address::{Address, Be16, Be32, Protocol};
use crate::hash::{mix, mix3};

/// Entries of a bucket.
pub const BUCKET_ENTRIES: usize = 4;

/// Halves: one is read, the other is written.
pub const HALVES: u32 = 2;

/// Half a cache line of entries.
#[repr(C, align(32))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// See [`Entry`]; 0 is no entry.
    pub entries: [u64; BUCKET_ENTRIES],
}
row!(copy Bucket, 32, { [u64; BUCKET_ENTRIES] });

/// What an address, port and protocol stand for.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A service; the identifier is its row.
    Service = 1,
    /// A backend's endpoint; the identifier is the first row of its chain.
    Backend = 2,
    /// A virtual address, whatever the port: the key's port and protocol are 0. The identifier is one of its services.
    Vip = 3,
    /// A backend's address with a protocol that it serves, whatever the port: the key's port is 0. The identifier is
    /// one of its backend rows.
    Host = 4,
    /// An address of a source pool, whatever the port: the key's port and protocol are 0. The identifier is its row.
    Pool = 5,
}

/// An entry: 32 bits of hash, the kind and the identifier.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(pub u64);

impl Entry {
    /// The entry of a key that hashes to `hash`.
    #[inline(always)]
    pub const fn new(hash: u64, kind: Kind, id: u16) -> Self {
        Self(hash & !0xffff_ffff | (kind as u64) << 16 | id as u64)
    }

    /// Whether this entry may be the one of a key with this hash.
    #[inline(always)]
    pub const fn matches(self, hash: u64) -> bool {
        (self.0 ^ hash) >> 32 == 0 && self.0 as u32 != 0
    }

    /// The kind. For userspace: packets ask for one kind and compare with [`is`](Self::is).
    pub const fn kind(self) -> Kind {
        match self.0 as u32 >> 16 {
            1 => Kind::Service,
            2 => Kind::Backend,
            3 => Kind::Vip,
            4 => Kind::Host,
            _ => Kind::Pool,
        }
    }

    /// Whether this is an entry of that kind.
    #[inline(always)]
    pub const fn is(self, kind: Kind) -> bool {
        self.0 as u32 >> 16 == kind as u32
    }

    /// The identifier.
    #[inline(always)]
    pub const fn id(self) -> u16 {
        self.0 as u16
    }
}

/// Hash of an IPv4 address with port and protocol.
#[inline(always)]
pub const fn hash4(address: Be32, port: Be16, protocol: Protocol, key: u64) -> u64 {
    mix((address.0 as u64) << 32 | (port.0 as u64) << 16 | protocol.0 as u64, key)
}

/// Hash of an IPv6 address with port and protocol.
#[inline(always)]
pub const fn hash6(address: &Address, port: Be16, protocol: Protocol, key: u64) -> u64 {
    mix3([address.0[0], address.0[1], (port.0 as u64) << 16 | protocol.0 as u64], key)
}

/// Hash of either.
pub const fn hash(address: &Address, port: Be16, protocol: Protocol, key: u64) -> u64 {
    if address.is_v4() {
        hash4(address.v4(), port, protocol, key)
    } else {
        hash6(address, port, protocol, key)
    }
}

/// One thing to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Service's or backend's address.
    pub address: Address,
    /// Its port; 0 for [`Kind::Vip`] and [`Kind::Host`].
    pub port: Be16,
    /// Its protocol; 0 for [`Kind::Vip`].
    pub protocol: Protocol,
    /// What it is.
    pub kind: Kind,
    /// Which row.
    pub id: u16,
}

#[cfg(not(target_arch = "bpf"))]
mod build {
    use super::{BUCKET_ENTRIES, Bucket, Entry, Listing, hash};
    use crate::hash::mix;

    /// Keys that are tried before a directory is called too full.
    const ATTEMPTS: u64 = 1024;

    /// Builds one half of a directory and finds the key it is to be read with.
    ///
    /// The result depends on the listings alone. `None` where no key of 1024 serves. In a directory that is as full as
    /// its limits allow (see [`crate::maps::directory_buckets`]), two keys of three serve at 4,096 backends and one
    /// of 36 at 65,535, where the chance of `None` is below 1 in 10^12.
    pub fn build(listings: &[Listing], buckets: u32) -> Option<(u64, Vec<Bucket>)> {
        (0..ATTEMPTS).map(|attempt| mix(attempt, 0x6c62_2d64_6972)).find_map(|key| {
            let mut half = vec![Bucket::default(); buckets as usize];
            listings.iter().all(|listing| insert(&mut half, listing, key)).then_some((key, half))
        })
    }

    fn insert(half: &mut [Bucket], listing: &Listing, key: u64) -> bool {
        let hash = hash(&listing.address, listing.port, listing.protocol, key);
        let bucket = &mut half[hash as usize & (half.len() - 1)];
        if bucket.entries.iter().any(|&entry| Entry(entry).matches(hash)) {
            return false;
        }
        let Some(free) = bucket.entries[..BUCKET_ENTRIES].iter_mut().find(|entry| **entry == 0) else {
            return false;
        };
        *free = Entry::new(hash, listing.kind, listing.id).0;
        true
    }
}

#[cfg(not(target_arch = "bpf"))]
pub use build::build;

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(n: u32) -> Listing {
        Listing {
            address: Address::from_v4(Be32::new(0x0a00_0000 + n)),
            port: Be16::new(80),
            protocol: Protocol::TCP,
            kind: Kind::Backend,
            id: n as u16,
        }
    }

    #[test]
    #[cfg_attr(
        miri,
        ignore = "a hundred thousand look-ups of safe code: minutes, and nothing for Miri to find"
    )]
    fn everything_listed_is_found_and_nothing_else() {
        let listings: Vec<_> = (1..=5000).map(listing).collect();
        let (key, half) = build(&listings, 16_384).expect("a key exists");
        let find = |n: u32| {
            let hash = hash4(Be32::new(0x0a00_0000 + n), Be16::new(80), Protocol::TCP, key);
            let bucket = half[hash as usize & (half.len() - 1)];
            bucket.entries.into_iter().map(Entry).find(|entry| entry.matches(hash))
        };
        for n in 1..=5000 {
            let entry = find(n).expect("listed");
            assert!(entry.is(Kind::Backend));
            assert_eq!(entry.id(), n as u16);
        }
        // A tag of 32 bits in one of 16,384 buckets: chance finds one stranger in about 10^13.
        assert!((5001..105_000).all(|n| find(n).is_none()));
    }

    #[test]
    fn a_directory_that_cannot_hold_its_listings_is_refused() {
        let listings: Vec<_> = (1..=9).map(listing).collect();
        assert!(build(&listings, 2).is_none());
    }

    #[test]
    fn equal_listings_give_equal_directories() {
        let listings: Vec<_> = (1..=100).map(listing).collect();
        assert_eq!(build(&listings, 256), build(&listings, 256));
    }
}
