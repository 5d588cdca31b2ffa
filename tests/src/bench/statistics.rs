//! From rounds to figures.

/// A median, and the range that most rounds fell into.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figure {
    /// A tenth of the rounds were below.
    pub(super) low: f64,
    pub(super) median: f64,
    /// A tenth of the rounds were above.
    pub(super) high: f64,
}

impl Figure {
    /// Of measurements in any order; at least one.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        Self { low: quantile(&sorted, 0.1), median: quantile(&sorted, 0.5), high: quantile(&sorted, 0.9) }
    }
}

/// The value below which a share of the sorted values lies, between two neighbours in proportion.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = share * last as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// What each round took more than the empty program took in the same round.
pub(super) fn net(rounds: &[f64], empty: &[f64]) -> Vec<f64> {
    rounds.iter().zip(empty).map(|(round, empty)| round - empty).collect()
}

/// The median of the ratios within each round: what slows the machine down for a while slows both.
pub(super) fn ratio(of: &[f64], to: &[f64]) -> f64 {
    Figure::of(of.iter().zip(to).map(|(of, to)| of / to)).median
}

/// Numbers in an order that no prefetcher knows, the same in each run (`xorshift64*`).
pub(super) struct Draw(u64);

impl Draw {
    /// From a seed that is not 0.
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `limit`, all alike.
    pub(super) const fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let word = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        lb_common::hash::scale(word, limit)
    }

    /// Puts values into another order, all orders alike (Fisher and Yates).
    pub(super) fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            values.swap(last, self.below(last as u32 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_neighbours() {
        let figure = Figure::of([5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!(figure.median, 3.0);
        assert!((figure.low - 1.4).abs() < 1e-9 && (figure.high - 4.6).abs() < 1e-9, "{figure:?}");
        assert_eq!(Figure::of([7.0]), Figure { low: 7.0, median: 7.0, high: 7.0 });
    }

    #[test]
    fn one_slow_round_changes_neither_net_nor_ratio() {
        let empty = [10.0, 10.0, 100.0];
        let (reference, ours) = (net(&[30.0, 30.0, 300.0], &empty), net(&[20.0, 20.0, 200.0], &empty));
        assert_eq!(Figure::of(ours.clone()).median, 10.0);
        assert_eq!(ratio(&ours, &reference), 0.5);
    }

    #[test]
    fn a_shuffle_keeps_every_value() {
        let mut values: Vec<u32> = (0..1000).collect();
        Draw::new(1).shuffle(&mut values);
        assert!(values.windows(2).filter(|pair| pair[0] + 1 == pair[1]).count() < 10);
        values.sort_unstable();
        assert!(values.iter().copied().eq(0..1000));
    }

    #[test]
    fn draws_cover_the_range_evenly() {
        let mut draw = Draw::new(7);
        let mut counts = [0_u32; 100];
        for _ in 0..100_000 {
            counts[draw.below(100) as usize] += 1;
        }
        // Six standard deviations of 1,000.
        assert!(counts.iter().all(|count| (810..1190).contains(count)), "{counts:?}");
    }
}
