use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn check(spec: &str) -> Check {
    Check::of("10.0.1.11:80".parse().unwrap(), &spec.parse().unwrap())
}

fn after(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Runs what is due, with the same outcome for every probe; returns the transitions.
fn run(scheduler: &mut Scheduler, now: Instant, passes: bool) -> Vec<Health> {
    let mut transitions = Vec::new();
    while let Some(probe) = scheduler.next_probe(now) {
        let outcome = if passes { Ok(()) } else { Err("refused".to_owned()) };
        transitions.extend(scheduler.handle_result(probe.id, outcome, now).map(|transition| transition.to));
    }
    transitions
}

/// Runs as many rounds as there are outcomes, each when it is due.
fn rounds(scheduler: &mut Scheduler, outcomes: &[bool]) -> Vec<Health> {
    outcomes
        .iter()
        .flat_map(|passes| {
            let due = scheduler.next_due().expect("there is a check");
            run(scheduler, due, *passes)
        })
        .collect()
}

#[test]
fn a_new_check_is_due_at_once_and_one_pass_settles_it() {
    let (mut scheduler, now) = (Scheduler::default(), Instant::now());
    scheduler.set(&[check("tcp")].into(), now);
    assert_eq!(scheduler.next_due(), Some(now));
    assert_eq!(scheduler.health(&check("tcp")), Health::Unknown);
    assert_eq!(run(&mut scheduler, now, true), [Health::Healthy]);
    assert_eq!(scheduler.health(&check("tcp")), Health::Healthy);
}

#[test]
fn fall_failures_take_it_out_and_rise_passes_bring_it_back() {
    let mut scheduler = Scheduler::default();
    scheduler.set(&[check("tcp,rise=2,fall=3")].into(), Instant::now());
    assert_eq!(rounds(&mut scheduler, &[true]), [Health::Healthy]);
    assert_eq!(rounds(&mut scheduler, &[false, false, true, false, false]), []);
    assert_eq!(rounds(&mut scheduler, &[false]), [Health::Unhealthy]);
    assert_eq!(rounds(&mut scheduler, &[true, false, true]), []);
    assert_eq!(rounds(&mut scheduler, &[true]), [Health::Healthy]);
}

#[test]
fn an_unknown_backend_is_unhealthy_after_fall_failures() {
    let mut scheduler = Scheduler::default();
    scheduler.set(&[check("tcp,fall=2")].into(), Instant::now());
    assert_eq!(rounds(&mut scheduler, &[false]), []);
    assert_eq!(rounds(&mut scheduler, &[false]), [Health::Unhealthy]);
}

#[test]
fn the_transition_carries_the_reason() {
    let (mut scheduler, now) = (Scheduler::default(), Instant::now());
    let check = check("tcp,fall=1");
    scheduler.set(&[check.clone()].into(), now);
    let probe = scheduler.next_probe(now).unwrap();
    assert_eq!(
        scheduler.handle_result(probe.id, Err("refused".into()), now),
        Some(Transition { check, to: Health::Unhealthy, reason: "refused".into() })
    );
}

#[test]
fn a_check_is_never_under_way_twice_and_a_slow_one_is_due_as_soon_as_it_ends() {
    let (mut scheduler, now) = (Scheduler::default(), Instant::now());
    scheduler.set(&[check("tcp,interval=2s")].into(), now);
    let probe = scheduler.next_probe(now).unwrap();
    let later = now + after(10_000);
    assert_eq!((scheduler.next_probe(later), scheduler.next_due()), (None, None));
    scheduler.handle_result(probe.id, Ok(()), later);
    assert_eq!(scheduler.next_due(), Some(later));
}

#[test]
fn a_changed_interval_keeps_what_is_known() {
    let (mut scheduler, now) = (Scheduler::default(), Instant::now());
    let (slow, fast) = (check("tcp,fall=1"), check("tcp,fall=1,interval=500ms"));
    scheduler.set(&[slow].into(), now);
    run(&mut scheduler, now, false);
    assert_eq!(scheduler.health(&fast), Health::Unhealthy);
    scheduler.set(&[fast.clone()].into(), now + after(1));
    assert_eq!(scheduler.health(&fast), Health::Unhealthy);
    assert_eq!(scheduler.next_due(), Some(now + after(1)));
}

#[test]
fn what_failed_before_the_restart_fails_until_it_passes() {
    let (mut before, now) = (Scheduler::default(), Instant::now());
    before.set(&[check("tcp,fall=1,rise=2")].into(), now);
    run(&mut before, now, false);

    let mut scheduler = Scheduler::remembering(before.failing());
    scheduler.set(&[check("tcp,fall=1,rise=2")].into(), now);
    assert_eq!(scheduler.health(&check("tcp,fall=1,rise=2")), Health::Unhealthy);
    assert_eq!(rounds(&mut scheduler, &[true]), []);
    assert_eq!(rounds(&mut scheduler, &[true]), [Health::Healthy]);
    assert_eq!(scheduler.failing(), BTreeSet::new());
}

#[test]
fn the_result_of_a_check_that_is_gone_means_nothing() {
    let (mut scheduler, now) = (Scheduler::default(), Instant::now());
    scheduler.set(&[check("tcp,fall=1")].into(), now);
    let stale = scheduler.next_probe(now).unwrap();
    scheduler.set(&BTreeSet::new(), now);
    scheduler.set(&[check("tcp,fall=1")].into(), now);
    assert_eq!(scheduler.handle_result(stale.id, Err("refused".into()), now), None);
    assert_eq!(scheduler.health(&check("tcp,fall=1")), Health::Unknown);
}

#[test]
fn one_endpoint_in_two_services_is_one_check() {
    let backend = "10.0.1.11:80".parse().unwrap();
    let (own, named) =
        (Check::of(backend, &"tcp".parse().unwrap()), Check::of(backend, &"tcp,port=80".parse().unwrap()));
    assert_eq!(own, named);
    let elsewhere = Check::of(backend, &"tcp,port=81".parse().unwrap());
    assert_eq!(elsewhere.target, "10.0.1.11:81".parse().unwrap());
}

#[test]
fn a_host_is_pinged_once_and_other_actions_are_other_checks() {
    let of = |backend: &str, spec: &str| Check::of(backend.parse().unwrap(), &spec.parse().unwrap());
    assert_eq!(of("10.0.1.11:80", "icmp"), of("10.0.1.11:81", "icmp"));
    assert_ne!(of("10.0.1.11:80", "http,path=/a"), of("10.0.1.11:80", "http,path=/b"));
    assert_eq!(of("10.0.1.11:80", "icmp").to_string(), "icmp check of 10.0.1.11");
    assert_eq!(of("10.0.1.11:80", "http,port=81").to_string(), "http check of 10.0.1.11:81");
}

#[test]
fn what_is_known_is_taken_from_the_same_action_before_another_of_its_type() {
    let (mut scheduler, now) = (Scheduler::default(), Instant::now());
    let (good, bad) = (check("http,path=/a,fall=1"), check("http,path=/b,fall=1"));
    scheduler.set(&[good.clone(), bad.clone()].into(), now);
    while let Some(probe) = scheduler.next_probe(now) {
        let outcome = if probe.check == good { Ok(()) } else { Err("refused".to_owned()) };
        scheduler.handle_result(probe.id, outcome, now);
    }
    assert_eq!(scheduler.health(&check("http,path=/b,interval=1s")), Health::Unhealthy);
    assert_eq!(scheduler.health(&check("http,path=/a,interval=1s")), Health::Healthy);
    assert_eq!(scheduler.health(&check("tcp")), Health::Unknown);
    let failing = scheduler.failing();
    assert_eq!(failing, [bad.failing()].into());
    let remembering = Scheduler::remembering(failing);
    assert_eq!(remembering.health(&bad), Health::Unhealthy);
    assert_eq!(remembering.health(&good), Health::Unknown);
}

#[test]
fn jitter_shortens_an_interval_and_never_lengthens_it() {
    let (mut scheduler, start) = (Scheduler::default(), Instant::now());
    scheduler.set(&[check("tcp,interval=1s,jitter=400ms")].into(), start);
    run(&mut scheduler, start, true);
    let mut gaps = Vec::new();
    for _ in 0..200 {
        let due = scheduler.next_due().unwrap();
        run(&mut scheduler, due, true);
        gaps.push((scheduler.next_due().unwrap() - due).as_millis());
    }
    assert!(gaps.iter().all(|gap| (600..=1000).contains(gap)), "{gaps:?}");
    assert!(gaps.iter().any(|gap| *gap < 680) && gaps.iter().any(|gap| *gap > 920), "{gaps:?}");
}

#[test]
fn backends_added_together_spread_over_the_interval() {
    let (mut scheduler, now) = (Scheduler::default(), Instant::now());
    let checks: BTreeSet<_> = (1..=200)
        .map(|port| Check::of(([10, 0, 1, 1], port).into(), &"tcp,interval=2s".parse().unwrap()))
        .collect();
    scheduler.set(&checks, now);
    assert_eq!(run(&mut scheduler, now, true).len(), 200);
    // The second checks fall into the second half of the interval; no tenth of that has a third of them.
    let second: Vec<_> = scheduler.due.iter().map(|(at, _)| at.duration_since(now).as_millis()).collect();
    assert!(second.iter().all(|at| (1000..=2000).contains(at)), "{second:?}");
    for tenth in 0..10 {
        let range = 1000 + tenth * 100..1100 + tenth * 100;
        assert!(second.iter().filter(|at| range.contains(*at)).count() < 67, "{second:?}");
    }
}

/// Rise and fall written down a second time, from the definition.
fn expected(outcomes: &[bool], rise: usize, fall: usize) -> Health {
    let mut health = Health::Unknown;
    for end in 1..=outcomes.len() {
        let run = |value: bool| outcomes[..end].iter().rev().take_while(|outcome| **outcome == value).count();
        health = match health {
            Health::Unknown if run(true) >= 1 => Health::Healthy,
            Health::Unhealthy if run(true) >= rise => Health::Healthy,
            _ if run(false) >= fall => Health::Unhealthy,
            same => same,
        };
    }
    health
}

proptest! {
    #[test]
    fn rise_and_fall_count_results_in_a_row(outcomes in vec(any::<bool>(), 0..60), rise in 1_usize..5, fall in 1_usize..5) {
        let mut scheduler = Scheduler::default();
        let check = check(&format!("tcp,rise={rise},fall={fall}"));
        scheduler.set(&[check.clone()].into(), Instant::now());
        rounds(&mut scheduler, &outcomes);
        prop_assert_eq!(scheduler.health(&check), expected(&outcomes, rise, fall));
    }

    #[test]
    fn every_check_runs_once_an_interval(intervals in vec(100..5000_u64, 1..8), seconds in 10..30_u64) {
        let (mut scheduler, start) = (Scheduler::default(), Instant::now());
        let checks: BTreeSet<_> = (1..).zip(&intervals).map(|(port, interval)| {
            Check::of(([10, 0, 1, 1], port).into(), &format!("tcp,interval={interval}ms").parse().unwrap())
        }).collect();
        scheduler.set(&checks, start);
        let mut runs: BTreeMap<Check, u64> = BTreeMap::new();
        let end = start + Duration::from_secs(seconds);
        while let Some(now) = scheduler.next_due().filter(|due| *due < end) {
            while let Some(probe) = scheduler.next_probe(now) {
                *runs.entry(probe.check).or_default() += 1;
                scheduler.handle_result(probe.id, Ok(()), now);
            }
        }
        for check in &checks {
            let whole = seconds * 1000 / check.spec.interval.duration().as_millis() as u64;
            prop_assert!((whole..=whole + 2).contains(&runs[check]), "{:?}: {} of {}", check, runs[check], whole);
        }
    }
}
