//! What is the matter with a backend, in one word and one line: for whoever looks, not for the data plane.
//!
//! Slow is relative: a backend is compared with the others of its service, by how long connecting to it takes, how long its
//! checks take, and how long its connections stay.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::BackendNow;
use crate::health::Health;
use crate::model::Admin;

/// What is the matter with a backend.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// Its checks say that it is unfit: it takes no traffic.
    Down,
    /// Its checks pass, but it is held out.
    Ejected,
    /// Its last check failed, though not often enough yet.
    Failing,
    /// It works, but takes much longer than the others of its service.
    Slow,
    /// It goes when it has drained.
    Removing,
    /// It takes no new flows: somebody wants that.
    Draining,
    /// It takes no new flows and is not checked: somebody works on it.
    Maintenance,
    /// Nothing.
    #[default]
    Ok,
}

impl Condition {
    /// As the API has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Ejected => "ejected",
            Self::Failing => "failing",
            Self::Slow => "slow",
            Self::Removing => "removing",
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
            Self::Ok => "ok",
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How many times as long as the others a slow backend takes.
const TIMES: u32 = 3;
/// By how much at least: below that, nobody would notice.
const BY: Duration = Duration::from_millis(5);
/// Handshakes that have to have been measured: the first may have waited for a neighbour.
const ENOUGH: u64 = 16;
/// Connections that a slow backend has at least beyond what it would have if it were as fast as the others.
const PILED_UP: f64 = 4.0;
/// Connections that stay longer are held open, not waiting: how long says nothing of the backend.
const WAITING: Duration = Duration::from_secs(60);

/// Sets the conditions of a service's backends.
pub(super) fn judge(backends: &mut [&mut BackendNow]) {
    let slow: Vec<_> = (0..backends.len()).map(|index| slowness(backends, index)).collect();
    for (now, slow) in backends.iter_mut().zip(slow) {
        (now.condition, now.condition_reason) = condition(now, slow);
    }
}

fn condition(now: &BackendNow, slow: Option<String>) -> (Condition, Option<String>) {
    let failed = now.check.as_ref().filter(|check| !check.passed).map(|check| check.reason.clone());
    match (now.health, now.backend.admin) {
        _ if now.removing => (Condition::Removing, Some(left(now))),
        (_, Admin::Maintenance) => (Condition::Maintenance, Some(left(now))),
        (Health::Unhealthy, _) => (Condition::Down, now.held.clone().or(failed.flatten())),
        (Health::Ejected, _) => (Condition::Ejected, now.held.clone()),
        (_, Admin::Draining) => (Condition::Draining, Some(left(now))),
        _ if failed.is_some() => (Condition::Failing, failed.flatten()),
        _ if slow.is_some() => (Condition::Slow, slow),
        _ => (Condition::Ok, None),
    }
}

fn left(now: &BackendNow) -> String {
    match now.traffic.active_connections {
        1 => "1 connection left".to_owned(),
        left => format!("{left} connections left"),
    }
}

/// In what a backend is slow, if it is.
fn slowness(backends: &[&mut BackendNow], index: usize) -> Option<String> {
    let own = &*backends[index];
    let comparable = |(other, now): &(usize, &&mut BackendNow)| *other != index && takes_traffic(now);
    let others = |of: fn(&BackendNow) -> Option<Duration>| {
        let known = backends.iter().enumerate().filter(comparable);
        median(known.filter_map(|(_, now)| of(now)).collect())
    };
    let slower = |of: fn(&BackendNow) -> Option<Duration>| {
        let (own, others) = (of(own)?, others(of)?);
        (own >= others * TIMES && own - others >= BY).then_some((own, others))
    };
    if let Some((own, others)) = slower(connecting) {
        return Some(format!("connecting takes {}, to the others {}", text(own), text(others)));
    }
    if let Some((own, others)) = slower(checking) {
        return Some(format!("its check takes {}, those of the others {}", text(own), text(others)));
    }
    let (stay, others) = slower(|now| now.connections_stay.filter(|stay| *stay <= WAITING))?;
    let active = own.traffic.active_connections as f64;
    let piled_up = active * (1.0 - others.as_secs_f64() / stay.as_secs_f64());
    let text = || format!("connections stay {}, those of the others {}", text(stay), text(others));
    (piled_up >= PILED_UP).then(text)
}

fn takes_traffic(now: &BackendNow) -> bool {
    now.effective_weight.is_some()
}

fn connecting(now: &BackendNow) -> Option<Duration> {
    let time = now.connect_time.as_ref().filter(|time| time.count_total >= ENOUGH)?;
    Some(Duration::from_micros(time.smoothed_microseconds))
}

fn checking(now: &BackendNow) -> Option<Duration> {
    let check = now.check.as_ref().filter(|check| check.passed)?;
    Some(Duration::from_micros(check.took_microseconds))
}

/// The lower of the two in the middle, where there are two.
fn median(mut all: Vec<Duration>) -> Option<Duration> {
    all.sort_unstable();
    all.get(all.len().checked_sub(1)? / 2).copied()
}

/// Two digits that count, or three.
fn text(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.1} s"),
        seconds if seconds >= 0.01 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{:.1} ms", seconds * 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fitness::Grown;
    use crate::control::reports::Headroom;
    use crate::control::{CheckNow, EffectiveWeight, Rates};
    use crate::datapath::{ConnectTime, Traffic};
    use crate::model::Backend;

    fn backend() -> BackendNow {
        BackendNow {
            backend: Backend::default(),
            removing: false,
            health: Health::Healthy,
            held: None,
            check: Some(CheckNow { passed: true, took_microseconds: 300, reason: None }),
            effective_weight: EffectiveWeight::new(1, Headroom::FULL, Grown::FULL),
            load: None,
            traffic: Traffic { active_connections: 10, ..Traffic::default() },
            rates: Rates::default(),
            connect_time: None,
            connections_stay: None,
            condition: Condition::Ok,
            condition_reason: None,
        }
    }

    /// The condition of the first of three, of which the others are as they should be.
    fn judged(change: impl FnOnce(&mut BackendNow)) -> (Condition, String) {
        among([backend(), backend()], change)
    }

    fn among(others: [BackendNow; 2], change: impl FnOnce(&mut BackendNow)) -> (Condition, String) {
        let mut first = backend();
        change(&mut first);
        let [mut second, mut third] = others;
        judge(&mut [&mut first, &mut second, &mut third]);
        (first.condition, first.condition_reason.unwrap_or_default())
    }

    fn check(passed: bool, took_microseconds: u64) -> Option<CheckNow> {
        Some(CheckNow { passed, took_microseconds, reason: (!passed).then(|| "refused".to_owned()) })
    }

    fn connect(smoothed_microseconds: u64) -> Option<ConnectTime> {
        Some(ConnectTime {
            smoothed_microseconds,
            sum_microseconds_total: 0,
            count_total: 16,
            histogram: vec![],
        })
    }

    #[test]
    fn what_somebody_wants_and_what_checks_say_is_told_apart() {
        assert_eq!(judged(|_| ()), (Condition::Ok, String::new()));
        assert_eq!(judged(|now| now.check = check(false, 1)), (Condition::Failing, "refused".to_owned()));
        let down = judged(|now| {
            now.health = Health::Unhealthy;
            now.check = check(false, 1);
        });
        assert_eq!(down, (Condition::Down, "refused".to_owned()));
        let left = |count: u64| {
            move |now: &mut BackendNow| {
                now.backend.admin = Admin::Draining;
                now.traffic.active_connections = count;
            }
        };
        assert_eq!(judged(left(1)), (Condition::Draining, "1 connection left".to_owned()));
        assert_eq!(judged(left(7)), (Condition::Draining, "7 connections left".to_owned()));
        assert_eq!(judged(|now| now.removing = true).0, Condition::Removing);
        assert_eq!(judged(|now| now.backend.admin = Admin::Maintenance).0, Condition::Maintenance);
    }

    #[test]
    fn a_slow_one_is_known_by_its_handshakes_its_checks_or_its_connections() {
        let (condition, reason) = judged(|now| now.check = check(true, 50_000));
        assert_eq!(
            (condition, reason.as_str()),
            (Condition::Slow, "its check takes 50 ms, those of the others 0.3 ms")
        );
        let fast = || BackendNow { connect_time: connect(400), ..backend() };
        let (_, reason) = among([fast(), fast()], |now| now.connect_time = connect(201_000));
        assert_eq!(reason, "connecting takes 201 ms, to the others 0.4 ms");
        let quick = || BackendNow { connections_stay: Some(Duration::from_millis(100)), ..backend() };
        let (_, reason) =
            among([quick(), quick()], |now| now.connections_stay = Some(Duration::from_millis(2100)));
        assert_eq!(reason, "connections stay 2.1 s, those of the others 100 ms");
    }

    #[test]
    fn what_is_not_much_or_cannot_be_compared_is_not_slow() {
        let quick = || BackendNow { connections_stay: Some(Duration::from_millis(100)), ..backend() };
        let stays = |stay: u64, active: u64| {
            among([quick(), quick()], |now| {
                now.connections_stay = Some(Duration::from_millis(stay));
                now.traffic.active_connections = active;
            })
        };
        let held = stays(600_000, 1000);
        let few = stays(2000, 3);
        for (condition, reason) in [
            judged(|now| now.check = check(true, 4_000)),
            judged(|now| now.connect_time = connect(500_000)),
            held,
            few,
        ] {
            assert_eq!(condition, Condition::Ok, "{reason}");
        }
        let down = || BackendNow { effective_weight: EffectiveWeight::default(), ..backend() };
        assert_eq!(among([down(), down()], |now| now.check = check(true, 50_000)).0, Condition::Ok);
    }
}
