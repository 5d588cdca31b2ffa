//! Puts counts of flows right that have drifted: active connections, and the load that strategies compare.
//!
//! Whoever changes an entry counts what that means, right after the swap. Only the agent can be killed in between; then a
//! connection that it ended counts for ever. An audit counts the entries themselves. Its result can be compared
//! with what is counted of a backend where that stood still, since nothing of it changed meanwhile; and where two audits
//! in a row find the same difference, it is none that a change under way explains.

use lb_common::flow::Data;

use crate::datapath::arrays::Arrays;

/// What one audit counts.
#[derive(Debug, Default)]
pub(super) struct Recount {
    active: Ledger,
    load: Ledger,
}

/// What is counted of a backend: up, and down.
type Counted = (u64, u64);

/// One count of every backend.
#[derive(Debug, Default)]
struct Ledger {
    /// So far, when the audit began.
    before: Vec<Counted>,
    /// Entries met, by backend.
    met: Vec<u64>,
    /// Of the audit before: counts and difference of backends whose counts were wrong.
    suspects: Vec<(u16, Counted, u64)>,
}

impl Recount {
    pub(super) fn begin(&mut self, arrays: &Arrays) {
        self.active.begin(arrays, connections);
        self.load.begin(arrays, load);
    }

    pub(super) fn meet(&mut self, data: Data) {
        if data.state().is_active() {
            self.active.meet(data.backend());
        }
        if data.state().is_load() {
            self.load.meet(data.backend());
        }
    }

    pub(super) fn finish(&mut self, arrays: &Arrays) {
        // Modulo 2^64, which also takes back an end that was counted without a beginning.
        self.active.finish(arrays, connections, |backend, excess| {
            arrays.own_traffic(backend).closed.count(excess);
        });
        self.load.finish(arrays, load, |backend, excess| {
            arrays.loads[usize::from(backend)].active.add(excess.wrapping_neg());
        });
    }
}

impl Ledger {
    fn begin(&mut self, arrays: &Arrays, counted: fn(&Arrays, u16) -> Counted) {
        self.before = (0..arrays.backends.len()).map(|id| counted(arrays, id as u16)).collect();
        self.met.clear();
        self.met.resize(arrays.backends.len(), 0);
    }

    fn meet(&mut self, backend: u16) {
        if let Some(met) = self.met.get_mut(usize::from(backend)) {
            *met += 1;
        }
    }

    fn finish(&mut self, arrays: &Arrays, counted: fn(&Arrays, u16) -> Counted, correct: impl Fn(u16, u64)) {
        let mut suspects = Vec::new();
        for (id, (&before, &met)) in (0u16..).zip(self.before.iter().zip(&self.met)) {
            let (up, down) = before;
            let excess = up.wrapping_sub(down).wrapping_sub(met);
            if excess == 0 || counted(arrays, id) != before {
                continue;
            }
            if self.suspects.contains(&(id, before, excess)) {
                correct(id, excess);
            } else {
                suspects.push((id, before, excess));
            }
        }
        self.suspects = suspects;
    }
}

/// Connections opened and closed of a backend, over all CPUs and the agent.
fn connections(arrays: &Arrays, backend: u16) -> Counted {
    (0..=arrays.sizes.cpus).map(|cpu| arrays.traffic(cpu, backend)).fold((0, 0), |(opened, closed), row| {
        (opened.wrapping_add(row.opened.load()), closed.wrapping_add(row.closed.load()))
    })
}

/// Flows of a backend from their SYN on.
fn load(arrays: &Arrays, backend: u16) -> Counted {
    (arrays.loads[usize::from(backend)].active.load(), 0)
}
