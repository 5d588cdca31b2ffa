//! A logarithm in integers: the same bits on every machine, which floating point does not promise for `ln`.

/// Fraction bits of the result.
const FRACTION: u32 = 32;
/// The mantissa's bits that index the table; the rest is interpolated. The error is below 2^-22.
const INDEX: u32 = 10;

/// `log2(1 + i / 2^INDEX)` with [`FRACTION`] bits.
static TABLE: [u64; (1 << INDEX) + 1] = table();

/// `-log2(draw / 2^64)` with 32 fraction bits: 0 for the largest draw, 64 at most.
pub(super) fn negative_log2(draw: u64) -> u64 {
    // A draw of 0 would be infinitely bad; it is as bad as a draw of 1.
    let draw = if draw == 0 { 1 } else { draw };
    let zeros = draw.leading_zeros();
    let mantissa = (draw << zeros) << 1;
    let index = (mantissa >> (64 - INDEX)) as usize;
    let rest = (mantissa << INDEX) >> 32;
    let (low, high) = (TABLE[index], TABLE[index + 1]);
    let fraction = low + (((high - low) * rest) >> 32);
    (u64::from(zeros + 1) << FRACTION) - fraction
}

const fn table() -> [u64; (1 << INDEX) + 1] {
    let mut table = [0; (1 << INDEX) + 1];
    let mut i = 0;
    while i < table.len() {
        table[i] = log2_of_one_plus(i as u64);
        i += 1;
    }
    table
}

/// Bit by bit: squaring doubles a logarithm, and a square of 2 or more shows its next bit.
const fn log2_of_one_plus(numerator: u64) -> u64 {
    let mut x = ((1u128 << INDEX) + numerator as u128) << (62 - INDEX);
    let (mut result, mut bit) = (0, 1u64 << FRACTION);
    if x >= 1 << 63 {
        return bit;
    }
    while bit > 1 {
        bit >>= 1;
        x = (x * x) >> 62;
        if x >= 1 << 63 {
            x >>= 1;
            result |= bit;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_floating_point() {
        let draws = (0..100_000u64).map(|n| lb_common::hash::mix(n, 1));
        let edges = [0, 1, 2, 3, 1 << 32, (1 << 63) - 1, 1 << 63, u64::MAX - 1, u64::MAX];
        for draw in draws.chain(edges) {
            let exact = 64.0 - (draw.max(1) as f64).log2();
            let ours = negative_log2(draw) as f64 / 2f64.powi(32);
            assert!((exact - ours).abs() < 2f64.powi(-21), "{draw:#x}: {ours} instead of {exact}");
        }
    }

    #[test]
    fn larger_draws_never_score_worse() {
        let draws: Vec<_> = (0..64).flat_map(|bit| [(1u64 << bit).wrapping_sub(1), 1 << bit]).collect();
        let mut sorted = draws.clone();
        sorted.sort_unstable();
        assert!(sorted.windows(2).all(|pair| negative_log2(pair[0]) >= negative_log2(pair[1])));
    }
}
