//! Slot tables: which backend each slot of a service goes to.
//!
//! Pure functions of the backends' endpoints and weights. Nothing that differs from node to node (identifiers, the
//! order of rows, the machine's floating point) has a part in which endpoint a slot goes to, so that every balancer
//! of a service sends a flow to the same backend.

mod logarithm;
mod maglev;
mod rendezvous;
mod sequence;
#[cfg(test)]
mod shares_tests;

use lb_common::hash::{mix, mix3};
use lb_common::service::Index;
use lb_common::{Address, Be16};

use crate::model::Strategy;

/// A backend as a table sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Where it is: its identity on every node.
    pub(crate) address: Address,
    /// Its port.
    pub(crate) port: Be16,
    /// Its share relative to the others; 0 takes no slot.
    pub(crate) weight: u32,
    /// What stands in its slots. Has no influence on which slots they are.
    pub(crate) id: u16,
}

impl Member {
    /// A number that stands for the endpoint, under a key.
    fn hash(&self, key: u64) -> u64 {
        let address = u128::from_be_bytes(self.address.to_wire());
        let (head, tail) = ((address >> 64) as u64, address as u64);
        mix3([head, tail, u64::from(self.port.get())], key)
    }
}

/// Builds the table of a strategy: `slots` identifiers or, where shares alone count, as few as have them exactly; none
/// where no member has weight.
pub(crate) fn build(strategy: Strategy, members: &[Member], slots: u32) -> Vec<u16> {
    let mut members: Vec<_> = members.iter().copied().filter(|member| member.weight > 0).collect();
    if members.is_empty() {
        return Vec::new();
    }
    members.sort_by_key(|member| (member.address.to_wire(), member.port.get()));
    match strategy {
        Strategy::Maglev | Strategy::SourceHash => maglev::build(&members, slots),
        Strategy::ConsistentHash => rendezvous::build(&members, slots),
        Strategy::RoundRobin
        | Strategy::Random
        | Strategy::LeastConnections
        | Strategy::LeastLatency
        | Strategy::ResourceBased => sequence::build(&members, slots),
    }
}

/// How packets find their slots in a strategy's table.
pub(crate) const fn index(strategy: Strategy) -> Index {
    match strategy {
        Strategy::Maglev | Strategy::ConsistentHash => Index::Flow,
        Strategy::SourceHash => Index::Source,
        Strategy::RoundRobin => Index::RoundRobin,
        Strategy::Random | Strategy::ResourceBased => Index::Random,
        Strategy::LeastConnections => Index::LeastConnections,
        Strategy::LeastLatency => Index::LeastLatency,
    }
}

/// The key of the hash that picks a slot: the same on every node that serves this address, port and protocol.
pub(crate) fn seed(vip: &Address, port: Be16, protocol: lb_common::Protocol) -> u64 {
    let service = Member { address: *vip, port, weight: 0, id: 0 }.hash(u64::from_le_bytes(*b"service\0"));
    mix(service, u64::from(protocol.0))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    const SLOTS: u32 = 65_537;

    #[test]
    fn no_weight_gives_no_table() {
        for &strategy in Strategy::ALL {
            assert!(build(strategy, &[], SLOTS).is_empty());
            assert!(build(strategy, &[member(1, 0), member(2, 0)], SLOTS).is_empty());
        }
    }

    #[test]
    fn a_member_without_weight_has_no_slot() {
        for &strategy in Strategy::ALL {
            let table = build(strategy, &[member(1, 1), member(2, 0)], 251);
            assert!(!table.is_empty() && table.iter().all(|&id| id == 1), "{strategy}: {table:?}");
        }
    }

    /// Another release of this software must not move flows: the tables are part of its interface.
    #[test]
    fn tables_are_what_they_were() {
        let hash = |strategy| {
            let table = build(strategy, &weighted(10), SLOTS);
            table.iter().fold(0, |hash, &id| mix(hash, u64::from(id)))
        };
        assert_eq!(hash(Strategy::Maglev), GOLDEN_MAGLEV);
        assert_eq!(hash(Strategy::ConsistentHash), GOLDEN_RENDEZVOUS);
    }

    const GOLDEN_MAGLEV: u64 = 16_785_560_727_633_179_309;
    const GOLDEN_RENDEZVOUS: u64 = 9_408_839_722_995_041_918;

    #[test]
    fn seeds_tell_services_apart() {
        let vip = Address::from(IpAddr::from([10, 0, 0, 100]));
        let tcp = seed(&vip, Be16::new(80), lb_common::Protocol::TCP);
        assert_ne!(tcp, seed(&vip, Be16::new(80), lb_common::Protocol::UDP));
        assert_ne!(tcp, seed(&vip, Be16::new(81), lb_common::Protocol::TCP));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn order_and_identifiers_do_not_matter(
            weights in prop::collection::vec(0u32..100, 1..20),
            rotation in any::<prop::sample::Index>(),
        ) {
            let members: Vec<_> = (1..).zip(&weights).map(|(n, &weight)| member(n, weight)).collect();
            let mut other = members.clone();
            other.rotate_left(rotation.index(members.len()));
            for member in &mut other {
                member.id += 1000;
            }
            for &strategy in Strategy::ALL {
                let renamed: Vec<_> = build(strategy, &members, 1009).iter().map(|id| id + 1000).collect();
                prop_assert_eq!(renamed, build(strategy, &other, 1009));
            }
        }

        #[test]
        fn every_slot_is_a_members(weights in prop::collection::vec(0u32..1000, 1..40), slots in 1u32..2000) {
            let members: Vec<_> = (1..).zip(&weights).map(|(n, &weight)| member(n, weight)).collect();
            for &strategy in Strategy::ALL {
                let table = build(strategy, &members, slots);
                if weights.iter().all(|&weight| weight == 0) {
                    prop_assert!(table.is_empty());
                    continue;
                }
                prop_assert!(!table.is_empty() && table.len() <= slots as usize);
                if index(strategy).is_hash() {
                    prop_assert_eq!(table.len(), slots as usize);
                }
                prop_assert!(table.iter().all(|&id| weights[usize::from(id) - 1] > 0));
            }
        }
    }

    pub(super) fn member(n: u16, weight: u32) -> Member {
        let [high, low] = n.to_be_bytes();
        Member { address: IpAddr::from([10, 1, high, low]).into(), port: Be16::new(8080), weight, id: n }
    }

    fn weighted(count: u16) -> Vec<Member> {
        (1..=count).map(|n| member(n, [1, 2, 5][usize::from(n) % 3])).collect()
    }
}
