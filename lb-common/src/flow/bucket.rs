//! Buckets: the flows that share a hash, in one cache line (IPv4) or two (IPv6).

use super::{Key, Key4, Key6};
use crate::abi::row;
use crate::atomic::Word;

/// Entries of a bucket.
pub const WAYS: usize = 4;

/// One way of a bucket.
#[repr(C)]
#[derive(Debug)]
pub struct Entry<K: Key> {
    /// Whose entry it is; meaningful while the data word is live.
    pub key: K::Stored,
    /// The entry: see [`Data`].
    pub data: Word,
}

/// The flows that share a hash.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Bucket<K: Key> {
    /// The ways; the first one's data word carries the bucket's flags.
    pub ways: [Entry<K>; WAYS],
}

/// A bucket of IPv4 flows: one cache line.
pub type Bucket4 = Bucket<Key4>;
/// A bucket of IPv6 flows: two cache lines.
pub type Bucket6 = Bucket<Key6>;

row!(Bucket4, 64, { [Entry<Key4>; WAYS] });
row!(Bucket6, 128, { [Entry<Key6>; WAYS] });
