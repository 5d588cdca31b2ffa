//! Buckets: the flows that share a hash, in one cache line (IPv4) or two (IPv6).

use super::{Data, Key, Key4, Key6, MARKED, Mark};
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

impl<K: Key> Bucket<K> {
    /// The word that holds a mark.
    #[inline(always)]
    pub const fn mark(&self, mark: Mark) -> &Word {
        let [_, spill, untracked, _] = &self.ways;
        match mark {
            Mark::Spill => &spill.data,
            Mark::Untracked => &untracked.data,
        }
    }

    /// Whether the bucket has a mark.
    #[inline(always)]
    pub fn is_marked(&self, mark: Mark) -> bool {
        Data(self.mark(mark).load()).is_marked()
    }

    /// Marks the bucket. What is written afterwards is seen by nobody who does not see the mark.
    #[inline(always)]
    pub fn set_mark(&self, mark: Mark) {
        self.mark(mark).set_bits(MARKED);
    }
}

/// What the sweep does to marks: it never sets one.
impl<K: Key> Bucket<K> {
    /// Takes the newness from a mark.
    pub fn age_mark(&self, mark: Mark) {
        self.mark(mark).keep_bits(!Data::NEWNESS);
    }

    /// Takes a mark away, unless it has been set since it [aged](Self::age_mark). False where it has.
    pub fn clear_mark(&self, mark: Mark) -> bool {
        let word = self.mark(mark);
        loop {
            let data = Data(word.load());
            if data.is_marked_anew() {
                return false;
            }
            // The entry in the same word may change meanwhile; then the newness is looked at again.
            if word.replace(data.0, data.unmarked().0) {
                return true;
            }
        }
    }
}

/// A bucket of IPv4 flows: one cache line.
pub type Bucket4 = Bucket<Key4>;
/// A bucket of IPv6 flows: two cache lines.
pub type Bucket6 = Bucket<Key6>;

row!(Bucket4, 64, { [Entry<Key4>; WAYS] });
row!(Bucket6, 128, { [Entry<Key6>; WAYS] });
