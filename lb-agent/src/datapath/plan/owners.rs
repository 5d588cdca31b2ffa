//! Tables of services that track flows by exception: who has each slot, and who had it before.
//!
//! Half as many slots, of twice the width: such a table fits the same region.

use std::collections::BTreeSet;

use lb_common::slot::Owners;

use super::TableInputs;
use crate::datapath::tables;

/// Elements of the slot array that so many slots take.
pub(crate) const fn elements(slots: u32, by_exception: bool) -> u32 {
    if by_exception { slots * 2 } else { slots }
}

/// Slots of a table in a region for `table_size` elements.
pub(crate) const fn slots(table_size: u32) -> u32 {
    if table_size < 2 { 1 } else { table_size / 2 }
}

/// The pairs of a table as it lies in the slot array.
pub(crate) fn pairs(elements: &[u16]) -> impl Iterator<Item = Owners> {
    elements.chunks_exact(2).map(|pair| Owners::from_elements([pair[0], pair[1]]))
}

/// The elements of pairs.
pub(crate) fn to_elements(pairs: impl Iterator<Item = Owners>) -> Vec<u16> {
    pairs.flat_map(Owners::to_elements).collect()
}

/// The table after a change, where `before` is the one until now, or empty. A base that is not among the rows that
/// may keep flows is given up at once.
pub(super) fn change(
    before: &[u16],
    inputs: &TableInputs,
    keeping: &BTreeSet<u16>,
    table_size: u32,
) -> Vec<u16> {
    let size = slots(table_size);
    let mut current = tables::build(inputs.strategy, &inputs.members, size);
    // No backend takes new flows; the table stays, since there may be flows from before.
    current.resize(size as usize, 0);
    if before.is_empty() {
        return to_elements(current.into_iter().map(Owners::clean));
    }
    to_elements(pairs(before).zip(current).map(|(owners, backend)| {
        let given = owners.given_to(backend);
        if given.base == 0 || keeping.contains(&given.base) { given } else { given.rebased() }
    }))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use lb_common::Be16;

    use super::*;
    use crate::datapath::tables::Member;
    use crate::model::Strategy;

    const TABLE_SIZE: u32 = 503;

    fn inputs(weights: &[(u16, u32)]) -> TableInputs {
        let member = |&(id, weight)| Member {
            address: IpAddr::from([10, 1, 0, id as u8]).into(),
            port: Be16::new(80),
            weight,
            id,
        };
        let keeping = Some(weights.iter().map(|(id, _)| *id).collect());
        TableInputs { strategy: Strategy::Maglev, members: weights.iter().map(member).collect(), keeping }
    }

    fn changed(before: &[u16], weights: &[(u16, u32)]) -> Vec<u16> {
        let inputs = inputs(weights);
        change(before, &inputs, inputs.keeping.as_ref().unwrap(), TABLE_SIZE)
    }

    #[test]
    fn a_new_table_is_clean_and_fits_its_region() {
        let table = changed(&[], &[(1, 1), (2, 1)]);
        assert!(table.len() <= TABLE_SIZE as usize);
        assert!(pairs(&table).all(|owners| owners == Owners::clean(owners.current)));
        for size in [1, 2, 3, 65_537] {
            let lines = lb_common::slot::members_line(size) * lb_common::slot::SLOTS_PER_LINE;
            assert!(elements(slots(size), true) <= lines, "{size}");
        }
    }

    #[test]
    fn a_drained_backend_keeps_its_old_flows_and_a_removed_one_nothing() {
        let first = changed(&[], &[(1, 1), (2, 1)]);
        let drained = changed(&first, &[(1, 0), (2, 1)]);
        for (before, after) in pairs(&first).zip(pairs(&drained)) {
            assert_eq!((after.base, after.current), (before.base, 2));
            assert_eq!(after.look_up, before.current == 1);
        }
        let removed = changed(&drained, &[(2, 1)]);
        assert!(pairs(&removed).all(|owners| (owners.base, owners.current) == (2, 2)));
        assert!(pairs(&removed).zip(pairs(&drained)).all(|(after, before)| after.look_up == before.look_up));
    }

    #[test]
    fn without_any_backend_for_new_flows_old_ones_stay() {
        let drained = changed(&changed(&[], &[(1, 1)]), &[(1, 0)]);
        assert!(pairs(&drained).all(|owners| owners == Owners { base: 1, current: 0, look_up: true }));
        let again = changed(&drained, &[(1, 1)]);
        assert!(pairs(&again).all(|owners| owners == Owners { base: 1, current: 1, look_up: true }));
    }
}
