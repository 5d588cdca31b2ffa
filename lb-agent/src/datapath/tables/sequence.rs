//! Smooth weighted round robin: members dealt in turns, each as evenly spaced as its weight allows.
//!
//! The `i`th of `n` members, of weight `w`, has its turns at `(k + (i + 1/2) / n) / w` of the cycle, for `k` from 0 to
//! `w - 1`: evenly spaced, and members of equal weight out of step with each other. A cycle is as long as all weights together, so that shares are exact, and the table is one cycle:
//! however often a counter runs through it, nobody is a turn ahead. Where the cycle is longer than a table can be,
//! the weights are scaled down to it, the largest remainders rounded up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Member;

/// Deals one cycle, of at most `slots` turns. The members have weight and stand in the order of their endpoints.
pub(super) fn build(members: &[Member], slots: u32) -> Vec<u16> {
    let turns = turns(members, slots);
    let place = |member: usize, turn: u64| {
        let members = turns.len() as u128;
        let numerator = 2 * members * u128::from(turn) + 2 * member as u128 + 1;
        // A fraction of 64 bits: the numerator has 49 at most.
        ((numerator << 63) / (members * u128::from(turns[member]))) as u64
    };
    // Of equal turns the earlier member's comes first: the order of endpoints, equal on every node.
    let mut due: BinaryHeap<_> = turns
        .iter()
        .enumerate()
        .filter(|(_, turns)| **turns > 0)
        .map(|(member, _)| Reverse((place(member, 0), member, 0)))
        .collect();
    let mut table = Vec::with_capacity(turns.iter().sum::<u64>() as usize);
    while let Some(Reverse((_, member, turn))) = due.pop() {
        table.push(members[member].id);
        if turn + 1 < turns[member] {
            due.push(Reverse((place(member, turn + 1), member, turn + 1)));
        }
    }
    table
}

/// How many turns each member has: the weights in lowest terms, or as many as there is room for.
fn turns(members: &[Member], slots: u32) -> Vec<u64> {
    let weights: Vec<u64> = members.iter().map(|member| u64::from(member.weight)).collect();
    let divisor = weights.iter().copied().fold(0, greatest_common_divisor).max(1);
    let exact: Vec<u64> = weights.iter().map(|weight| weight / divisor).collect();
    let total: u64 = exact.iter().sum();
    if total <= u64::from(slots) {
        return exact;
    }
    scaled(&exact, total, u64::from(slots))
}

/// The largest-remainder method.
fn scaled(weights: &[u64], total: u64, slots: u64) -> Vec<u64> {
    let shares = weights.iter().map(|weight| u128::from(*weight) * u128::from(slots));
    let (mut turns, mut rests): (Vec<u64>, Vec<_>) = shares
        .enumerate()
        .map(|(member, share)| {
            let (whole, rest) = (share / u128::from(total), share % u128::from(total));
            (whole as u64, (Reverse(rest), member))
        })
        .unzip();
    rests.sort_unstable();
    let missing = slots - turns.iter().sum::<u64>();
    for (_, member) in rests.into_iter().take(missing as usize) {
        turns[member] += 1;
    }
    turns
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn members(weights: &[u32]) -> Vec<Member> {
        let member =
            |(id, &weight)| Member { address: Default::default(), port: Default::default(), weight, id };
        (1..).zip(weights).map(member).collect()
    }

    #[test]
    fn turns_are_spread_over_the_cycle() {
        assert_eq!(build(&members(&[5, 1, 1]), 65_537), [1, 1, 1, 2, 1, 1, 3]);
        assert_eq!(build(&members(&[1, 1, 1]), 65_537), [1, 2, 3]);
        assert_eq!(build(&members(&[100, 200]), 65_537), [1, 2, 2]);
    }

    #[test]
    fn a_cycle_that_is_too_long_is_scaled_down() {
        let table = build(&members(&[65_535, 32_768, 1]), 61);
        let of = |id| table.iter().filter(|&&slot| slot == id).count();
        assert_eq!((table.len(), of(1), of(2), of(3)), (61, 41, 20, 0));
    }

    proptest! {
        #[test]
        fn shares_are_the_weights(weights in prop::collection::vec(1u32..50, 1..30)) {
            let table = build(&members(&weights), 65_537);
            let total: u32 = weights.iter().sum();
            prop_assert_eq!(total as usize % table.len(), 0);
            let divisor = total as usize / table.len();
            for (id, &weight) in (1..).zip(&weights) {
                prop_assert_eq!(table.iter().filter(|&&slot| slot == id).count() * divisor, weight as usize);
            }
        }

        /// Never much ahead of its share or behind: at no point of the cycle by more than two turns.
        #[test]
        fn turns_come_evenly(weights in prop::collection::vec(1u32..20, 2..12)) {
            let table = build(&members(&weights), 65_537);
            let total: f64 = weights.iter().copied().map(f64::from).sum();
            for (id, &weight) in (1..).zip(&weights) {
                let mut had = 0.0;
                for (turn, &slot) in (1..).zip(&table) {
                    had += f64::from(u8::from(slot == id));
                    let due = f64::from(turn) * f64::from(weight) / total;
                    prop_assert!((had - due).abs() < 2.0, "{had} turns of {due}");
                }
            }
        }
    }
}
