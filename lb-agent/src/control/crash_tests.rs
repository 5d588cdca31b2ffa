//! The control task over a disk that is cut off at every operation: what the next one finds, does and answers.

use super::change::Changed;
use super::fake::World;
use super::*;
use crate::model::{Change, file};
use crate::store::FileStore;
use crate::store::simulated::{Fault, Simulated, Unsynced};

const KEEP: usize = 3;

/// Every kind of change, so that each is in flight once when the power goes.
fn changes() -> Vec<Change> {
    let web = || -> ServiceName { "web".parse().unwrap() };
    let at = |last: u8| -> Endpoint { format!("10.0.1.{last}:80").parse().unwrap() };
    let declared = |text: &str| file::parse(text, "state").unwrap();
    let whole = "[[service]]\nname = \"web\"\nvip = \"10.0.0.100:80\"\n[[service.backend]]\naddress = \"10.0.1.1:80\"\n";
    let deadline = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    vec![
        Change::Declare { desired: declared(whole), prune: None },
        Change::AddBackend(web(), at(2), crate::model::Backend::default()),
        Change::SetBackend(
            web(),
            at(1),
            crate::model::BackendChange { weight: Some(7.into()), ..Default::default() },
        ),
        Change::RemoveBackend(web(), at(2), crate::model::Removal::Drain(deadline)),
        Change::RemoveBackend(web(), at(2), crate::model::Removal::Now),
        Change::RemoveService(web()),
    ]
}

fn start(disk: &Simulated, world: &World) -> anyhow::Result<(Control, Handle)> {
    let limits = Limits::default();
    let store = FileStore::simulated(disk, KEEP)?;
    Control::start(Parts {
        revision: load(&store, &limits)?,
        store: Box::new(store),
        datapath: Box::new(world.clone()),
        network: Network::default(),
        prober: Box::new(world.clone()),
        limits,
    })
}

/// Makes the changes until one fails: the states that were acknowledged, and the one that was not.
fn change(control: &mut Control, acknowledged: &mut Vec<Desired>) -> Option<Desired> {
    for change in changes() {
        let next = change.apply(&control.desired).unwrap();
        match control.change(&change, Order::default()) {
            Ok(Changed { .. }) => acknowledged.push(next),
            Err(_) => return Some(next),
        }
    }
    None
}

/// Disk, kernel and answers of an agent agree.
fn assert_agree(control: &Control, world: &World, case: &str) {
    let stored = control.store.latest().unwrap();
    assert_eq!(stored.desired, control.desired, "{case}: disk and memory");
    assert_eq!(stored.info.revision, control.revision, "{case}");
    assert_eq!(world.lock().applied, control.wanted(), "{case}: kernel and memory");
    assert_eq!(control.snapshot().desired, control.desired, "{case}: answers and memory");
}

fn at_every_operation(
    fault: Fault,
    mut then: impl FnMut(Option<Control>, &Simulated, &World, &[Desired], Option<&Desired>, &str),
) {
    let mut reached = 0;
    for operation in 0.. {
        let (disk, world) = (Simulated::failing_at(operation, fault), World::default());
        let (mut acknowledged, mut in_flight) = (vec![Desired::default()], None);
        let mut control = start(&disk, &world).ok().map(|(control, _)| control);
        if let Some(control) = &mut control {
            in_flight = change(control, &mut acknowledged);
        }
        if !disk.has_failed() {
            break;
        }
        reached = operation;
        let case = format!("{fault:?} at operation {operation}");
        then(control, &disk, &world, &acknowledged, in_flight.as_ref(), &case);
    }
    assert!(reached > 8 * changes().len(), "{reached}");
}

#[tokio::test]
async fn after_a_crash_anywhere_disk_kernel_and_answers_agree_and_nothing_acknowledged_is_missing() {
    at_every_operation(Fault::Crash, |control, disk, world, acknowledged, in_flight, case| {
        drop(control);
        for unsynced in Unsynced::ALL {
            let case = format!("{case}, unsynchronised {unsynced:?}");
            let disk = disk.after_power_loss(unsynced);
            let (next, _handle) = start(&disk, world).unwrap_or_else(|error| panic!("{case}: {error:#}"));
            assert_agree(&next, world, &case);
            let found = &*next.desired;
            let is_there = acknowledged.last() == Some(found) || in_flight == Some(found);
            assert!(is_there, "{case}: {found:?} after {acknowledged:?}");
        }
    });
}

#[tokio::test]
async fn after_a_failed_write_anywhere_nothing_has_changed_and_the_next_tick_settles_it() {
    for fault in [Fault::Refused, Fault::DoneAndFailed] {
        at_every_operation(fault, |control, disk, world, acknowledged, _, case| {
            let Some(mut control) = control else { return };
            assert_eq!(acknowledged.last(), Some(&*control.desired), "{case}");
            control.catch_up();
            assert_agree(&control, world, case);
            assert!(!control.out_of_step, "{case}");
            drop(control);
            for unsynced in Unsynced::ALL {
                let (next, _handle) = start(&disk.after_power_loss(unsynced), world).unwrap();
                assert_eq!(acknowledged.last(), Some(&*next.desired), "{case}, {unsynced:?}");
                assert_agree(&next, world, case);
            }
        });
    }
}
