//! Which check is due, and what its results mean. No I/O, no clock: the time is an argument.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::model::{CheckAction, HealthSpec};

/// One thing that is checked. Backends that share it are checked once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Check {
    /// Where.
    pub target: SocketAddr,
    /// How.
    pub spec: HealthSpec,
}

/// What is known of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// No check has decided yet, or there is none.
    #[default]
    Unknown,
    /// Its checks pass.
    Healthy,
    /// They failed often enough.
    Unhealthy,
    /// They pass, but it is held out.
    Ejected,
}

/// A check that fails, however often it is made: what outlives the agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failing {
    /// Where.
    pub target: SocketAddr,
    /// What.
    #[serde(rename = "check", alias = "type")]
    pub action: CheckAction,
}

/// A check to be carried out now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// To be given back with the result.
    pub id: u64,
    /// What to do.
    pub check: Check,
}

/// A check that means something else than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Which one.
    pub check: Check,
    /// What it means now.
    pub to: Health,
    /// What the result was that decided.
    pub reason: String,
}

/// What is due when, and the state of every check.
#[derive(Debug, Default)]
pub struct Scheduler {
    checks: BTreeMap<Check, State>,
    due: BTreeSet<(Instant, Check)>,
    in_flight: BTreeMap<u64, Check>,
    next_id: u64,
    /// What an agent before found; until the first [`set`](Scheduler::set).
    remembered: BTreeSet<Failing>,
}

#[derive(Clone, Debug)]
struct State {
    health: Health,
    /// Results in a row that contradict the health.
    streak: u8,
    started: Option<Instant>,
    next: Next,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Due(Instant),
    /// Waiting for the result of the probe with that id.
    Result(u64),
}

impl Health {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Unknown, Self::Healthy, Self::Unhealthy, Self::Ejected];

    /// As the API has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Ejected => "ejected",
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Scheduler {
    /// A scheduler that begins with what was found before: a dead backend has to prove that it is back.
    pub fn remembering(failing: BTreeSet<Failing>) -> Self {
        Self { remembered: failing, ..Self::default() }
    }

    /// What fails.
    pub fn failing(&self) -> BTreeSet<Failing> {
        let failing = self.checks.iter().filter(|(_, state)| state.health == Health::Unhealthy);
        failing.map(|(check, _)| check.failing()).collect()
    }

    /// Checks these from now on, and nothing else. New ones are due at once; one that replaces another of the same
    /// target and type takes over what was known, or a change of the interval would give a dead backend traffic.
    pub fn set(&mut self, wanted: &BTreeSet<Check>, now: Instant) {
        let known: BTreeMap<Check, Health> =
            wanted.iter().map(|check| (check.clone(), self.health(check))).collect();
        let Self { checks, due, in_flight, remembered, .. } = self;
        remembered.clear();
        checks.retain(|check, state| {
            let keep = wanted.contains(check);
            match state.next {
                Next::Due(at) if !keep => drop(due.remove(&(at, check.clone()))),
                Next::Result(id) if !keep => drop(in_flight.remove(&id)),
                _ => {}
            }
            keep
        });
        for (check, health) in known {
            if let Entry::Vacant(vacant) = checks.entry(check) {
                due.insert((now, vacant.key().clone()));
                vacant.insert(State { health, streak: 0, started: None, next: Next::Due(now) });
            }
        }
    }

    /// What is known, from this very check, or from another of the same target that does the same, or is of the same type.
    pub fn health(&self, check: &Check) -> Health {
        let of_target = || {
            let all = self.checks.range(Check::first_of(check.target)..);
            all.take_while(|(other, _)| other.target == check.target)
        };
        let same = |(other, _): &(&Check, &State)| other.spec.action == check.spec.action;
        let alike = |(other, _): &(&Check, &State)| other.spec.kind() == check.spec.kind();
        let another = || of_target().find(same).or_else(|| of_target().find(alike)).map(|(_, state)| state);
        let state = self.checks.get(check).or_else(another);
        match state {
            Some(state) => state.health,
            None if !self.remembered.is_empty() && self.remembered.contains(&check.failing()) => {
                Health::Unhealthy
            }
            None => Health::Unknown,
        }
    }

    /// When to ask for the next probe.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// A probe that is due. To be called until there is none.
    pub fn next_probe(&mut self, now: Instant) -> Option<Probe> {
        self.next_due().filter(|at| *at <= now)?;
        let (_, check) = self.due.pop_first()?;
        let id = self.next_id;
        self.next_id += 1;
        self.in_flight.insert(id, check.clone());
        let state = self.checks.get_mut(&check)?;
        state.next = Next::Result(id);
        // The second check comes early, by a share of the interval that is the check's own: backends that were added
        // together are not checked together for ever.
        let early = match state.started {
            None => check.phase(id, check.spec.interval.duration() / 2),
            Some(_) => check.phase(id, check.spec.jitter.duration()),
        };
        state.started = Some(now.checked_sub(early).unwrap_or(now));
        Some(Probe { id, check })
    }

    /// The check that a probe which has not ended is made for.
    pub fn in_flight(&self, id: u64) -> Option<&Check> {
        self.in_flight.get(&id)
    }

    /// Takes a result. One of a check that is no longer wanted means nothing.
    pub fn handle_result(
        &mut self,
        id: u64,
        outcome: Result<(), String>,
        now: Instant,
    ) -> Option<Transition> {
        let check = self.in_flight.remove(&id)?;
        let state = self.checks.get_mut(&check)?;
        let due = state.started.unwrap_or(now) + check.spec.interval.duration();
        state.next = Next::Due(due.max(now));
        self.due.insert((due.max(now), check.clone()));
        let to = state.judge(&check.spec, outcome.is_ok())?;
        let reason = outcome.err().unwrap_or_else(|| format!("{check}: passed"));
        Some(Transition { check, to, reason })
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, spec } = self;
        match (&*spec.action, target.ip()) {
            (CheckAction::Icmp, ip) => write!(f, "icmp check of {ip}"),
            _ => write!(f, "{} check of {target}", spec.kind()),
        }
    }
}

impl State {
    /// Counts a result; what the check means now, if that has changed.
    fn judge(&mut self, spec: &HealthSpec, passed: bool) -> Option<Health> {
        let (confirmed, other, needed) = match passed {
            // A backend that nothing is known of has traffic already: one passed check settles it.
            true if self.health == Health::Unknown => (false, Health::Healthy, 1),
            true => (self.health == Health::Healthy, Health::Healthy, spec.rise),
            false => (self.health == Health::Unhealthy, Health::Unhealthy, spec.fall),
        };
        if confirmed {
            self.streak = 0;
            return None;
        }
        self.streak = self.streak.saturating_add(1);
        if self.streak < needed {
            return None;
        }
        self.streak = 0;
        self.health = other;
        Some(other)
    }
}

impl Check {
    /// Not after any other of that target, in the order of checks.
    fn first_of(target: SocketAddr) -> Self {
        let zero = crate::model::Period::from_millis(0);
        let action = Arc::default();
        let (interval, timeout, jitter) = (zero, zero, zero);
        Self { target, spec: HealthSpec { action, interval, timeout, jitter, rise: 0, fall: 0, port: None } }
    }

    fn failing(&self) -> Failing {
        Failing { target: self.target, action: CheckAction::clone(&self.spec.action) }
    }

    /// A part of `span` that depends on nothing but the check and the number of its probe.
    fn phase(&self, id: u64, span: Duration) -> Duration {
        if span.is_zero() {
            return span;
        }
        let mut hasher = DefaultHasher::new();
        (self, id).hash(&mut hasher);
        span.mul_f64((hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64)
    }

    /// The check of a backend: at its own port unless the specification names another.
    pub fn of(backend: SocketAddr, spec: &HealthSpec) -> Self {
        let ip: IpAddr = backend.ip();
        let port = match *spec.action {
            // A host is asked once, however many servers run on it.
            CheckAction::Icmp => 0,
            _ => spec.port.map_or(backend.port(), std::num::NonZeroU16::get),
        };
        // Two services that name the same port in two ways share the check.
        Self { target: SocketAddr::new(ip, port), spec: HealthSpec { port: None, ..spec.clone() } }
    }
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
