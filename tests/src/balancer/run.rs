//! What came of a frame, and what a test says of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use lb_common::reason::{Event, Reason};
use lb_ebpf::verdict::Verdict;

use crate::packet::{Packet, checksums_valid, describe};

/// What becomes of a frame: XDP's actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `XDP_ABORTED`: never meant.
    Aborted,
    /// `XDP_DROP`.
    Drop,
    /// `XDP_PASS`.
    Pass,
    /// `XDP_TX`.
    Transmit,
    /// `XDP_REDIRECT`.
    Redirect,
}

/// What came of one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The frame that went in.
    pub input: Vec<u8>,
    /// What becomes of it.
    pub action: Action,
    /// The frame afterwards.
    pub output: Vec<u8>,
    /// Out of which interface a redirect goes. The kernel does not tell.
    pub interface: Option<u32>,
    /// Every counter that moved, and by how much.
    pub counters: Counters,
}

/// Counters by their stable names.
pub type Counters = BTreeMap<&'static str, u64>;

/// The difference of two counts.
#[must_use]
pub fn moved(before: &Counters, after: &Counters) -> Counters {
    let was = |name| before.get(name).copied().unwrap_or(0);
    after
        .iter()
        .map(|(&name, &count)| (name, count - was(name)))
        .filter(|(_, difference)| *difference > 0)
        .collect()
}

impl Run {
    /// Sent back out of the interface that it came in by.
    ///
    /// # Panics
    /// Where anything else happened, or the frame is another; so do all assertions here.
    #[track_caller]
    pub fn assert_transmitted(&self, expected: &Packet) -> &Self {
        self.assert(Action::Transmit, &expected.bytes())
    }

    /// Sent out of another interface.
    ///
    /// # Panics
    /// Where not.
    #[track_caller]
    pub fn assert_redirected(&self, interface: u32, expected: &Packet) -> &Self {
        if let Some(actual) = self.interface {
            assert_eq!(actual, interface, "redirected to another interface\n{}", self.report(None));
        }
        self.assert(Action::Redirect, &expected.bytes())
    }

    /// Rewritten, then left to the kernel.
    ///
    /// # Panics
    /// Where not.
    #[track_caller]
    pub fn assert_passed_as(&self, expected: &Packet) -> &Self {
        self.assert(Action::Pass, &expected.bytes())
    }

    /// Left to the kernel as it is.
    ///
    /// # Panics
    /// Where not.
    #[track_caller]
    pub fn assert_untouched(&self) -> &Self {
        assert_eq!(self.action, Action::Pass, "{}", self.report(None));
        assert!(self.output == self.input, "passed, but not as it was\n{}", self.report(Some(&self.input)));
        self
    }

    /// Dropped.
    ///
    /// # Panics
    /// Where not.
    #[track_caller]
    pub fn assert_dropped(&self) -> &Self {
        assert_eq!(self.action, Action::Drop, "{}", self.report(None));
        self
    }

    /// Exactly one reason and these events, once each, and no other counter moved.
    ///
    /// # Panics
    /// Where not.
    #[track_caller]
    pub fn assert_counted<const N: usize>(&self, reason: Reason, events: [Event; N]) -> &Self {
        self.assert_counted_with(reason, &events)
    }

    /// As [`Run::assert_counted`], for a list that is not written where it is used.
    ///
    /// # Panics
    /// Where not.
    #[track_caller]
    pub fn assert_counted_with(&self, reason: Reason, events: &[Event]) -> &Self {
        let mut expected = Counters::from([(reason.name(), 1)]);
        for event in events {
            *expected.entry(event.name()).or_default() += 1;
        }
        assert_eq!(self.counters, expected, "counters\n{}", self.report(None));
        self
    }

    #[track_caller]
    fn assert(&self, action: Action, expected: &[u8]) -> &Self {
        assert_eq!(self.action, action, "{}", self.report(Some(expected)));
        assert!(self.output == expected, "another frame\n{}", self.report(Some(expected)));
        assert_eq!(checksums_valid(&self.output), Ok(()), "{}", self.report(None));
        self
    }

    /// All there is to know of it.
    #[must_use]
    pub fn report(&self, expected: Option<&[u8]>) -> String {
        let mut text = format!("in: {}", describe(&self.input));
        if let Some(expected) = expected {
            let _ = write!(text, "expected: {}", describe(expected));
        }
        let _ = write!(text, "{:?}: {}counters: {:?}", self.action, describe(&self.output), self.counters);
        text
    }
}

pub(super) fn action(verdict: Verdict) -> (Action, Option<u32>) {
    match verdict {
        Verdict::Pass(_) => (Action::Pass, None),
        Verdict::Drop(_) => (Action::Drop, None),
        Verdict::Transmit(_) => (Action::Transmit, None),
        Verdict::Redirect(_, interface) => (Action::Redirect, Some(interface)),
        Verdict::Defer(stage) => panic!("{stage:?} was not run"),
    }
}
