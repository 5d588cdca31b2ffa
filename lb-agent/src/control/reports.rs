//! What backends report of their load, made into the headroom by which `resource-based` weighs them.
//!
//! Weights follow the reports, but do not swing with them: a headroom is the mean of a backend's last two reports, moves in
//! steps and only when it is clearly in another one, changes once a second at most, and never falls so low that a backend
//! could not show that it has recovered.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::BackendKey;
use super::fitness::Grown;
use crate::model::{Desired, Load, Service, Strategy};

/// How much of a backend is unused, in steps of a twentieth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Headroom(u32);

impl Headroom {
    /// Steps of a whole.
    const STEPS: u32 = 20;
    /// All of it.
    pub const FULL: Self = Self(Self::STEPS);
    /// The least: a full backend still gets a tenth of its weight.
    pub const LEAST: Self = Self(Self::STEPS / 10);
    /// How far beyond its step a headroom has to be for another one, in steps. Half a step would have one that lies on the
    /// border go to and fro.
    const CLEARLY: f64 = 0.75;

    /// The step for an unused part, from 0 to 1, where this one is in force.
    fn following(self, unused: f64) -> Self {
        let exact = unused * f64::from(Self::STEPS);
        if (exact - f64::from(self.0)).abs() < Self::CLEARLY {
            return self;
        }
        Self(exact.round() as u32).clamp(Self::LEAST, Self::FULL)
    }

    /// As a part of the whole.
    pub fn part(self) -> f64 {
        f64::from(self.0) / f64::from(Self::STEPS)
    }
}

/// A weight times what of it counts: a share of new flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EffectiveWeight(u32);

impl EffectiveWeight {
    /// Parts of a weight of 1.
    const WHOLE: u32 = Headroom::STEPS * Grown::WHOLE;

    /// Of a weight, the headroom that there is, and what of it the backend has grown into.
    pub const fn new(weight: u32, headroom: Headroom, grown: Grown) -> Self {
        Self(weight * headroom.0 * grown.parts())
    }

    /// Whether it takes new flows.
    pub const fn is_some(self) -> bool {
        self.0 > 0
    }

    /// In whole numbers, to be compared with those of the same service. As small as they can be, they make short tables:
    /// a dimension that is whole for all of them does not count.
    pub const fn shares(self, has_headroom: bool, is_growing: bool) -> u32 {
        let headroom = if has_headroom { 1 } else { Headroom::STEPS };
        let grown = if is_growing { 1 } else { Grown::WHOLE };
        self.0 / headroom / grown
    }

    /// Of weights: `5`, or `1.75`.
    pub fn number(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE)
    }
}

/// `5`, or `1.75`: whole wherever nothing is reported.
impl fmt::Display for EffectiveWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

impl Serialize for EffectiveWeight {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.is_multiple_of(Self::WHOLE) {
            true => serializer.serialize_u32(self.0 / Self::WHOLE),
            false => serializer.serialize_f64(self.number()),
        }
    }
}

impl<'de> Deserialize<'de> for EffectiveWeight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        Ok(Self((number * f64::from(Self::WHOLE)).round() as u32))
    }
}

/// What a backend says of itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// What part of it is used.
    pub load: Load,
    /// How long that holds.
    pub ttl: Duration,
}

/// The last report of a backend, as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LoadNow {
    /// What was reported last.
    pub reported: Load,
    /// What part of its weight it gets where the strategy is `resource-based`, in steps of 0.05.
    pub headroom: f64,
    /// Since the report.
    pub age_seconds: u64,
    /// Whether the report still holds. If not, the backend is taken for an average one.
    pub fresh: bool,
}

#[derive(Clone, Copy, Debug)]
struct Reported {
    last: Report,
    /// Of the report before, where it still held when the last one came.
    before: Option<Load>,
    at: Instant,
}

impl Reported {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) <= self.last.ttl
    }

    /// The part that is unused, over the last two reports.
    fn unused(&self) -> f64 {
        let Report { load, .. } = self.last;
        1.0 - (load.get() + self.before.unwrap_or(load).get()) / 2.0
    }
}

/// The last reports, and what they come to.
#[derive(Debug, Default)]
pub(super) struct Reports {
    reported: BTreeMap<BackendKey, Reported>,
    /// What is in force: full where nothing is said.
    headrooms: BTreeMap<BackendKey, Headroom>,
}

impl Reports {
    /// Takes a report. It counts from the next [`settle`](Self::settle) on.
    pub(super) fn take(&mut self, backend: BackendKey, report: Report, now: Instant) {
        let before = self.reported.get(&backend).filter(|reported| reported.is_fresh(now));
        let before = before.map(|reported| reported.last.load);
        self.reported.insert(backend, Reported { last: report, before, at: now });
    }

    /// Brings the headrooms up to date. True where that means other weights.
    ///
    /// A backend whose report does not hold any more is taken for an average one of its service: neither does one that hangs
    /// draw traffic by its silence, nor does one lose it whose reporter has died. Where nobody reports, weights are what
    /// they are.
    pub(super) fn settle(&mut self, desired: &Desired, now: Instant) -> bool {
        let is_wanted = |(name, address): &BackendKey| {
            desired.services.get(name).is_some_and(|service| service.backends.contains_key(address))
        };
        self.reported.retain(|key, _| is_wanted(key));
        self.headrooms.retain(|key, _| is_wanted(key));
        let mut matters = false;
        for service in desired.services.values() {
            matters |= self.settle_service(service, now) && service.strategy == Strategy::ResourceBased;
        }
        matters
    }

    fn settle_service(&mut self, service: &Service, now: Instant) -> bool {
        let keys: Vec<_> = service.backends.keys().map(|at| (service.name.clone(), *at)).collect();
        let fresh = |key| self.reported.get(key).filter(|reported| reported.is_fresh(now));
        let known: Vec<f64> = keys.iter().filter_map(fresh).map(Reported::unused).collect();
        let average = if known.is_empty() { 1.0 } else { known.iter().sum::<f64>() / known.len() as f64 };
        let unused: Vec<_> = keys.iter().map(|key| fresh(key).map_or(average, Reported::unused)).collect();
        let mut changed = false;
        for (key, unused) in keys.into_iter().zip(unused) {
            let headroom = self.headrooms.entry(key).or_insert(Headroom::FULL);
            let next = headroom.following(unused);
            changed |= *headroom != next;
            *headroom = next;
        }
        changed
    }

    /// What is in force for a backend.
    pub(super) fn headroom(&self, backend: &BackendKey) -> Headroom {
        self.headrooms.get(backend).copied().unwrap_or(Headroom::FULL)
    }

    /// The last report of a backend, if there was one.
    pub(super) fn last(&self, backend: &BackendKey, now: Instant) -> Option<LoadNow> {
        let reported = self.reported.get(backend)?;
        Some(LoadNow {
            reported: reported.last.load,
            headroom: self.headroom(backend).part(),
            age_seconds: now.saturating_duration_since(reported.at).as_secs(),
            fresh: reported.is_fresh(now),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::file;

    const STATE: &str = r#"
        [[service]]
        name = "web"
        vip = "10.0.0.100:80"
        strategy = "resource-based"
        [[service.backend]]
        address = "10.0.1.11:80"
        [[service.backend]]
        address = "10.0.1.12:80"
    "#;
    const TTL: Duration = Duration::from_secs(10);

    struct Lab {
        reports: Reports,
        desired: Desired,
        now: Instant,
    }

    impl Lab {
        fn new() -> Self {
            let desired = file::parse(STATE, "state").unwrap();
            Self { reports: Reports::default(), desired, now: Instant::now() }
        }

        fn key(host: u8) -> BackendKey {
            ("web".parse().unwrap(), format!("10.0.1.{host}:80").parse().unwrap())
        }

        fn report(&mut self, host: u8, load: f64) -> bool {
            let load = load.to_string().parse().unwrap();
            self.reports.take(Self::key(host), Report { load, ttl: TTL }, self.now);
            self.wait(1)
        }

        fn wait(&mut self, seconds: u64) -> bool {
            self.now += Duration::from_secs(seconds);
            self.reports.settle(&self.desired, self.now)
        }

        fn headrooms(&self) -> [f64; 2] {
            [11, 12].map(|host| self.reports.headroom(&Self::key(host)).part())
        }
    }

    #[test]
    fn two_reports_are_followed_and_one_half() {
        let mut lab = Lab::new();
        lab.report(12, 0.0);
        lab.report(11, 0.2);
        assert_eq!(lab.headrooms(), [0.8, 1.0]);
        assert!(lab.report(11, 0.8));
        assert_eq!(lab.headrooms(), [0.5, 1.0]);
        assert!(lab.report(11, 0.8));
        assert_eq!(lab.headrooms(), [0.2, 1.0]);
    }

    #[test]
    fn what_goes_to_and_fro_moves_nothing() {
        let mut lab = Lab::new();
        lab.report(12, 0.5);
        lab.report(11, 0.3);
        lab.report(11, 0.7);
        let before = lab.headrooms();
        for load in [0.26, 0.68, 0.26, 0.7, 0.26, 0.68] {
            assert!(!lab.report(11, load), "{load}: {:?}", lab.headrooms());
        }
        assert_eq!((before, lab.headrooms()), ([0.5, 0.5], [0.5, 0.5]));
    }

    #[test]
    fn a_full_backend_keeps_a_tenth_and_the_range_is_reached() {
        let mut lab = Lab::new();
        for load in [7.0, 1.0] {
            lab.report(11, load);
            lab.report(11, load);
            assert_eq!(lab.headrooms()[0], 0.1);
        }
        lab.report(11, 0.0);
        lab.report(11, 0.0);
        assert_eq!(lab.headrooms()[0], 1.0);
    }

    #[test]
    fn one_that_is_silent_is_an_average_one() {
        let mut lab = Lab::new();
        lab.report(11, 0.9);
        assert_eq!(lab.headrooms(), [0.1, 0.1], "of the other nothing is known");
        lab.report(12, 0.2);
        lab.report(12, 0.2);
        assert_eq!(lab.headrooms(), [0.1, 0.8]);
        // The first's report was good for ten seconds, of which two have passed.
        lab.wait(8);
        assert_eq!(lab.headrooms(), [0.8, 0.8], "{:?}", lab.reports.last(&Lab::key(11), lab.now));
        assert!(!lab.reports.last(&Lab::key(11), lab.now).unwrap().fresh);
        lab.wait(10);
        assert_eq!(lab.headrooms(), [1.0, 1.0], "nobody reports");
        // What was said before the silence has no part in what is said after it.
        lab.report(11, 0.1);
        assert_eq!(lab.headrooms()[0], 0.9);
    }

    #[test]
    fn reports_of_backends_that_are_gone_are_forgotten() {
        let mut lab = Lab::new();
        lab.report(11, 0.9);
        lab.desired.services.clear();
        assert!(!lab.wait(1));
        assert!(lab.reports.reported.is_empty() && lab.reports.headrooms.is_empty());
    }

    #[test]
    fn other_strategies_do_not_care() {
        let mut lab = Lab::new();
        lab.desired.services.values_mut().for_each(|service| service.strategy = Strategy::Random);
        assert!(!lab.report(11, 0.9));
        assert_eq!(lab.headrooms()[0], 0.1, "but know, should it be changed");
    }

    #[test]
    fn an_effective_weight_is_whole_where_nothing_is_reported() {
        let json = |weight, headroom| {
            serde_json::to_string(&EffectiveWeight::new(weight, headroom, Grown::FULL)).unwrap()
        };
        assert_eq!(
            [json(5, Headroom::FULL), json(5, Headroom(7)), json(2, Headroom(10))],
            ["5", "1.75", "1"]
        );
        for text in ["5", "1.75"] {
            let weight: EffectiveWeight = serde_json::from_str(text).unwrap();
            assert_eq!(
                (weight.to_string(), serde_json::to_string(&weight).unwrap()),
                (text.into(), text.into())
            );
        }
    }
}
