//! A set of small numbers.

/// One bit a number, as many words as the largest needs.
#[derive(Debug, Default)]
pub(super) struct BitSet(Vec<u64>);

impl BitSet {
    /// An empty set with room for the numbers below `bound`, in the memory of an old one.
    pub(super) fn cleared(mut self, bound: usize) -> Self {
        self.0.clear();
        self.0.resize(bound.div_ceil(64), 0);
        self
    }

    pub(super) fn insert(&mut self, number: impl Into<usize>) {
        let number = number.into();
        let word = number / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (number % 64);
    }

    pub(super) fn contains(&self, number: impl Into<usize>) -> bool {
        let number = number.into();
        self.0.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// The members that are identifiers, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u16> {
        (0..=u16::MAX).take(self.0.len() * 64).filter(|&id| self.contains(id))
    }
}
