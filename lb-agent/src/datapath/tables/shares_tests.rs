//! What `maglev` and `consistent-hash` promise of shares and of disruption, and what one of them cannot: see
//! `docs/adr/0014-shares-against-disruption.md`.

use std::collections::BTreeMap;

use super::tests::member;
use super::{Member, build};
use crate::model::Strategy::{self, ConsistentHash, Maglev};

const SLOTS: u32 = 65_537;

/// Backends of weight 1, and of weights 1, 2 and 5 in turn.
fn members(count: u16, weights: &[u32]) -> Vec<Member> {
    (1..=count).zip(weights.iter().cycle()).map(|(n, &weight)| member(n, weight)).collect()
}

/// 3, 10 and 100 backends, of equal weights and of 1:2:5.
fn fleets() -> impl Iterator<Item = Vec<Member>> {
    [3, 10, 100].into_iter().flat_map(|count| [&[1][..], &[1, 2, 5]].map(|weights| members(count, weights)))
}

/// Of each member: the share of the slots that it has, and the one that its weight asks for.
fn shares(strategy: Strategy, members: &[Member]) -> Vec<(f64, f64)> {
    let mut slots: BTreeMap<u16, u32> = BTreeMap::new();
    for id in build(strategy, members, SLOTS) {
        *slots.entry(id).or_default() += 1;
    }
    let total: u32 = members.iter().map(|member| member.weight).sum();
    let of = |member: &Member| {
        let has = f64::from(slots.get(&member.id).copied().unwrap_or(0)) / f64::from(SLOTS);
        (has, f64::from(member.weight) / f64::from(total))
    };
    members.iter().map(of).collect()
}

#[test]
fn maglev_s_shares_are_within_one_per_cent_of_each_share() {
    for members in fleets() {
        for (has, due) in shares(Maglev, &members) {
            assert!((has / due - 1.0).abs() < 0.01, "{} backends: {has} instead of {due}", members.len());
        }
    }
}

#[test]
fn consistent_hash_s_shares_are_within_one_percentage_point() {
    for members in fleets() {
        for (has, due) in shares(ConsistentHash, &members) {
            assert!((has - due).abs() < 0.01, "{} backends: {has} instead of {due}", members.len());
        }
    }
}

/// Each slot is drawn by itself, so a share is binomial: five standard deviations, which is much less than a percentage
/// point for many backends, and much more than one per cent of their shares.
#[test]
fn consistent_hash_s_shares_are_draws() {
    let mut worst: f64 = 0.0;
    for members in fleets() {
        for (has, due) in shares(ConsistentHash, &members) {
            let deviation = (due * (1.0 - due) / f64::from(SLOTS)).sqrt();
            assert!((has - due).abs() < 5.0 * deviation, "{} backends: {has} of {due}", members.len());
            worst = worst.max((has / due - 1.0).abs());
        }
    }
    assert!(worst > 0.05, "if no share is off by more than {worst}, the decision can be taken back");
}

/// Slots that go from one member that stays to another, of those that belong to members that stay: for each member that
/// may be lost.
fn moved(strategy: Strategy, members: &[Member]) -> impl Iterator<Item = (usize, usize)> {
    let before = build(strategy, members, SLOTS);
    (0..members.len()).map(move |lost| {
        let mut left = members.to_vec();
        let lost = left.remove(lost).id;
        let after = build(strategy, &left, SLOTS);
        let staying = before.iter().zip(&after).filter(|&(&old, _)| old != lost);
        (staying.clone().filter(|(old, new)| old != new).count(), staying.count())
    })
}

#[test]
fn a_loss_of_one_in_ten_moves_under_one_per_cent_of_the_others_slots_under_maglev() {
    for weights in [&[1][..], &[1, 2, 5]] {
        for (moved, staying) in moved(Maglev, &members(10, weights)) {
            assert!((moved as f64) < 0.01 * staying as f64, "{weights:?}: {moved} of {staying}");
        }
    }
}

#[test]
fn a_loss_of_one_in_ten_moves_no_slot_of_the_others_under_consistent_hash() {
    for weights in [&[1][..], &[1, 2, 5]] {
        for (moved, staying) in moved(ConsistentHash, &members(10, weights)) {
            assert_eq!(moved, 0, "{weights:?}: of {staying}");
        }
    }
}

/// Not one neighbour's, which would then have twice its load.
#[test]
fn the_share_of_a_lost_backend_goes_to_all_that_are_left() {
    for strategy in [Maglev, ConsistentHash] {
        let members = members(10, &[1]);
        let (before, after) = (build(strategy, &members, SLOTS), build(strategy, &members[1..], SLOTS));
        let mut inherited: BTreeMap<u16, u32> = BTreeMap::new();
        for (_, heir) in before.iter().zip(&after).filter(|(owner, _)| **owner == members[0].id) {
            *inherited.entry(*heir).or_default() += 1;
        }
        let lost: u32 = inherited.values().sum();
        // A ninth each; at six standard deviations of a binomial no more than a third more.
        let fair = members[1..].iter().all(|member| {
            let ratio = f64::from(inherited.get(&member.id).copied().unwrap_or(0)) * 9.0 / f64::from(lost);
            (0.67..=1.33).contains(&ratio)
        });
        assert!(lost > 6000 && fair, "{strategy}: of {lost} slots {inherited:?}");
    }
}
