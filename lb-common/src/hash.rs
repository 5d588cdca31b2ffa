//! The two hashes of the data plane: multiply and fold, keyed.
//!
//! Not cryptographic. The key keeps somebody who does not know it from choosing source ports that all fall into
//! one bucket; two rounds spread every input bit over the whole word.

/// Odd, with its bits well spread: the multiplier of the `rrmxmx` family of mixers.
const MULTIPLIER: u64 = 0xd6e8_feb8_6659_fd93;

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

/// Mixes three words under a key.
#[inline(always)]
pub const fn mix3(words: [u64; 3], key: u64) -> u64 {
    mix(words[2], round(round(words[0] ^ key) ^ words[1]))
}

/// Maps a hash evenly onto `0..length` by multiplication, with no division (which costs 20 times as much).
#[inline(always)]
pub const fn scale(hash: u64, length: u32) -> u32 {
    (((hash >> 32) * length as u64) >> 32) as u32
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
    fn the_key_matters() {
        assert_ne!(mix(1, 1), mix(1, 2));
        assert_ne!(mix3([1, 2, 3], 1), mix3([1, 2, 3], 2));
    }
}
