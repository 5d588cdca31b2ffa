use std::time::{Duration, SystemTime};

use super::fake::World;
use super::*;
use crate::datapath::WantedBackend;
use crate::events::Happening;
use crate::model::{Admin, Backend, BackendChange, Change, Removal, file};
use crate::store::Draft;

const STATE: &str = r#"
    [[service]]
    name = "web"
    vip = "10.0.0.100:80"
    [service.health]
    type = "tcp"
    rise = 2
    fall = 3
    [[service.backend]]
    address = "10.0.1.11:80"
    weight = 5
    [[service.backend]]
    address = "10.0.1.12:80"
"#;
const FIRST: &str = "10.0.1.11:80";

fn state() -> Desired {
    file::parse(STATE, "state").unwrap()
}

fn world() -> World {
    let world = World::default();
    world.lock().saved = state();
    world
}

fn add_backend(address: &str) -> Change {
    Change::AddBackend("web".parse().unwrap(), address.parse().unwrap(), Backend::default())
}

fn remove_first(timeout: Duration) -> Change {
    let removal = Removal::Drain(SystemTime::now() + timeout);
    Change::RemoveBackend("web".parse().unwrap(), FIRST.parse().unwrap(), removal)
}

/// Polls, on a clock that jumps when nothing else is left to do, for at most a minute of it.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never: {what}");
}

fn first(world: &World) -> Option<(u32, bool)> {
    world.backend(FIRST).map(|WantedBackend { weight, serving, .. }| (weight, serving))
}

#[tokio::test(start_paused = true)]
async fn the_saved_state_is_carried_out_at_the_start() {
    let world = world();
    let _handle = world.run();
    assert_eq!(first(&world), Some((5, true)));
}

#[tokio::test(start_paused = true)]
async fn an_answered_change_is_on_disk_and_in_the_data_plane() {
    let world = world();
    let changed = world.run().change(add_backend("10.0.1.13:80"), false).await.unwrap();
    assert_eq!(changed.changes, ["add backend web 10.0.1.13:80: weight 1, enabled"]);
    assert_eq!(changed.plan.steps, ["serve 1 services"]);
    assert!(world.backend("10.0.1.13:80").is_some());
    assert_eq!(world.lock().saved.backend_count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_changes_nothing() {
    let world = world();
    let handle = world.run();
    let changed = handle.change(add_backend("10.0.1.13:80"), true).await.unwrap();
    assert_eq!(changed.changes.len(), 1);
    assert_eq!(world.backend("10.0.1.13:80"), None);
    assert_eq!(world.lock().saved, state());
    assert_eq!(*handle.snapshot().await.unwrap().desired, state());
}

#[tokio::test(start_paused = true)]
async fn what_the_data_plane_refuses_leaves_no_trace() {
    let world = world();
    let handle = world.run();
    world.lock().refusals = vec!["no room for a table"];
    let error = handle.change(add_backend("10.0.1.13:80"), false).await.unwrap_err();
    assert_eq!(error.to_string(), "nothing was changed: the data plane refused: no room for a table");
    assert_eq!(world.lock().saved, state());
    assert_eq!(world.backend("10.0.1.13:80"), None);
    assert_eq!(first(&world), Some((5, true)));
    assert_eq!(*handle.snapshot().await.unwrap().desired, state());
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_does_not_keep_a_dead_backend_in() {
    let world = world();
    let handle = world.run();
    world.lock().disk_full = true;
    handle.change(add_backend("10.0.1.13:80"), false).await.unwrap_err();
    world.lock().refusals = vec!["busy"];
    world.lock().dead.push(FIRST.parse().unwrap());
    eventually("taken out", || first(&world) == Some((0, false))).await;
}

#[tokio::test(start_paused = true)]
async fn a_data_plane_that_refuses_the_way_back_is_brought_in_step_later() {
    let world = world();
    let handle = world.run();
    world.lock().refusals = vec!["still broken", "broken"];
    handle.change(add_backend("10.0.1.13:80"), false).await.unwrap_err();
    eventually("in step again", || first(&world) == Some((5, true))).await;
    assert_eq!(world.lock().saved, state());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_saved_does_not_reach_the_data_plane() {
    let world = world();
    let handle = world.run();
    world.lock().disk_full = true;
    let error = handle.change(add_backend("10.0.1.13:80"), false).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "nothing was changed: cannot save the state to /state.toml: no storage space"
    );
    assert_eq!(world.backend("10.0.1.13:80"), None);
    assert_eq!(*handle.snapshot().await.unwrap().desired, state());
}

#[tokio::test(start_paused = true)]
async fn a_removed_backend_goes_with_its_last_flow() {
    let world = world();
    world.lock().active.insert(FIRST.parse().unwrap(), 1);
    let handle = world.run();
    handle.change(remove_first(Duration::from_secs(300)), false).await.unwrap();
    assert_eq!(first(&world), Some((0, true)));
    time::sleep(Duration::from_secs(10)).await;
    assert_eq!(first(&world), Some((0, true)));
    let snapshot = handle.snapshot().await.unwrap();
    let now = &snapshot.backends[&("web".parse().unwrap(), FIRST.parse().unwrap())];
    assert_eq!(
        (now.removing, now.backend.admin, now.effective_weight.is_some()),
        (true, Admin::Draining, false)
    );

    world.lock().active.clear();
    eventually("removed", || first(&world).is_none()).await;
    assert_eq!(world.lock().saved.backend_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_removed_backend_goes_when_its_time_is_up() {
    let world = world();
    world.lock().active.insert(FIRST.parse().unwrap(), 1);
    let handle = world.run();
    handle.change(remove_first(Duration::ZERO), false).await.unwrap();
    assert_eq!(first(&world), Some((0, true)));
    eventually("removed", || first(&world).is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_removal_outlives_the_agent() {
    let world = world();
    world.lock().active.insert(FIRST.parse().unwrap(), 1);
    let handle = world.run();
    handle.change(remove_first(Duration::from_secs(300)), false).await.unwrap();
    drop(handle);

    let _next = world.run();
    assert_eq!(first(&world), Some((0, true)));
    world.lock().active.clear();
    eventually("removed", || first(&world).is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_backend_is_taken_out_and_brought_back() {
    let world = world();
    let handle = world.run();
    let key = ("web".parse().unwrap(), FIRST.parse().unwrap());
    world.lock().dead.push(FIRST.parse().unwrap());
    eventually("taken out", || first(&world) == Some((0, false))).await;
    assert_eq!(handle.snapshot().await.unwrap().backends[&key].health, Health::Unhealthy);
    assert_eq!(world.backend("10.0.1.12:80").map(|other| other.weight), Some(1));

    world.lock().dead.clear();
    eventually("brought back", || first(&world) == Some((5, true))).await;
    assert_eq!(handle.snapshot().await.unwrap().backends[&key].health, Health::Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_dead_backend_stays_out_when_the_agent_starts_again() {
    let world = world();
    let handle = world.run();
    world.lock().dead.push(FIRST.parse().unwrap());
    eventually("taken out", || first(&world) == Some((0, false))).await;
    drop(handle);

    world.lock().applied = Default::default();
    let _next = world.control().unwrap();
    assert_eq!(first(&world), Some((0, false)));
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_the_data_plane_refuses_is_tried_again() {
    let world = world();
    let _handle = world.run();
    world.lock().dead.push(FIRST.parse().unwrap());
    world.lock().refusals = vec!["busy", "busy"];
    eventually("taken out", || first(&world) == Some((0, false))).await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_of_two_services_is_checked_once() {
    let world = World::default();
    let other = STATE.replace("web", "other").replace("100:80", "100:81");
    world.lock().saved = file::parse(&format!("{STATE}{other}"), "state").unwrap();
    let _handle = world.run();
    eventually("checked", || world.lock().probes.len() == 2).await;
    assert!(world.lock().probes.values().all(|count| *count == 1), "{:?}", world.lock().probes);
}

#[tokio::test(start_paused = true)]
async fn a_backend_in_maintenance_is_left_in_peace() {
    let world = world();
    let handle = world.run();
    world.lock().dead.push(FIRST.parse().unwrap());
    let maintenance = Change::SetBackend(
        "web".parse().unwrap(),
        FIRST.parse().unwrap(),
        BackendChange { admin: Some(Admin::Maintenance), ..BackendChange::default() },
    );
    handle.change(maintenance, false).await.unwrap();
    let before = world.lock().probes.clone();
    time::sleep(Duration::from_secs(30)).await;
    let target = FIRST.parse().unwrap();
    assert_eq!(world.lock().probes.get(&target), before.get(&target));
    assert_eq!(first(&world), Some((0, true)));
}

#[tokio::test(start_paused = true)]
async fn what_the_data_plane_refuses_is_undone_in_the_store_and_says_so() {
    let world = world();
    let handle = world.run();
    world.lock().refusals = vec!["no room for a table"];
    handle.change(add_backend("10.0.1.13:80"), false).await.unwrap_err();
    let history = handle.history().await.unwrap();
    assert_eq!(
        history[0].changes,
        [
            "revision 1 undone: nothing was changed: the data plane refused: no room for a table",
            "remove backend web 10.0.1.13:80",
        ]
    );
    assert_eq!(handle.snapshot().await.unwrap().revision, 2);
}

#[tokio::test(start_paused = true)]
async fn a_refused_revision_that_cannot_be_taken_back_at_once_is_later() {
    let world = world();
    let (mut control, _handle) = world.control().unwrap();
    world.lock().refusals = vec!["no room"];
    world.lock().full_after = Some(1);
    control.change(&add_backend("10.0.1.13:80"), Order::default()).unwrap_err();
    assert_eq!(world.lock().saved.backend_count(), 3, "the disk is full");
    // Whoever is told of the refused revision does not take it for somebody else's, nor change on top of it.
    control.follow();
    assert_eq!(*control.desired, state());
    let error = control.change(&add_backend("10.0.1.14:80"), Order::default()).unwrap_err().to_string();
    assert_eq!(error, "nothing was changed: cannot save the state to /state.toml: no storage space");
    world.lock().full_after = None;
    control.catch_up();
    assert_eq!(world.lock().saved, state());
    assert!(!control.out_of_step);
}

#[tokio::test(start_paused = true)]
async fn a_rollback_brings_back_what_was_and_drains_what_was_not_there() {
    let world = world();
    let handle = world.run();
    let set = Change::SetBackend(
        "web".parse().unwrap(),
        FIRST.parse().unwrap(),
        BackendChange { weight: Some(9.into()), ..BackendChange::default() },
    );
    handle.change(set, false).await.unwrap();
    handle.change(add_backend("10.0.1.13:80"), false).await.unwrap();
    world.lock().active.insert("10.0.1.13:80".parse().unwrap(), 1);
    let in_five_minutes = Removal::Drain(SystemTime::now() + Duration::from_secs(300));
    let changed = handle.rollback(1, in_five_minutes, Order::default()).await.unwrap();
    assert_eq!(changed.changes, ["drain and remove backend web 10.0.1.13:80"]);
    assert_eq!(first(&world), Some((9, true)));
    assert_eq!(world.backend("10.0.1.13:80").map(|gone| (gone.weight, gone.serving)), Some((0, true)));
    assert_eq!(changed.revision, 3);
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_somebody_else_makes_is_followed() {
    let world = world();
    let handle = world.run();
    let elsewhere = add_backend("10.0.1.13:80").apply(&state()).unwrap();
    world.lock().keep(Draft::new(elsewhere.clone()));
    eventually("followed", || world.backend("10.0.1.13:80").is_some()).await;
    let snapshot = handle.snapshot().await.unwrap();
    assert_eq!((&*snapshot.desired, snapshot.revision), (&elsewhere, 1));
}

#[tokio::test(start_paused = true)]
async fn a_change_against_a_newer_revision_is_made_on_top_of_it() {
    let world = world();
    let (mut control, _handle) = world.control().unwrap();
    let elsewhere = add_backend("10.0.1.13:80").apply(&state()).unwrap();
    world.lock().keep(Draft::new(elsewhere));
    let changed = control.change(&add_backend("10.0.1.14:80"), Order::default()).unwrap();
    assert_eq!((changed.revision, world.lock().saved.backend_count()), (2, 4));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_was_decided_on_something_older_is_refused() {
    let world = world();
    let handle = world.run();
    let other = Change::AddService(Box::new({
        let text = STATE.replace("web", "other").replace("100:80", "100:81");
        file::parse(&text, "state").unwrap().services.pop_first().unwrap().1
    }));
    handle.change(other, false).await.unwrap();
    let with = |target, revisions: &[u64], dry_run| {
        let precondition = Some(Precondition { target, tags: Tags::Revisions(revisions.to_vec()) });
        let order = Order { precondition, dry_run, ..Order::default() };
        handle.order(add_backend("10.0.1.13:80"), order)
    };
    let web = || Target::Service("web".parse().unwrap());
    // Service `web` is at revision 0 still: what happened to another service does not matter to it.
    for (target, stale, message) in [
        (Target::State, 0, "the state is at revision 1 by now: look at it again before you change it"),
        (web(), 1, "service `web` is at revision 0 by now: look at it again before you change it"),
    ] {
        for dry_run in [true, false] {
            let error = with(target.clone(), &[stale], dry_run).await.unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }
    assert_eq!(world.lock().saved.backend_count(), 4);
    assert_eq!(with(web(), &[7, 0], false).await.unwrap().revision, 2);
    assert_eq!(handle.snapshot().await.unwrap().modified.values().copied().collect::<Vec<_>>(), [1, 2]);
}

/// The names of the events that are kept, with what tells them apart.
fn told(handle: &Handle) -> Vec<String> {
    let mut listener = handle.events().listen(0);
    let events = std::iter::from_fn(|| listener.backlog());
    let name = |event: crate::events::Event| match event.what {
        Happening::StateChanged { revision, .. } => format!("state-changed {revision}"),
        Happening::HealthChanged { backend, to, .. } => format!("{backend} {to}"),
        other => other.name().to_owned(),
    };
    events.map(name).collect()
}

#[tokio::test(start_paused = true)]
async fn changes_of_state_and_health_and_what_was_done_about_them_are_told_in_order() {
    let world = world();
    world.lock().saved =
        Change::RemoveBackend("web".parse().unwrap(), "10.0.1.12:80".parse().unwrap(), Removal::Now)
            .apply(&state())
            .unwrap();
    let handle = world.run();
    eventually("healthy", || told(&handle).contains(&"10.0.1.11:80 healthy".to_owned())).await;
    handle.change(add_backend("10.0.1.13:80"), false).await.unwrap();
    world.lock().dead.push(FIRST.parse().unwrap());
    eventually("taken out", || first(&world) == Some((0, false))).await;
    let told = told(&handle);
    let told: Vec<_> =
        told.iter().map(String::as_str).filter(|what| !what.starts_with("10.0.1.13")).collect();
    assert_eq!(
        told,
        [
            "reconciled",
            "started",
            "10.0.1.11:80 healthy",
            "reconciled",
            "state-changed 1",
            "10.0.1.11:80 unhealthy",
            "reconciled",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn what_falls_out_of_step_is_told_once_and_when_it_is_back() {
    let world = world();
    let handle = world.run();
    world.lock().refusals = vec!["still broken", "broken", "broken"];
    handle.change(add_backend("10.0.1.13:80"), false).await.unwrap_err();
    assert!(!handle.snapshot().await.unwrap().in_step);
    eventually("in step again", || told(&handle).contains(&"in-step".to_owned())).await;
    assert!(handle.snapshot().await.unwrap().in_step);
    assert_eq!(told(&handle).iter().filter(|what| *what == "out-of-step").count(), 1);
}

#[test]
fn a_saved_state_beyond_the_limits_stops_the_start_and_is_kept() {
    let world = world();
    let error = world.control_with(Limits { backends: 1, ..Limits::default() }).err().unwrap();
    assert_eq!(
        format!("{error:#}"),
        "the saved state cannot be used with this configuration: 2 backends are more than `[limits] backends = 1`: remove some, or raise the limit in the configuration"
    );
    assert_eq!(world.lock().saved, state());
}

#[tokio::test(start_paused = true)]
async fn weights_follow_what_backends_report() {
    let world = world();
    world.lock().saved.services.values_mut().for_each(|service| {
        service.strategy = crate::model::Strategy::ResourceBased;
    });
    let handle = world.run();
    let shares = || world.backend(FIRST).map(|backend| (backend.weight, backend.shares));
    assert_eq!(shares(), Some((5, 100)));
    let report = Report { load: "0.6".parse().unwrap(), ttl: Duration::from_secs(30) };
    handle.report("web".parse().unwrap(), FIRST.parse().unwrap(), report).await.unwrap();
    eventually("weighed", || shares() == Some((5, 40))).await;
    world.lock().refusals = vec!["no"];
    handle.report("web".parse().unwrap(), FIRST.parse().unwrap(), report).await.unwrap();
    eventually("back at its weight when the report holds no more", || shares() == Some((5, 100))).await;
}
