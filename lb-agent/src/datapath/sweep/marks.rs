//! Takes marks from buckets that do not need them any more.
//!
//! **A spill mark must not go while an entry of the bucket's flows lives in a second bucket**: look-ups would not find it.
//! The order of events forbids it:
//!
//! * An insertion sets the mark, and in the same word that it is new, before its entry can be seen.
//! * An audit takes the newness away, and nobody else does. It takes away a mark that was old already when it came by, was
//!   not set anew until the end of the pass, and of whose bucket it met no guest elsewhere.
//! * Between an audit and the next lies a grace period. So whoever set the mark before it aged had done with the insertion
//!   when this pass began; its entry, if alive at the end, was alive all the time, did not move, and was met.
//! * Whoever set the mark after it aged has made it new, and the swap that would take it away fails.
//!
//! An untracked flow has no entry to be met. Its mark goes when no insertion was refused for as long as any flow may be
//! silent.

use lb_common::flow::{Bucket, Data, Entry, Key, Mark};
use lb_common::hash::scale;
use lb_common::settings::timeout;

use super::bits::BitSet;
use crate::datapath::rows::{Row, Rows};

/// What an audit knows of one table's marks.
#[derive(Debug, Default)]
pub(super) struct Marks {
    buckets: u32,
    flow_key: u64,
    /// Homes of entries that were met elsewhere.
    homes: BitSet,
    /// Buckets whose spill mark was old already when they were visited.
    old: Vec<usize>,
    /// When untracked marks last aged.
    untracked_aged: Option<u64>,
    /// Whether this audit ages them.
    ages_untracked: bool,
}

impl Marks {
    pub(super) fn begin(&mut self, buckets: u32, flow_key: u64, now: u64) {
        (self.buckets, self.flow_key) = (buckets, flow_key);
        self.homes = std::mem::take(&mut self.homes).cleared(buckets as usize);
        self.old.clear();
        let due = self.untracked_aged.is_none_or(|aged| now.wrapping_sub(aged) >= timeout::LONGEST);
        self.ages_untracked = due;
        if due {
            self.untracked_aged = Some(now);
        }
    }

    /// A live entry in the bucket of that number.
    pub(super) fn meet<K: Key>(&mut self, bucket: usize, entry: &Entry<K>) {
        let home = scale(K::load(&entry.key).hash(self.flow_key), self.buckets) as usize;
        if home != bucket {
            self.homes.insert(home);
        }
    }

    /// Ages the marks of a bucket.
    pub(super) fn visit<K: Key>(&mut self, index: usize, bucket: &Bucket<K>) {
        let data = |mark| Data(bucket.mark(mark).load());
        let spill = data(Mark::Spill);
        if spill.is_marked_anew() {
            bucket.age_mark(Mark::Spill);
        } else if spill.is_marked() {
            self.old.push(index);
        }
        if self.ages_untracked {
            let untracked = data(Mark::Untracked);
            if untracked.is_marked_anew() {
                bucket.age_mark(Mark::Untracked);
            } else if untracked.is_marked() {
                bucket.clear_mark(Mark::Untracked);
            }
        }
    }

    /// Takes away the spill marks that no flow needs.
    pub(super) fn finish<K: Key>(&mut self, buckets: &Rows<Bucket<K>>)
    where
        Bucket<K>: Row,
    {
        for index in self.old.drain(..).filter(|&index| !self.homes.contains(index)) {
            buckets[index].clear_mark(Mark::Spill);
        }
    }
}
