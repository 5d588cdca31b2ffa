//! Weighted rendezvous hashing: each slot goes to the member that draws the lowest `-log(u) / weight`, where `u` is
//! the slot's uniform number under that member's key.
//!
//! A draw depends on the slot, the endpoint and its weight alone, so a member's loss moves its own slots and no
//! other: disruption is exactly minimal. The price is shares that are drawn rather than dealt.

use lb_common::hash::mix;

use super::Member;
use super::logarithm::negative_log2;

const KEY: u64 = u64::from_le_bytes(*b"draw\0\0\0\0");

/// Members of one weight. Among them the largest hash wins, so that one logarithm does for all of them.
struct Group {
    weight: u32,
    /// Key of the draws, and identifier.
    members: Vec<(u64, u16)>,
}

/// Fills a table. The members have weight and stand in the order of their endpoints.
pub(super) fn build(members: &[Member], slots: u32) -> Vec<u16> {
    let groups = groups(members);
    (0..slots).map(|slot| winner(&groups, u64::from(slot))).collect()
}

fn groups(members: &[Member]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for member in members {
        let draw = (member.hash(KEY), member.id);
        match groups.iter_mut().find(|group| group.weight == member.weight) {
            Some(group) => group.members.push(draw),
            None => groups.push(Group { weight: member.weight, members: vec![draw] }),
        }
    }
    groups.sort_by_key(|group| group.weight);
    groups
}

fn winner(groups: &[Group], slot: u64) -> u16 {
    let mut best = (u64::MAX, 1u32, 0);
    for group in groups {
        let (draw, id) = group.best(slot);
        let score = negative_log2(draw);
        // score / weight < best score / best weight, without dividing. A score has 39 bits, a weight 32.
        if u128::from(score) * u128::from(best.1) < u128::from(best.0) * u128::from(group.weight) {
            best = (score, group.weight, id);
        }
    }
    best.2
}

impl Group {
    /// The largest draw for a slot; of equal ones the first endpoint's.
    fn best(&self, slot: u64) -> (u64, u16) {
        let mut best = (0, 0);
        for &(key, id) in &self.members {
            let draw = mix(slot, key);
            if draw > best.0 || best.1 == 0 {
                best = (draw, id);
            }
        }
        best
    }
}
