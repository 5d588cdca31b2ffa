//! The two hashes of the data plane: multiply and fold, keyed.
//!
//! Not cryptographic. The key keeps somebody who does not know it from choosing source ports that all fall into
//! one bucket; two rounds spread every input bit over the whole word.

/// Odd, with its bits well spread: the multiplier of the `rrmxmx` family of mixers.
const MULTIPLIER: u64 = 0xd6e8_feb8_6659_fd93;

/// Another one: two words that are multiplied side by side must not cancel each other out.
const MULTIPLIER2: u64 = 0x9fb2_1c65_1e98_df25;

/// One round: the upper half folded into the lower, then spread upwards again by the multiplication.
#[inline(always)]
const fn round(word: u64) -> u64 {
    (word ^ (word >> 32)).wrapping_mul(MULTIPLIER)
}

/// Mixes one word under a key.
#[inline(always)]
pub const fn mix(word: u64, key: u64) -> u64 {
    let hash = round(round(word ^ key));
    hash ^ (hash >> 32)
}

/// Mixes three words under a key. The first two at the same time: a multiplication takes longer than all else here.
#[inline(always)]
pub const fn mix3(words: [u64; 3], key: u64) -> u64 {
    let second = words[1] ^ key.rotate_left(32);
    mix(words[2], round(words[0] ^ key) ^ (second ^ (second >> 32)).wrapping_mul(MULTIPLIER2))
}

/// Maps a hash evenly onto `0..length` by multiplication, with no division (which costs 20 times as much).
#[inline(always)]
pub const fn scale(hash: u64, length: u32) -> u32 {
    (((hash >> 32) * length as u64) >> 32) as u32
}

/// The hash of a second choice: the halves swapped. Either half of a mixed word is as good as the other.
#[inline(always)]
pub const fn second(hash: u64) -> u64 {
    hash.rotate_left(32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pearson's chi-square over `bins` for hashes of neighbouring keys must stay near its expectation, `bins`.
    fn chi_square(bins: u32, hashes: impl Iterator<Item = u64>) -> f64 {
        let mut counts = vec![0u32; bins as usize];
        let mut total = 0;
        for hash in hashes {
            counts[scale(hash, bins) as usize] += 1;
            total += 1;
        }
        let expected = f64::from(total) / f64::from(bins);
        counts.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum()
    }

    #[test]
    #[cfg_attr(
        miri,
        ignore = "statistics over hundreds of thousands of hashes: minutes, and nothing for Miri to find"
    )]
    fn consecutive_ports_and_addresses_spread_evenly() {
        let ports = (0..65_536u64).map(|port| mix(0x0a00_0001_0000_0007 | (port << 16), 42));
        let addresses = (0..100_000u64).map(|host| mix((host << 32) | 0x5000_0001, 42));
        let wide = (0..100_000u64).map(|host| mix3([0x20_01_0d_b8, host, 80], 42));
        // A client's ports in the order of their numbers lie 256 apart on the wire; hosts of a subnet 2^24 apart.
        // 4.5 standard deviations of chi-square with 1,000 degrees of freedom (sqrt(2k) = 44.7).
        assert!(chi_square(1000, ports) < 1200.0);
        assert!(chi_square(1000, addresses) < 1200.0);
        assert!(chi_square(1000, wide) < 1200.0);
    }

    #[test]
    #[cfg_attr(miri, ignore = "statistics over a hundred thousand hashes")]
    fn the_second_choice_does_not_follow_from_the_first() {
        // Pairs of choices among 32 buckets each: 1,024 bins.
        let pairs = |hash: u64| u64::from(scale(hash, 32) * 32 + scale(second(hash), 32)) << 54;
        let ports = (0..65_536u64).map(|port| pairs(mix(0x0a00_0001_0000_0000 | (port << 16), 42)));
        let hosts = (0..100_000u64).map(|host| pairs(mix3([0x20_01_0d_b8, host << 32, 80], 42)));
        assert!(chi_square(1024, ports) < 1230.0);
        assert!(chi_square(1024, hosts) < 1230.0);
    }

    #[test]
    #[cfg_attr(miri, ignore = "statistics over a hundred thousand hashes")]
    fn words_that_change_together_do_not_cancel_out() {
        let same = (0..100_000u64).map(|word| mix3([word, word, 80], 42));
        let opposite = (0..100_000u64).map(|word| mix3([word, word.wrapping_neg(), 80], 42));
        let shifted = (0..100_000u64).map(|word| mix3([word << 40, word << 8, word << 16 & 0xffff_0000], 42));
        assert!(chi_square(1000, same) < 1200.0);
        assert!(chi_square(1000, opposite) < 1200.0);
        assert!(chi_square(1000, shifted) < 1200.0);
    }

    #[test]
    fn the_key_matters() {
        assert_ne!(mix(1, 1), mix(1, 2));
        assert_ne!(mix3([1, 2, 3], 1), mix3([1, 2, 3], 2));
    }
}
