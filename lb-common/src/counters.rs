//! Counters: a row for each CPU, so that counting is a plain addition, and one for the agent.

use crate::abi::row;
use crate::atomic::Word;
use crate::hash::mix;
use crate::reason::{Event, Reason};

// Powers of two: the masked index below cannot be out of bounds, and no check of it survives in the program.
const REASONS: usize = 64;
const EVENTS: usize = 32;
const _: () = assert!(Reason::ALL.len() <= REASONS && Event::ALL.len() <= EVENTS);

/// One CPU's count of outcomes and events, and its random numbers.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Outcomes {
    reasons: [Word; REASONS],
    events: [Word; EVENTS],
    /// Random numbers drawn so far, from a number on that differs from CPU to CPU.
    pub draws: Word,
    /// Zero.
    pub reserved: [u64; 7],
}
row!(Outcomes, 832, { [Word; REASONS], [Word; EVENTS], Word, [u64; 7] });

impl Outcomes {
    /// The counter of a reason.
    #[inline(always)]
    pub const fn reason(&self, reason: Reason) -> &Word {
        self.reason_at(reason as usize)
    }

    /// The counter of the reason with that number, modulo their capacity: for where the number is not known to be one.
    #[inline(always)]
    pub const fn reason_at(&self, number: usize) -> &Word {
        &self.reasons[number % REASONS]
    }

    /// The counter of an event.
    #[inline(always)]
    pub const fn event(&self, event: Event) -> &Word {
        &self.events[event as usize % EVENTS]
    }

    /// The next random number: a keyed hash of their count, at a quarter of what the kernel's generator costs, and the
    /// same on every machine that starts from the same count.
    #[inline(always)]
    pub fn draw(&self, key: u64) -> u64 {
        self.draws.count(1);
        mix(self.draws.load(), key)
    }
}

impl Default for Outcomes {
    fn default() -> Self {
        Self {
            reasons: core::array::from_fn(|_| Word::default()),
            events: core::array::from_fn(|_| Word::default()),
            draws: Word::default(),
            reserved: [0; 7],
        }
    }
}

/// What one CPU has carried for one backend: `cpu * backends + backend` in the array. One cache line. The agent
/// has the row after the last CPU's, for the flows that its sweep closes.
#[repr(C, align(64))]
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Packets from clients.
    pub rx_packets: Word,
    /// Bytes of IP packets from clients.
    pub rx_bytes: Word,
    /// Packets to clients.
    pub tx_packets: Word,
    /// Bytes of IP packets to clients.
    pub tx_bytes: Word,
    /// Flows that became active.
    pub opened: Word,
    /// Flows that stopped being active.
    pub closed: Word,
    /// Zero.
    pub reserved: [u64; 2],
}
row!(Traffic, 64, { Word, Word, Word, Word, Word, Word, [u64; 2] });

/// One CPU's budget for generated ICMP errors, and the answer that is under way.
#[repr(C)]
#[derive(Clone, Debug, Default)]
pub struct IcmpBudget {
    /// The second that `sent` counts in, as jiffies divided by [`crate::settings::Settings::jiffies_per_second`].
    pub second: Word,
    /// Errors sent in it.
    pub sent: Word,
    /// What the stage that answers is to say: written by the stage before it, for the same packet.
    pub pending: Word,
    /// The hash of the flow that this is about, where it is about one.
    pub pending_flow: Word,
}
row!(IcmpBudget, 32, { Word, Word, Word, Word });
