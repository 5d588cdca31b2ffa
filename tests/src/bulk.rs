//! Bulk content that shows when a byte was lost, doubled, swapped or changed.

/// An endless sequence of bytes without a short period, the same for every reader.
///
/// Internet checksums do not notice swapped 16-bit words; comparing with this does.
#[derive(Debug, Clone, Default)]
pub struct Pattern {
    /// Bytes given out so far.
    position: u64,
}

impl Pattern {
    /// Writes the next bytes of the sequence.
    pub fn fill(&mut self, mut buffer: &mut [u8]) {
        while !buffer.is_empty() {
            let word = mix(self.position / 8).to_le_bytes();
            let rest = &word[(self.position % 8) as usize..];
            let length = rest.len().min(buffer.len());
            let (head, tail) = buffer.split_at_mut(length);
            head.copy_from_slice(&rest[..length]);
            self.position += length as u64;
            buffer = tail;
        }
    }

    /// Compares with the next bytes of the sequence.
    ///
    /// # Errors
    /// With the position of the first byte that differs.
    pub fn expect(&mut self, received: &[u8]) -> Result<(), u64> {
        let start = self.position;
        let mut expected = vec![0; received.len()];
        self.fill(&mut expected);
        if expected == received {
            return Ok(());
        }
        let differs = expected.iter().zip(received).position(|(a, b)| a != b);
        Err(start + differs.unwrap_or_default() as u64)
    }
}

/// The finalizer of SplitMix64: neighbouring counters give unrelated words.
fn mix(counter: u64) -> u64 {
    let z = counter.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a over the bytes seen so far: depends on their order, unlike an Internet checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksum(u64);

impl Default for Checksum {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Checksum {
    /// The checksum of one piece of content.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut checksum = Self::default();
        checksum.update(bytes);
        checksum
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// The number to print and compare.
    #[must_use]
    pub fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_sequence_does_not_depend_on_how_it_is_cut(cuts in prop::collection::vec(0_usize..40, 1..20)) {
            let total = cuts.iter().sum();
            let mut whole = vec![0; total];
            Pattern::default().fill(&mut whole);
            let mut pattern = Pattern::default();
            let mut at = 0;
            for cut in cuts {
                prop_assert_eq!(pattern.expect(&whole[at..at + cut]), Ok(()));
                at += cut;
            }
        }
    }

    #[test]
    fn a_changed_byte_is_found_where_it_is() {
        let mut bytes = [0; 100];
        Pattern::default().fill(&mut bytes);
        bytes[42] ^= 1;
        assert_eq!(Pattern::default().expect(&bytes), Err(42));
    }

    #[test]
    fn checksum_is_fnv_1a() {
        // The published test vectors of the 64-bit variant.
        assert_eq!(Checksum::of(b"").value(), 0xcbf2_9ce4_8422_2325);
        assert_eq!(Checksum::of(b"foobar").value(), 0x8594_4171_f739_67e8);
    }
}
