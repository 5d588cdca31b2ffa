//! Frames that nobody would think of: valid ones in random order, and what becomes of them when bytes go wrong.
//!
//! Everything follows from a seed, which failures print.

mod frames;
mod mutations;

pub use frames::{any_frame, contradictory_lab, lab, later_contradictory_lab, later_lab, valid_request};
pub use mutations::mutate;

/// A stream of numbers that look random: SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 where there is none.
    pub const fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// True once in `times`.
    pub const fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// The seed of this run: `LB_TEST_SEED`, or always the same, so that a failure comes back.
#[must_use]
pub fn seed() -> u64 {
    std::env::var("LB_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}
