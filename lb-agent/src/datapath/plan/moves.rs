//! What a plan moves: slots, and by estimate the live flows on them.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::service::{Options, Table};

use super::Action;
use super::owners::{elements, pairs};
use crate::datapath::arrays::Arrays;
use crate::datapath::identity::Endpoint;
use crate::datapath::observed::{Occupancy, region_of, service_key, use_of_backend};
use crate::datapath::{Move, view};

/// What the actions move, for each service by its virtual address, as the rows are before any of them.
///
/// Where a slot goes to another backend, flows that are known stay where they are: the estimate says how many of them a
/// newcomer with the same hash would not join any more. Flows are spread evenly over their backend's slots.
pub(crate) fn moves(arrays: &Arrays, actions: &[Action]) -> BTreeMap<Endpoint, Move> {
    let written: BTreeMap<u32, &Vec<u16>> = actions
        .iter()
        .filter_map(|action| match action {
            Action::WriteTable { region, slots } => Some((*region, slots)),
            _ => None,
        })
        .collect();
    let mut moves: BTreeMap<u16, Move> = BTreeMap::new();
    let mut left = BTreeSet::new();
    for action in actions {
        match action {
            &Action::SwitchTable { service, table } => {
                let row = &arrays.services[usize::from(service)];
                let by_exception = Options(row.options.load()).has(Options::EXCEPTIONS);
                let read = |table: Table| arrays.table(table.line(), elements(table.slots(), by_exception));
                let owners = |elements: Vec<u16>| match by_exception {
                    true => pairs(&elements).map(|owners| owners.current).collect(),
                    false => elements,
                };
                let before = owners(read(Table(row.table.load())));
                let region = region_of(table, arrays.sizes.table_size);
                let after = match region.and_then(|region| written.get(&region)) {
                    Some(slots) => owners((*slots).clone()),
                    None => owners(read(table)),
                };
                if before != after {
                    count_slots(arrays, &before, &after, moves.entry(service).or_default());
                }
            }
            &Action::RetireBackend { id } => drop(left.insert(id)),
            Action::SetBackend { id, standing } if !standing.serving => drop(left.insert(*id)),
            _ => {}
        }
    }
    for id in left {
        let row = &arrays.backends[usize::from(id)];
        // One that serves no more has given up its flows already.
        if row.is_serving() {
            moves.entry(row.service).or_default().flows_leaving += active(arrays, id);
        }
    }
    moves.into_iter().map(|(id, each)| finish(arrays, id, each)).collect()
}

/// A table of another length is compared where its slots answer for the same hashes.
fn count_slots(arrays: &Arrays, before: &[u16], after: &[u16], into: &mut Move) {
    let mut owned: BTreeMap<u16, (u64, u64)> = BTreeMap::new();
    for (index, &old) in before.iter().enumerate() {
        let new = after.get(index * after.len() / before.len()).copied();
        let (slots, moved) = owned.entry(old).or_default();
        *slots += 1;
        *moved += u64::from(new != Some(old));
    }
    into.slots_total = before.len() as u64;
    into.slots = owned.values().map(|(_, moved)| moved).sum();
    let estimate = |(&id, &(slots, moved)): (&u16, &(u64, u64))| active(arrays, id) * moved / slots.max(1);
    into.flows_on_slots = owned.iter().map(estimate).sum();
}

fn active(arrays: &Arrays, backend: u16) -> u64 {
    view::traffic(arrays, backend).active_connections
}

fn finish(arrays: &Arrays, id: u16, each: Move) -> (Endpoint, Move) {
    let of_service = (0..)
        .zip(arrays.backends.iter())
        .skip(1)
        .filter(|(_, row)| row.service == id && use_of_backend(row) == Occupancy::InUse);
    let flows_total = of_service.map(|(backend, _)| active(arrays, backend)).sum();
    (service_key(&arrays.services[usize::from(id)]), Move { flows_total, ..each })
}

#[cfg(test)]
mod tests {
    use lb_common::backend::Standing;
    use lb_common::port::{ENTRIES, NO_ADDRESS};
    use lb_common::service::{Index, OnNoBackend};

    use super::*;
    use crate::datapath::arrays::Sizes;
    use crate::datapath::execute::set_up;
    use crate::model::Protocol;

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::new(text.parse().unwrap(), Protocol::Tcp)
    }

    fn table(region: u32, slots: u32) -> Table {
        Table::new(region * lb_common::slot::lines(61), slots, Index::Flow, OnNoBackend::Reset)
    }

    fn standing(serving: bool) -> Standing {
        Standing { serving, weight: 1, ..Standing::default() }
    }

    /// Service 1 with backends 5 and 6, slot by slot in turn, and so many live flows on each.
    fn arrays(flows: [u64; 2]) -> Arrays {
        let mut arrays = Arrays::private(Sizes {
            flows: 16,
            flows6: 16,
            services: 4,
            backends: 8,
            table_size: 61,
            cpus: 2,
            ..Sizes::TEST
        });
        let vip = endpoint("10.0.0.100:80");
        let put = |id, address: &str| Action::PutBackend {
            id,
            service: 1,
            vip,
            endpoint: endpoint(address),
            standing: standing(true),
        };
        let slots = (0..61).map(|slot| 5 + slot % 2).collect();
        let actions = [
            put(5, "10.0.1.1:80"),
            put(6, "10.0.1.2:80"),
            Action::WriteTable { region: 0, slots },
            Action::PutService {
                id: 1,
                vip,
                table: table(0, 61),
                options: Options::default(),
                pool: [NO_ADDRESS; ENTRIES as usize],
            },
        ];
        set_up(&mut arrays, actions);
        for (id, flows) in (5..).zip(flows) {
            arrays.traffic(0, id).opened.count(flows + 3);
            arrays.traffic(1, id).closed.count(3);
        }
        arrays
    }

    fn moved(arrays: &Arrays, actions: &[Action]) -> Vec<Move> {
        moves(arrays, actions).into_values().collect()
    }

    #[test]
    fn a_backend_that_goes_takes_its_slots_and_flows_with_it() {
        let arrays = arrays([100, 40]);
        let actions = [
            Action::WriteTable { region: 1, slots: vec![6; 61] },
            Action::SwitchTable { service: 1, table: table(1, 61) },
            Action::SetBackend { id: 5, standing: standing(false) },
            Action::RetireBackend { id: 5 },
        ];
        let expected = Move {
            service: String::new(),
            slots: 31,
            slots_total: 61,
            flows_on_slots: 100,
            flows_leaving: 100,
            flows_total: 140,
        };
        assert_eq!(moved(&arrays, &actions), [expected]);
    }

    #[test]
    fn flows_are_taken_to_be_spread_over_the_slots_of_their_backend() {
        let arrays = arrays([300, 40]);
        // Ten of backend 5's thirty-one slots go to backend 6.
        let slots = (0..61).map(|slot| if slot < 20 { 6 } else { 5 + slot % 2 }).collect();
        let actions = [
            Action::WriteTable { region: 1, slots },
            Action::SwitchTable { service: 1, table: table(1, 61) },
        ];
        let moved = moved(&arrays, &actions);
        assert_eq!((moved[0].slots, moved[0].flows_on_slots, moved[0].flows_leaving), (10, 96, 0));
    }

    #[test]
    fn a_table_of_another_length_moves_where_the_same_hashes_meet_others() {
        let mut arrays = arrays([0, 0]);
        let halves = |slots: u16| (0..slots).map(|slot| if slot < slots / 2 { 5 } else { 6 }).collect();
        let write = Action::WriteTable { region: 0, slots: halves(60) };
        set_up(&mut arrays, [write.clone()]);
        let actions = |slots: Vec<u16>| {
            let table = table(1, slots.len() as u32);
            [Action::WriteTable { region: 1, slots }, Action::SwitchTable { service: 1, table }]
        };
        arrays.services[1].table.store(table(0, 60).0);
        assert_eq!(moved(&arrays, &actions(halves(20)))[0].slots, 0);
        assert_eq!(moved(&arrays, &actions(vec![5; 20]))[0].slots, 30);
        assert_eq!(moved(&arrays, &actions(Vec::new()))[0].slots, 60);
    }

    #[test]
    fn what_stays_where_it_is_moves_nothing() {
        let arrays = arrays([100, 40]);
        let other_options = Table::new(0, 61, Index::Flow, OnNoBackend::Drop);
        let actions = [
            Action::SwitchTable { service: 1, table: other_options },
            Action::SetBackend { id: 5, standing: Standing { weight: 9, ..standing(true) } },
        ];
        assert_eq!(moved(&arrays, &actions), []);
    }
}
