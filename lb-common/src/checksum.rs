//! The Internet checksum, updated rather than recomputed.
//!
//! The sum is one's-complement and commutes with swapping bytes (RFC 1071 section 2 (B)), so all arithmetic is
//! on 16-bit words *as loaded*, with no byte swaps: a checksum field is a pair of bytes, not a number.

use crate::address::{Address, Be16};

/// The difference that replacing some covered words makes to a checksum: RFC 1624, equation 3,
/// `HC' = ~(~HC + ~m + m')`, with the `~m + m'` added up beforehand.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(pub u16);

impl Delta {
    /// Nothing replaced.
    pub const NONE: Self = Self(0);

    /// One word replaced.
    #[inline(always)]
    pub const fn word(old: u16, new: u16) -> Self {
        Self(add(!old, new))
    }

    /// Two differences together.
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self(add(self.0, other.0))
    }

    /// The difference of the way back: what was `new` is `old`.
    #[inline(always)]
    pub const fn reversed(self) -> Self {
        Self(!self.0)
    }

    /// One address replaced by another. Both of one family: the words in which mapped IPv4 addresses agree cancel out.
    #[inline(always)]
    pub const fn address(old: &Address, new: &Address) -> Self {
        let mut sum = 0u64;
        let (old, new) = (old.words(), new.words());
        let mut i = 0;
        while i < 4 {
            sum += !old[i].0 as u64 + new[i].0 as u64;
            i += 1;
        }
        Self(fold(sum))
    }

    /// One port replaced by another.
    #[inline(always)]
    pub const fn port(old: Be16, new: Be16) -> Self {
        Self::word(old.0, new.0)
    }

    /// The checksum field after the replacement, given the field before.
    #[inline(always)]
    pub const fn apply(self, field: u16) -> u16 {
        !add(!field, self.0)
    }

    /// As [`apply`](Self::apply) for UDP: a sum that comes out as zero is sent as all ones, since zero says
    /// "no checksum" (RFC 768). The caller leaves a field that *is* zero alone.
    #[inline(always)]
    pub const fn apply_udp(self, field: u16) -> u16 {
        match self.apply(field) {
            0 => 0xffff,
            sum => sum,
        }
    }
}

/// One's-complement addition. The carry of two words added goes round once: their sum without it is below `0xffff`.
///
/// Every packet waits for two or three of these, one after the other, at the end of its way: hence not [`fold`].
#[inline(always)]
const fn add(a: u16, b: u16) -> u16 {
    let sum = a as u32 + b as u32;
    sum.wrapping_add(sum >> 16) as u16
}

/// Folds a sum of words (16, 32 or 48 bits wide parts) to 16 bits with end-around carry.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The checksum field that RFC 1071 computes over bytes of even length.
    fn full(bytes: &[u8]) -> u16 {
        !fold(bytes.chunks(2).map(|pair| u64::from(u16::from_ne_bytes([pair[0], pair[1]]))).sum())
    }

    #[test]
    fn rfc_1624_worked_example() {
        // Section 4: HC = 0xdd2f, m = 0x5555, m' = 0x3285 gives 0x0000, not 0xffff.
        let delta = Delta::word(0x5555_u16.to_be(), 0x3285_u16.to_be());
        assert_eq!(delta.apply(0xdd2f_u16.to_be()), 0x0000);
    }

    #[test]
    fn a_carry_is_never_lost() {
        // The stored sums at which a plain addition of 8 overflows: an echo reply must still be right.
        for sum in 0xfff0..=0xffff_u16 {
            let delta = Delta::word(0x0800_u16.to_be(), 0);
            let field = sum.to_be();
            let expected = !fold(u64::from(!field) + u64::from(!0x0800_u16.to_be()));
            assert_eq!(delta.apply(field), expected);
        }
    }

    proptest! {
        #[test]
        fn updated_equals_recomputed(mut bytes in prop::collection::vec(any::<u8>(), 40), at in 0usize..10, new in any::<[u8; 16]>()) {
            // The sum of nothing but zeros has two representations; headers are never all zero.
            bytes[39] = 1;
            let before = full(&bytes);
            let old: [u8; 16] = bytes[at * 2..at * 2 + 16].try_into().unwrap();
            let delta = Delta::address(&Address::from_wire(old), &Address::from_wire(new));
            bytes[at * 2..at * 2 + 16].copy_from_slice(&new);
            prop_assert_eq!(delta.apply(before), full(&bytes));
            prop_assert_eq!(delta.reversed().apply(full(&bytes)), before);
        }
    }
}
