//! What happened, as it happens: for whoever wants to be told, and the last of it for whoever comes later.
//!
//! Nobody is waited for. The last events are kept in a ring; a listener that is too slow misses some, and is told so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;

use crate::health::Health;
use crate::model::{Endpoint, ServiceName, Timestamp};

/// Events that are kept for those who come later.
const KEPT: usize = 1000;
/// Events that a listener may be behind.
const BEHIND: usize = 256;
/// Lines of one event at most.
const MAX_LINES: usize = 50;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Event {
    /// Grows with every event, over restarts too.
    pub id: u64,
    /// When it happened.
    pub time: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub what: Happening,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Happening {
    /// The agent has started and the data plane is in step with the state.
    Started {
        /// The agent's version.
        version: String,
        /// The revision of the state.
        revision: u64,
        /// For how long no agent had run; nothing where the data plane is new.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unattended_seconds: Option<u64>,
    },
    /// The desired state is another: on disk and in the kernel.
    StateChanged {
        /// The revision that it is now.
        revision: u64,
        /// What differs, a line each.
        changes: Vec<String>,
    },
    /// A backend's checks say something else than before.
    HealthChanged {
        /// The service.
        service: ServiceName,
        /// The backend.
        backend: Endpoint,
        /// What they said.
        from: Health,
        /// What they say.
        to: Health,
        /// The result that decided.
        reason: String,
    },
    /// So few backends of a service are fit that all of them take traffic; or enough are again.
    PanicChanged {
        /// The service.
        service: ServiceName,
        /// Whether all of them take traffic.
        panicking: bool,
        /// How many are fit.
        fit: usize,
        /// How many could take traffic if they were.
        backends: usize,
    },
    /// The data plane was brought in step with what is wanted.
    Reconciled {
        /// What was done, in order.
        steps: Vec<String>,
    },
    /// The data plane or the disk refused; it is tried again every second.
    OutOfStep {
        /// What it said.
        error: String,
    },
    /// What was out of step is in step again.
    InStep {},
    /// An interface came, went, lost or found its link, or refused the program.
    InterfaceChanged {
        /// Its name.
        interface: String,
        /// How the program runs on it: `native`, `generic`, or `none` where it does not.
        mode: String,
        /// Why no packets are balanced there, if so.
        problem: Option<String>,
    },
    /// The configuration was read again.
    ConfigurationReloaded {
        /// Keys whose new value holds now.
        now: Vec<String>,
        /// Keys whose new value holds from the next start on.
        at_restart: Vec<String>,
    },
    /// The configuration was read again and cannot be used; the one before holds.
    ConfigurationRefused {
        /// Why.
        error: String,
    },
    /// This listener was too slow.
    Missed {
        /// How many events it did not get.
        events: u64,
    },
}

impl Happening {
    /// As `type` has it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::StateChanged { .. } => "state-changed",
            Self::HealthChanged { .. } => "health-changed",
            Self::PanicChanged { .. } => "panic-changed",
            Self::Reconciled { .. } => "reconciled",
            Self::OutOfStep { .. } => "out-of-step",
            Self::InStep {} => "in-step",
            Self::InterfaceChanged { .. } => "interface-changed",
            Self::ConfigurationReloaded { .. } => "configuration-reloaded",
            Self::ConfigurationRefused { .. } => "configuration-refused",
            Self::Missed { .. } => "missed",
        }
    }
}

/// The place where events are told. Clones share it.
#[derive(Clone, Debug)]
pub struct Events(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ring: Mutex<Ring>,
    /// Whether nothing more will happen.
    is_closed: watch::Sender<bool>,
}

#[derive(Debug)]
struct Ring {
    next: u64,
    kept: VecDeque<Event>,
    listeners: broadcast::Sender<Event>,
}

/// Somebody who is told.
#[derive(Debug)]
pub struct Listener {
    backlog: VecDeque<Event>,
    events: broadcast::Receiver<Event>,
    is_closed: watch::Receiver<bool>,
}

impl Default for Events {
    fn default() -> Self {
        Self::beginning(SystemTime::now())
    }
}

impl Events {
    /// Numbers from the time at which the agent started, so that they grow over restarts: a million a second would have
    /// to happen for two to be alike, and every one of them fits a JSON number (2^53).
    fn beginning(now: SystemTime) -> Self {
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let ring = Ring {
            next: (seconds & 0xffff_ffff) << 20 | 1,
            kept: VecDeque::with_capacity(KEPT),
            listeners: broadcast::Sender::new(BEHIND),
        };
        Self(Arc::new(Shared { ring: Mutex::new(ring), is_closed: watch::Sender::new(false) }))
    }

    /// Tells everybody.
    pub fn tell(&self, what: Happening) {
        let mut ring = self.ring();
        let event = Event { id: ring.next, time: Timestamp::from_system(SystemTime::now()), what };
        ring.next += 1;
        if ring.kept.len() == KEPT {
            ring.kept.pop_front();
        }
        ring.kept.push_back(event.clone());
        // Nobody may listen.
        let _ = ring.listeners.send(event);
    }

    /// The events that are kept and came after one, then those to come.
    pub fn listen(&self, after: u64) -> Listener {
        let ring = self.ring();
        Listener {
            backlog: ring.kept.iter().filter(|event| event.id > after).cloned().collect(),
            events: ring.listeners.subscribe(),
            is_closed: self.0.is_closed.subscribe(),
        }
    }

    /// Lets every listener go: the agent stops.
    pub fn close(&self) {
        self.0.is_closed.send_replace(true);
    }

    /// Held only to push and copy, never while something is waited for.
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// What is there already.
    pub fn backlog(&mut self) -> Option<Event> {
        self.backlog.pop_front()
    }

    /// The next event, when there is one; nothing once the agent stops.
    pub async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.backlog() {
            return Some(event);
        }
        tokio::select! {
            event = self.events.recv() => match event {
                Ok(event) => Some(event),
                Err(RecvError::Lagged(events)) => Some(missed(events)),
                Err(RecvError::Closed) => None,
            },
            _ = self.is_closed.wait_for(|is_closed| *is_closed) => None,
        }
    }
}

/// Not kept, and without a number of its own: it happened to one listener.
fn missed(events: u64) -> Event {
    Event { id: 0, time: Timestamp::from_system(SystemTime::now()), what: Happening::Missed { events } }
}

/// The first lines, and how many more there were.
pub fn first_lines(lines: &[String]) -> Vec<String> {
    let mut first: Vec<_> = lines.iter().take(MAX_LINES).cloned().collect();
    if lines.len() > MAX_LINES {
        first.push(format!("... and {} more", lines.len() - MAX_LINES));
    }
    first
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn step(events: &Events, number: usize) {
        events.tell(Happening::Reconciled { steps: vec![number.to_string()] });
    }

    fn number(event: &Event) -> usize {
        match &event.what {
            Happening::Reconciled { steps } => steps[0].parse().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_listener_gets_what_is_kept_and_then_what_comes_without_a_gap() {
        let events = Events::default();
        (0..3).for_each(|each| step(&events, each));
        let first = events.listen(0).next().await.unwrap();
        assert_eq!(number(&first), 0);
        let mut listener = events.listen(first.id);
        (3..5).for_each(|each| step(&events, each));
        for expected in 1..5 {
            assert_eq!(number(&listener.next().await.unwrap()), expected);
        }
        events.close();
        assert_eq!(listener.next().await, None);
    }

    #[tokio::test]
    async fn only_the_last_are_kept() {
        let events = Events::default();
        (0..KEPT + 7).for_each(|each| step(&events, each));
        let mut listener = events.listen(0);
        assert_eq!(number(&listener.backlog().unwrap()), 7);
        assert_eq!(listener.backlog.len(), KEPT - 1);
    }

    #[tokio::test]
    async fn a_listener_that_is_too_slow_is_told_what_it_missed() {
        let events = Events::default();
        let mut listener = events.listen(0);
        (0..BEHIND + 5).for_each(|each| step(&events, each));
        assert_eq!(listener.next().await.unwrap().what, Happening::Missed { events: 5 });
        assert_eq!(number(&listener.next().await.unwrap()), 5);
    }

    #[tokio::test]
    async fn numbers_grow_over_a_restart() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let (before, after) = (Events::beginning(start), Events::beginning(start + Duration::from_secs(1)));
        let last = |events: &Events| events.listen(0).backlog.pop_back().unwrap().id;
        (0..3).for_each(|each| step(&before, each));
        step(&after, 0);
        assert!(last(&before) < last(&after) && last(&after) < 1 << 53);
    }

    #[test]
    fn an_event_is_flat_json_with_its_type() {
        let what = Happening::HealthChanged {
            service: "web".parse().unwrap(),
            backend: "10.0.1.11:80".parse().unwrap(),
            from: Health::Unknown,
            to: Health::Healthy,
            reason: "tcp connect".to_owned(),
        };
        let event = Event { id: 7, time: Timestamp::default(), what };
        let json = serde_json::json!({
            "id": 7, "time": "1970-01-01T00:00:00Z", "type": "health-changed", "service": "web",
            "backend": "10.0.1.11:80", "from": "unknown", "to": "healthy", "reason": "tcp connect",
        });
        assert_eq!(serde_json::to_value(&event).unwrap(), json);
        assert_eq!(serde_json::from_value::<Event>(json).unwrap(), event);
        for what in [Happening::InStep {}, Happening::Missed { events: 1 }] {
            assert_eq!(serde_json::to_value(&what).unwrap()["type"], what.name());
        }
    }

    #[test]
    fn long_lists_are_cut_and_say_so() {
        let lines: Vec<_> = (0..60).map(|each| each.to_string()).collect();
        assert_eq!(first_lines(&lines).len(), 51);
        assert_eq!(first_lines(&lines)[50], "... and 10 more");
        assert_eq!(first_lines(&lines[..3]), lines[..3]);
    }
}
