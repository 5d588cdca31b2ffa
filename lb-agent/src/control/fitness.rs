//! What comes between the checks of a backend and its traffic: it grows into its weight, and is held out where it does not
//! stay. Time is an argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::BackendKey;
use crate::health::Health;
use crate::model::{Admin, Damping, Desired, Endpoint, Service, SlowStart};

/// What part of its weight a backend has grown into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grown(u32);

impl Grown {
    /// Parts of a whole.
    pub(super) const WHOLE: u32 = 32;
    /// All of it.
    pub const FULL: Self = Self(Self::WHOLE);
    /// Steps of a ramp. Each is a table of its own, and tracking by exception bears no more of them.
    const STEPS: u32 = 16;
    /// Where a ramp begins: a step's worth is what the ramp has in the middle of the step.
    pub(super) const FIRST: Self = Self(1);

    /// In that step of a ramp.
    fn in_step(step: u32) -> Self {
        if step < Self::STEPS { Self(2 * step + 1) } else { Self::FULL }
    }

    /// In parts of the whole.
    pub(super) const fn parts(self) -> u32 {
        self.0
    }
}

/// What is remembered of every backend.
#[derive(Debug, Default)]
pub(super) struct Fitness {
    courses: BTreeMap<BackendKey, Course>,
    /// When each backend with a lease was heard of last; at the start each gets its whole time anew.
    heard: BTreeMap<BackendKey, Instant>,
    /// Whether what comes is new. What is there when the agent starts is not.
    has_begun: bool,
    /// Looked for when something changes, not whenever it is asked for: the latter is after every check.
    due: Option<Instant>,
}

/// How a backend has fared.
#[derive(Clone, Debug, Default)]
struct Course {
    stand: Stand,
    /// Whether its checks failed at the last look.
    is_down: bool,
    /// Falls that count.
    falls: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Stand {
    /// It takes no traffic: unfit, or nobody wants it to.
    #[default]
    Out,
    /// It could, but does not yet.
    Held { until: Instant, time: Duration },
    /// It takes traffic, since then; where it was there at the start, for ever.
    In { since: Option<Instant> },
}

/// Falls before a backend is held out: one may fall twice by accident.
const FALLS: u32 = 3;
/// How often the time for which it is held out can double.
const DOUBLINGS: u32 = 4;

/// For how long a backend that has recovered is held out after so many falls.
fn hold(damping: Damping, falls: u32) -> Option<Duration> {
    let doublings = falls.checked_sub(FALLS)?.min(DOUBLINGS);
    Some(damping.period()?.duration() / 2_u32.pow(DOUBLINGS - doublings))
}

/// The step of a ramp that has gone on for so long.
fn step(slow_start: SlowStart, gone: Duration) -> u32 {
    let Some(period) = slow_start.period() else { return Grown::STEPS };
    let step = gone.as_nanos() * u128::from(Grown::STEPS) / period.duration().as_nanos().max(1);
    step.try_into().unwrap_or(Grown::STEPS).min(Grown::STEPS)
}

impl Fitness {
    /// Takes over what checks say now.
    pub(super) fn settle(
        &mut self,
        desired: &Desired,
        checks: impl Fn(&Service, Endpoint) -> Health,
        now: Instant,
    ) {
        let is_kept = |(name, address): &BackendKey| {
            desired.services.get(name).is_some_and(|service| service.backends.contains_key(address))
        };
        self.courses.retain(|key, _| is_kept(key));
        self.heard.retain(|key, _| is_kept(key));
        let new = self.has_begun.then_some(now);
        for service in desired.services.values() {
            for (address, backend) in &service.backends {
                if backend.lease.period().is_some() {
                    self.heard.entry((service.name.clone(), *address)).or_insert(now);
                }
                let is_down =
                    self.is_missed(service, *address, now) || checks(service, *address) == Health::Unhealthy;
                let course = self
                    .courses
                    .entry((service.name.clone(), *address))
                    .or_insert(Course { stand: Stand::In { since: new }, ..Course::default() });
                course.follow(service.fitness.damping, backend.admin, is_down, now);
            }
        }
        self.has_begun = true;
        self.due = self.find_due(desired, now);
    }

    /// What a backend is, of which its checks say this.
    pub(super) fn health(
        &self,
        service: &Service,
        address: Endpoint,
        checks: Health,
        now: Instant,
    ) -> Health {
        if self.is_missed(service, address, now) {
            return Health::Unhealthy;
        }
        let is_damped = service.fitness.damping.period().is_some();
        match self.courses.get(&(service.name.clone(), address)).map(|course| &course.stand) {
            Some(Stand::Held { .. }) if is_damped && checks != Health::Unhealthy => Health::Ejected,
            _ => checks,
        }
    }

    /// A backend has been heard of.
    pub(super) fn hear(&mut self, backend: BackendKey, now: Instant) {
        self.heard.insert(backend, now);
    }

    /// Whether a backend should have been heard of.
    fn is_missed(&self, service: &Service, address: Endpoint, now: Instant) -> bool {
        self.missed_at(service, address).is_some_and(|at| now >= at)
    }

    /// When a backend is out unless it is heard of before.
    fn missed_at(&self, service: &Service, address: Endpoint) -> Option<Instant> {
        let lease = service.backends.get(&address)?.lease.period()?;
        Some(*self.heard.get(&(service.name.clone(), address))? + lease.duration())
    }

    /// Why a backend is out whose checks pass, if it is.
    pub(super) fn held(&self, service: &Service, address: Endpoint, now: Instant) -> Option<String> {
        if self.is_missed(service, address, now) {
            let lease = service.backends.get(&address)?.lease;
            return Some(format!("no heartbeat for {lease}"));
        }
        let backend = &(service.name.clone(), address);
        let Course { stand: Stand::Held { time, .. }, falls, .. } = self.courses.get(backend)? else {
            return None;
        };
        Some(format!("failed {falls} times: held out for {:.1} s", time.as_secs_f64()))
    }

    /// What part of its weight a backend has grown into; one that is not there yet will begin.
    pub(super) fn grown(&self, service: &Service, address: Endpoint, now: Instant) -> Grown {
        let slow_start = service.fitness.slow_start;
        match self.courses.get(&(service.name.clone(), address)).map(|course| &course.stand) {
            _ if slow_start.period().is_none() => Grown::FULL,
            Some(Stand::In { since: None }) => Grown::FULL,
            Some(Stand::In { since: Some(since) }) => {
                Grown::in_step(step(slow_start, now.saturating_duration_since(*since)))
            }
            Some(Stand::Out | Stand::Held { .. }) | None => Grown::FIRST,
        }
    }

    /// When something may change by itself.
    pub(super) const fn next_due(&self) -> Option<Instant> {
        self.due
    }

    fn find_due(&self, desired: &Desired, now: Instant) -> Option<Instant> {
        let due = |(key, course): (&BackendKey, &Course)| match course.stand {
            Stand::Held { until, .. } => Some(until),
            Stand::In { since: Some(since) } => {
                let slow_start = desired.services.get(&key.0)?.fitness.slow_start;
                let step = step(slow_start, now.saturating_duration_since(since));
                let period = slow_start.period().filter(|_| step < Grown::STEPS)?.duration();
                // Not before the step: rounded up.
                Some(since + period * (step + 1) / Grown::STEPS + Duration::from_nanos(1))
            }
            Stand::In { since: None } | Stand::Out => None,
        };
        let leased = self.heard.keys().filter_map(|(name, address)| {
            self.missed_at(desired.services.get(name)?, *address).filter(|at| *at > now)
        });
        self.courses.iter().filter_map(due).chain(leased).min()
    }
}

impl Course {
    fn follow(&mut self, damping: Damping, admin: Admin, is_down: bool, now: Instant) {
        let was_down = std::mem::replace(&mut self.is_down, is_down);
        if is_down && !was_down {
            if self.has_stayed(damping, now) {
                self.falls = 0;
            }
            self.falls = self.falls.saturating_add(1);
        }
        if is_down || admin != Admin::Enabled {
            self.stand = Stand::Out;
            return;
        }
        match self.stand {
            Stand::Out => {
                self.stand = match hold(damping, self.falls) {
                    // One that comes out of maintenance has not recovered just now.
                    Some(time) if was_down => Stand::Held { until: now + time, time },
                    _ => Stand::In { since: Some(now) },
                };
            }
            // What is held out comes back when its time is up, and at once where nothing is damped any more.
            Stand::Held { until, .. } if now >= until || damping.period().is_none() => {
                self.stand = Stand::In { since: Some(now) };
            }
            Stand::Held { .. } | Stand::In { .. } => {}
        }
    }

    /// Whether it has taken traffic for so long that what was before does not count any more.
    fn has_stayed(&self, damping: Damping, now: Instant) -> bool {
        match (&self.stand, damping.period()) {
            (Stand::In { since: Some(since) }, Some(period)) => {
                now.saturating_duration_since(*since) >= period.duration()
            }
            _ => false,
        }
    }
}

#[cfg(test)]
#[path = "fitness_tests.rs"]
mod tests;
