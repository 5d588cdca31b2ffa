//! What the service manager is told (sd_notify(3)): ready, reloading, stopping, and that the agent is alive.
//!
//! Where there is no service manager, nothing is.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

use crate::control::Handle;

/// The agent answers.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is read again; [`ready`] follows.
pub(super) fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    states.extend(NotifyState::monotonic_usec_now());
    tell(&states);
}

/// The agent ends; packets are balanced on.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping; packets are still balanced")]);
}

/// Says that the agent is alive, as often as the service manager wants to hear it: only while the control task answers.
/// Never ends.
pub(super) async fn watch(control: Handle) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    // Twice in each period (sd_watchdog_enabled(3)).
    let mut ticks = tokio::time::interval((limit / 2).max(Duration::from_millis(1)));
    loop {
        ticks.tick().await;
        match control.ping().await {
            Ok(()) => tell(&[NotifyState::Watchdog]),
            Err(error) => warn!(%error, "the service manager is not told that the agent is alive"),
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot tell the service manager");
    }
}
