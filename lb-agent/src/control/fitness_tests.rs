use super::*;
use crate::model::file;

const SECOND: Duration = Duration::from_secs(1);

/// One service with two backends, of which the first is up or down, on a clock that is turned by hand.
struct Lab {
    desired: Desired,
    fitness: Fitness,
    start: Instant,
    now: Instant,
}

fn state(settings: &str) -> Desired {
    let text = format!(
        "[[service]]\nname = \"web\"\nvip = \"10.0.0.100:80\"\n{settings}\n[[service.backend]]\naddress = \"10.0.1.11:80\"\n"
    );
    file::parse(&text, "state").unwrap()
}

fn first() -> Endpoint {
    "10.0.1.11:80".parse().unwrap()
}

impl Lab {
    fn new(settings: &str) -> Self {
        let start = Instant::now();
        let mut lab = Self { desired: state(settings), fitness: Fitness::default(), start, now: start };
        lab.is(Health::Healthy);
        lab
    }

    /// What the backend is while its checks say that.
    fn is(&mut self, checks: Health) -> Health {
        self.fitness.settle(&self.desired, |_, _| checks, self.now);
        self.fitness.health(self.service(), first(), checks, self.now)
    }

    fn service(&self) -> &Service {
        self.desired.services.values().next().unwrap()
    }

    fn grown(&self) -> f64 {
        f64::from(self.fitness.grown(self.service(), first(), self.now).parts()) / f64::from(Grown::WHOLE)
    }

    fn admin(&mut self, admin: Admin) {
        for service in self.desired.services.values_mut() {
            service.backends.get_mut(&first()).unwrap().admin = admin;
        }
    }

    /// Falls and recovers at once; for how long it is held out then.
    fn fall(&mut self) -> Option<Duration> {
        assert_eq!(self.is(Health::Unhealthy), Health::Unhealthy);
        self.is(Health::Healthy);
        let until = self.fitness.next_due();
        until.map(|until| until - self.now)
    }
}

#[test]
fn a_backend_that_recovers_grows_along_the_ramp_in_sixteen_steps() {
    let mut lab = Lab::new("slow-start = \"40s\"");
    assert_eq!(lab.grown(), 1.0, "what is there at the start does not begin anew");
    lab.is(Health::Unhealthy);
    lab.is(Health::Healthy);
    lab.start = lab.now;
    let mut steps = 0;
    while let Some(due) = lab.fitness.next_due() {
        assert!(due > lab.now, "time goes on");
        for at in [lab.now, due - Duration::from_millis(1)] {
            lab.now = at;
            let ramp = (at - lab.start).as_secs_f64() / 40.0;
            assert!((lab.grown() - ramp).abs() < 0.035, "{} after {ramp}", lab.grown());
        }
        (steps, lab.now) = (steps + 1, due);
        lab.is(Health::Healthy);
    }
    assert_eq!((steps, lab.grown()), (16, 1.0));
    assert!(lab.now - lab.start < SECOND * 40 + Duration::from_millis(1));
}

#[test]
fn a_new_one_and_one_that_is_enabled_again_begin_small() {
    let mut lab = Lab::new("slow-start = \"40s\"");
    lab.admin(Admin::Maintenance);
    lab.is(Health::Unknown);
    lab.admin(Admin::Enabled);
    assert!(lab.grown() < 0.04, "before it is looked at, too");
    lab.is(Health::Unknown);
    assert!(lab.grown() < 0.04);
    let mut lab = Lab::new("slow-start = \"40s\"");
    let backends = std::mem::take(&mut lab.desired.services.values_mut().next().unwrap().backends);
    lab.is(Health::Unknown);
    lab.desired.services.values_mut().next().unwrap().backends = backends;
    assert!(lab.grown() < 0.04);
    lab.is(Health::Unknown);
    assert!(lab.grown() < 0.04);
    let mut off = Lab::new("");
    off.is(Health::Unhealthy);
    off.is(Health::Healthy);
    assert_eq!(off.grown(), 1.0);
}

#[test]
fn one_that_falls_again_and_again_is_held_out_for_longer_each_time() {
    let mut lab = Lab::new("damping = \"32s\"");
    let held: Vec<_> = (0..9).map(|_| lab.fall().map(|time| time.as_secs())).collect();
    assert_eq!(held, [None, None, Some(2), Some(4), Some(8), Some(16), Some(32), Some(32), Some(32)]);
    assert_eq!(lab.is(Health::Healthy), Health::Ejected);
    assert_eq!(
        lab.fitness.held(lab.service(), first(), lab.now).unwrap(),
        "failed 9 times: held out for 32.0 s"
    );
    lab.now += SECOND * 31;
    assert_eq!(lab.is(Health::Healthy), Health::Ejected);
    lab.now += SECOND;
    assert_eq!(lab.is(Health::Healthy), Health::Healthy);
    assert_eq!(lab.fitness.held(lab.service(), first(), lab.now), None);
    lab.now += SECOND * 31;
    assert_eq!(lab.fall(), Some(SECOND * 32), "it has not stayed for long enough");
    lab.now += SECOND * 32;
    lab.is(Health::Healthy);
    lab.now += SECOND * 32;
    assert_eq!(lab.fall(), None, "what was before it stayed does not count");
}

#[test]
fn nothing_is_held_out_where_that_is_off_or_nobody_wants_it() {
    let mut off = Lab::new("");
    assert!((0..9).all(|_| off.fall().is_none()));
    let mut lab = Lab::new("damping = \"32s\"");
    assert_eq!((0..5).filter_map(|_| lab.fall()).count(), 3);
    assert_eq!(lab.is(Health::Healthy), Health::Ejected);
    lab.admin(Admin::Draining);
    assert_eq!(lab.is(Health::Healthy), Health::Healthy);
    lab.admin(Admin::Enabled);
    assert_eq!(lab.is(Health::Healthy), Health::Healthy, "whoever enables it has seen to it");
    assert_eq!((0..5).filter_map(|_| lab.fall()).count(), 5, "what was before still counts");
    lab.desired = state("");
    assert_eq!(lab.is(Health::Healthy), Health::Healthy);
}

/// What was told of health and panics, from some event on.
fn told(handle: &crate::control::Handle) -> Vec<String> {
    use crate::events::Happening;
    let mut listener = handle.events().listen(0);
    std::iter::from_fn(|| listener.backlog())
        .filter_map(|event| match event.what {
            Happening::HealthChanged { from, to, reason, .. } => Some(format!("{from} -> {to}: {reason}")),
            Happening::PanicChanged { panicking, fit, backends, .. } => {
                Some(format!("panic {panicking}: {fit} of {backends}"))
            }
            _ => None,
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_flapping_backend_is_held_out_and_let_in_again_in_the_data_plane_and_that_is_told() {
    let world = crate::control::fake::World::default();
    world.lock().saved = state(
        "damping = \"64s\"\npanic-threshold = \"50%\"\nslow-start = \"32s\"\n[service.health]\ntype = \"tcp\"\ninterval = \"1s\"\nrise = 1\nfall = 1\n[[service.backend]]\naddress = \"10.0.1.12:80\"",
    );
    let handle = world.run();
    let at = first().socket();
    let shares = || world.backend("10.0.1.11:80").map(|backend| backend.shares).unwrap_or_default();
    let waited = async |what: &str, seconds: u64, holds: &dyn Fn() -> bool| {
        let deadline = tokio::time::Instant::now() + SECOND * u32::try_from(seconds).unwrap();
        while !holds() {
            assert!(tokio::time::Instant::now() < deadline, "never: {what}: {:?}", told(&handle));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    for _ in 0..3 {
        world.lock().dead.push(at);
        waited("out", 3, &|| shares() == 0).await;
        world.lock().dead.clear();
        if told(&handle).iter().filter(|line| line.contains("-> unhealthy")).count() < 3 {
            waited("back", 3, &|| shares() > 0).await;
        }
    }
    waited("held", 3, &|| told(&handle).iter().any(|line| line.contains("-> ejected"))).await;
    let since = tokio::time::Instant::now();
    assert_eq!(shares(), 0);
    let held = "unhealthy -> ejected: failed 3 times: held out for 4.0 s";
    assert!(told(&handle).iter().any(|line| line == held), "{:?}", told(&handle));
    let snapshot = handle.snapshot().await.unwrap();
    let now = &snapshot.backends[&("web".parse().unwrap(), first())];
    assert_eq!((now.health, now.condition.name()), (Health::Ejected, "ejected"));
    waited("in again", 5, &|| shares() > 0).await;
    assert!(since.elapsed() > SECOND * 3, "{:?}", since.elapsed());
    assert!(shares() <= 3, "it grows from nothing: {}", shares());
    waited("grown", 33, &|| shares() == 1).await;
    // With both down, both are used.
    world.lock().dead.extend([at, "10.0.1.12:80".parse().unwrap()]);
    waited("panic", 3, &|| told(&handle).iter().any(|line| line == "panic true: 0 of 2")).await;
    assert!(shares() > 0 && handle.snapshot().await.unwrap().panicking.len() == 1);
    world.lock().dead.remove(1);
    waited("enough", 3, &|| told(&handle).last().unwrap() == "panic false: 1 of 2").await;
}

#[tokio::test(start_paused = true)]
async fn one_that_registered_itself_is_out_when_it_is_not_heard_of_and_in_when_it_is_again() {
    let world = crate::control::fake::World::default();
    world.lock().saved = state("[service.health]\ntype = \"none\"");
    let handle = world.run();
    let (name, second): (crate::model::ServiceName, Endpoint) =
        ("web".parse().unwrap(), "10.0.1.12:80".parse().unwrap());
    let renewal = |seconds: &str, load: Option<&str>| crate::control::Renewal {
        lease: seconds.parse().unwrap(),
        weight: Some(4.into()),
        load: load.map(|load| load.parse().unwrap()),
    };
    let renew = async |load| handle.renew(name.clone(), second, renewal("10s", load)).await.unwrap();
    let shares = || world.backend("10.0.1.12:80").map(|backend| backend.shares);
    renew(None).await;
    assert_eq!(shares(), Some(4));
    let revisions = world.lock().revisions.len();
    for _ in 0..5 {
        tokio::time::sleep(SECOND * 9).await;
        renew(Some("0.5")).await;
        assert_eq!(shares(), Some(4));
    }
    assert_eq!(world.lock().revisions.len(), revisions, "a heartbeat is no revision");
    assert_eq!(
        handle.snapshot().await.unwrap().backends[&(name.clone(), second)].load.unwrap().reported.get(),
        0.5
    );
    tokio::time::sleep(SECOND * 9).await;
    assert_eq!(shares(), Some(4), "its time is not up");
    tokio::time::sleep(SECOND + Duration::from_millis(100)).await;
    assert_eq!(shares(), Some(0));
    assert_eq!(told(&handle), ["unknown -> unhealthy: no heartbeat for 10s"]);
    renew(None).await;
    assert_eq!(shares(), Some(4));
    assert_eq!(told(&handle)[1], "unhealthy -> unknown: heard of again");
    // An agent that starts anew gives it all of its time.
    drop(handle);
    let again = world.run();
    tokio::time::sleep(SECOND * 9).await;
    assert_eq!(shares(), Some(4));
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!(shares(), Some(0));
    assert_eq!(told(&again), ["unknown -> unhealthy: no heartbeat for 10s"]);
}
