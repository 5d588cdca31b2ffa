//! The balancer under test: one way to feed it, two that it may run.

mod flows;
mod host;
mod run;

use std::sync::MutexGuard;

use lb_common::reason::{Event, Reason};
use lb_ebpf::memory::{MemoryFrame, MemoryTables};

use crate::kernel::{self, Kernel, Runner};
use crate::lab::{INGRESS_INDEX, Lab, Rows};
use crate::packet::Packet;

pub use flows::Flow;
pub use host::{reconfigure, tables};
pub use run::{Action, Counters, Run, moved};

/// A balancer with a lab's tables.
pub struct Balancer {
    side: Side,
}

enum Side {
    Host(Box<MemoryTables>),
    Kernel(MutexGuard<'static, Kernel>),
}

impl Balancer {
    /// The pipeline on the host.
    #[must_use]
    pub fn host(lab: &Lab) -> Self {
        Self { side: Side::Host(Box::new(tables(lab))) }
    }

    /// The program in the kernel.
    #[must_use]
    pub fn kernel(lab: &Lab) -> Self {
        let mut balancer = Self { side: Side::Kernel(kernel::borrow()) };
        balancer.configure(lab);
        balancer
    }

    /// The program for several threads at once; the host's side has none.
    ///
    /// # Panics
    /// When there are no descriptors left.
    #[must_use]
    pub fn runner(&self) -> Option<Runner<'_>> {
        match &self.side {
            Side::Host(_) => None,
            Side::Kernel(kernel) => Some(kernel.runner().expect("a descriptor")),
        }
    }

    /// Gives it another configuration; flows and counts stay.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn configure(&mut self, lab: &Lab) {
        match &mut self.side {
            Side::Host(tables) => reconfigure(tables, lab),
            Side::Kernel(kernel) => {
                let backends = kernel.backends_per_cpu();
                kernel.rows().configure(lab, backends);
                kernel.list_prefixes(lab).expect("room for every prefix");
            }
        }
    }

    /// Forgets flows, fragments, next hops and counts, and takes on a configuration.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn restart(&mut self, lab: &Lab) {
        self.rows().clear();
        match &mut self.side {
            Side::Host(tables) => tables.fragments.borrow_mut().clear(),
            Side::Kernel(kernel) => kernel.forget_fragments().expect("removing what is there"),
        }
        self.configure(lab);
    }

    /// The tables, for writing what no packet would.
    pub fn rows(&mut self) -> Rows<'_> {
        match &mut self.side {
            Side::Host(tables) => host::rows(tables),
            Side::Kernel(kernel) => kernel.rows(),
        }
    }

    /// One frame comes in.
    pub fn receive(&mut self, packet: &Packet) -> Run {
        self.receive_bytes(&packet.bytes())
    }

    /// One frame comes in, whatever it is.
    ///
    /// # Panics
    /// When the kernel does not take it: less than a link-layer header, or more than fits in a page.
    pub fn receive_bytes(&mut self, frame: &[u8]) -> Run {
        let before = self.counters();
        let (action, output, interface) = self.run(frame);
        let counters = moved(&before, &self.counters());
        Run { input: frame.to_vec(), action, output, interface, counters }
    }

    /// One frame comes in, and nobody counts.
    ///
    /// # Panics
    /// As [`Balancer::receive_bytes`].
    pub fn run(&mut self, frame: &[u8]) -> (Action, Vec<u8>, Option<u32>) {
        match &mut self.side {
            Side::Host(tables) => {
                let mut frame = MemoryFrame { bytes: frame.to_vec(), ingress: INGRESS_INDEX };
                let verdict = tables.run(&mut frame);
                let (action, interface) = run::action(verdict);
                (action, frame.bytes, interface)
            }
            Side::Kernel(kernel) => {
                let (returned, output) = kernel.run(frame).expect("a frame that the kernel takes");
                let action = match returned {
                    0 => Action::Aborted,
                    1 => Action::Drop,
                    2 => Action::Pass,
                    3 => Action::Transmit,
                    4 => Action::Redirect,
                    other => panic!("XDP has no action {other}"),
                };
                (action, output, None)
            }
        }
    }

    /// All counters that are not zero.
    pub fn counters(&mut self) -> Counters {
        let rows = self.rows();
        let mut counters = Counters::new();
        for row in rows.outcomes.iter() {
            let reasons = Reason::ALL.iter().map(|&reason| (reason.name(), row.reason(reason).load()));
            let events = Event::ALL.iter().map(|&event| (event.name(), row.event(event).load()));
            for (name, count) in reasons.chain(events).filter(|(_, count)| *count > 0) {
                *counters.entry(name).or_default() += count;
            }
        }
        counters
    }

    /// What a backend carried, over all CPUs: packets and bytes from clients, the same to clients, flows that became
    /// active and that stopped being so.
    pub fn traffic(&mut self, backend: u16) -> [u64; 6] {
        let rows = self.rows();
        let count = rows.settings.backends as usize;
        let of_backend = rows.traffic.iter().skip(usize::from(backend)).step_by(count);
        of_backend.fold([0; 6], |total, row| {
            let words =
                [&row.rx_packets, &row.rx_bytes, &row.tx_packets, &row.tx_bytes, &row.opened, &row.closed];
            std::array::from_fn(|at| total[at] + words[at].load())
        })
    }

    /// Active connections of a backend: opened and not closed.
    pub fn active(&mut self, backend: u16) -> i64 {
        let [.., opened, closed] = self.traffic(backend);
        opened as i64 - closed as i64
    }
}
