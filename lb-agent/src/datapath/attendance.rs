//! When an agent last saw to the tables: a word in the tables themselves, so that the next one knows how long nobody did.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::arrays::Arrays;

/// Says that an agent is here.
pub(super) fn attend(arrays: &Arrays) {
    arrays.settings().agent_seen.store(seconds_since_boot());
}

/// For how long none has said so; nothing where none ever has.
pub(super) fn unattended(arrays: &Arrays) -> Option<Duration> {
    let seen = arrays.settings().agent_seen.load();
    (seen != 0).then(|| Duration::from_secs(seconds_since_boot().saturating_sub(seen)))
}

/// Goes on while the machine sleeps, and begins anew when the tables do.
fn seconds_since_boot() -> u64 {
    // Not negative, and the boot itself took longer than the second that would read as "never".
    clock_gettime(ClockId::Boottime).tv_sec as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::arrays::Sizes;

    #[test]
    fn the_next_agent_knows_how_long_nobody_was_there() {
        let arrays = Arrays::private(Sizes::TEST);
        assert_eq!(unattended(&arrays), None);
        attend(&arrays);
        assert!(unattended(&arrays).unwrap() <= Duration::from_secs(1));
        let seen = &arrays.settings().agent_seen;
        // A minute of this machine's life, or as much of it as there was.
        let earlier = seen.load().saturating_sub(60).max(1);
        let away = Duration::from_secs(seen.load() - earlier);
        seen.store(earlier);
        assert!(unattended(&arrays).unwrap() >= away);
    }
}
