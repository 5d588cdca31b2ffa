//! The store, killed at every point at which it touches the disk.

use std::collections::BTreeMap;

use super::simulated::{Fault, Simulated, Unsynced};
use super::*;
use crate::model::{Desired, file};

type Kept = BTreeMap<u64, Desired>;

/// More changes than revisions are kept.
const CHANGES: u16 = 6;
const KEEP: usize = 3;

fn state(weight: u16) -> Desired {
    let text = format!(
        "[[service]]\nname = \"web\"\nvip = \"10.0.0.100:80\"\n[[service.backend]]\naddress = \"10.0.1.1:80\"\nweight = {weight}\n"
    );
    file::parse(&text, "state").unwrap()
}

/// Makes the changes that are left until one fails; what was acknowledged is added, what failed is returned.
fn change(store: &mut FileStore<Simulated>, acknowledged: &mut Kept) -> Option<Desired> {
    for weight in 1..=CHANGES {
        let expected = store.latest().unwrap().info.revision;
        match store.swap(expected, Draft::new(state(weight))) {
            Ok(made) => assert_eq!(acknowledged.insert(made.info.revision, state(weight)), None),
            Err(_) => return Some(state(weight)),
        }
    }
    None
}

/// What the next agent finds: the last acknowledged state or the one in flight, and a true history.
fn assert_sound(store: &FileStore<Simulated>, acknowledged: &Kept, in_flight: Option<&Desired>, case: &str) {
    let latest = store.latest().unwrap();
    let (number, last) = acknowledged.last_key_value().unwrap();
    let is_in_flight = latest.info.revision > *number && in_flight == Some(&*latest.desired);
    let is_last = latest.info.revision == *number && *latest.desired == *last;
    assert!(is_last || is_in_flight, "{case}: {latest:?}");
    let history = store.history().unwrap();
    assert_eq!(history[0], latest.info, "{case}");
    assert!(history.len() >= KEEP.min(acknowledged.len()), "{case}: {history:?}");
    for info in &history[1..] {
        let kept = store.revision(info.revision).unwrap();
        assert_eq!(*kept.desired, acknowledged[&info.revision], "{case}");
    }
}

/// Runs over a disk on which something fails, for every operation there is. Calls with the state of affairs.
fn at_every_operation(
    fault: Fault,
    mut then: impl FnMut(Option<FileStore<Simulated>>, &Simulated, &Kept, Option<&Desired>, &str),
) {
    let mut reached = 0;
    for operation in 0.. {
        let disk = Simulated::failing_at(operation, fault);
        let (mut acknowledged, mut in_flight) = (Kept::from([(0, Desired::default())]), None);
        let mut store = FileStore::simulated(&disk, KEEP).ok();
        if let Some(store) = &mut store {
            in_flight = change(store, &mut acknowledged);
        }
        if !disk.has_failed() {
            break;
        }
        reached = operation;
        then(store, &disk, &acknowledged, in_flight.as_ref(), &format!("{fault:?} at operation {operation}"));
    }
    // Two files a change, four operations each; and those of the start.
    assert!(reached > 8 * usize::from(CHANGES), "{reached}");
}

#[test]
fn a_crash_at_any_operation_loses_nothing_that_was_acknowledged() {
    at_every_operation(Fault::Crash, |_, disk, acknowledged, in_flight, case| {
        for unsynced in Unsynced::ALL {
            let case = format!("{case}, unsynchronised {unsynced:?}");
            let disk = disk.after_power_loss(unsynced);
            let mut store =
                FileStore::simulated(&disk, KEEP).unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_sound(&store, acknowledged, in_flight, &case);
            // And it goes on from there.
            let latest = store.latest().unwrap().info.revision;
            let made = store.swap(latest, Draft::new(state(99))).unwrap().info.revision;
            let next = FileStore::simulated(&disk.after_power_loss(Unsynced::Lost), KEEP).unwrap();
            assert_eq!(next.latest().unwrap().info.revision, made, "{case}");
            assert_eq!(*next.latest().unwrap().desired, state(99), "{case}");
        }
    });
}

#[test]
fn an_operation_that_fails_leaves_the_state_before_once_that_is_settled() {
    for fault in [Fault::Refused, Fault::DoneAndFailed] {
        at_every_operation(fault, |store, disk, acknowledged, _, case| {
            // A failure while the store was opened leaves none.
            let Some(mut store) = store else { return };
            store.settle().unwrap();
            for unsynced in Unsynced::ALL {
                let next = FileStore::simulated(&disk.after_power_loss(unsynced), KEEP).unwrap();
                assert_sound(&next, acknowledged, None, &format!("{case}, unsynchronised {unsynced:?}"));
            }
        });
    }
}

#[test]
fn a_change_after_one_that_failed_needs_no_settling() {
    for fault in [Fault::Refused, Fault::DoneAndFailed] {
        at_every_operation(fault, |store, disk, acknowledged, _, case| {
            let Some(mut store) = store else { return };
            let mut acknowledged = acknowledged.clone();
            assert_eq!(change(&mut store, &mut acknowledged), None, "{case}");
            let next = FileStore::simulated(&disk.after_power_loss(Unsynced::Lost), KEEP).unwrap();
            assert_sound(&next, &acknowledged, None, case);
        });
    }
}
