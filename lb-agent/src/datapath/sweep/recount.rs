//! Puts active-connection counts right that have drifted.
//!
//! Whoever changes an entry counts what that means, right after the swap. Only the agent can be killed in between; then a
//! connection that it ended counts as active for ever. An audit counts the entries themselves. Its result can be compared
//! with the counters of a backend where those stood still, since nothing of it changed meanwhile; and where two audits
//! in a row find the same difference, it is none that a change under way explains.

use lb_common::flow::Data;

use crate::datapath::arrays::Arrays;

/// What one audit counts.
#[derive(Debug, Default)]
pub(super) struct Recount {
    /// Opened and closed so far of each backend, over all CPUs, when the audit began.
    before: Vec<(u64, u64)>,
    /// Active entries met, by backend.
    active: Vec<u64>,
    /// Of the audit before: counters and difference of backends whose counts were wrong.
    suspects: Vec<(u16, (u64, u64), u64)>,
}

impl Recount {
    pub(super) fn begin(&mut self, arrays: &Arrays) {
        self.before = (0..arrays.backends.len()).map(|id| counted(arrays, id as u16)).collect();
        self.active.clear();
        self.active.resize(arrays.backends.len(), 0);
    }

    pub(super) fn meet(&mut self, data: Data) {
        if data.state().is_active()
            && let Some(active) = self.active.get_mut(usize::from(data.backend()))
        {
            *active += 1;
        }
    }

    pub(super) fn finish(&mut self, arrays: &Arrays) {
        let mut suspects = Vec::new();
        for (id, (&before, &active)) in (0u16..).zip(self.before.iter().zip(&self.active)) {
            let (opened, closed) = before;
            let excess = opened.wrapping_sub(closed).wrapping_sub(active);
            if excess == 0 || counted(arrays, id) != before {
                continue;
            }
            if self.suspects.contains(&(id, before, excess)) {
                // Modulo 2^64, which also takes back a close that was counted without a connection.
                arrays.own_traffic(id).closed.count(excess);
            } else {
                suspects.push((id, before, excess));
            }
        }
        self.suspects = suspects;
    }
}

/// Connections opened and closed of a backend, over all CPUs and the agent.
fn counted(arrays: &Arrays, backend: u16) -> (u64, u64) {
    (0..=arrays.sizes.cpus).map(|cpu| arrays.traffic(cpu, backend)).fold((0, 0), |(opened, closed), row| {
        (opened.wrapping_add(row.opened.load()), closed.wrapping_add(row.closed.load()))
    })
}
