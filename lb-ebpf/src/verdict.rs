//! What becomes of a packet.

use lb_common::reason::Reason;

/// The end of a stage. Only the XDP entry turns this into an action, and counts the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To the kernel's stack: untouched, or rewritten where the reason says so.
    Pass(Reason),
    /// Nowhere.
    Drop(Reason),
    /// Out of the interface that it came in by.
    Transmit(Reason),
    /// Out of another interface.
    Redirect(Reason, u32),
    /// Not decided: a colder program goes on with the frame as it is.
    Defer(Stage),
}

impl Verdict {
    /// For contradictions between tables, which the agent never writes.
    pub const INTERNAL: Self = Self::Drop(Reason::DropInternal);

    /// The reason, once there is one.
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Self::Pass(reason) | Self::Drop(reason) | Self::Transmit(reason) | Self::Redirect(reason, _) => {
                Some(reason)
            }
            Self::Defer(_) => None,
        }
    }
}

/// What a step yields to the next, or the verdict that ends the way.
pub type Step<T> = Result<T, Verdict>;

/// Programs behind the entry. Each has the whole stack to itself and costs the common path nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Tags, IPv4 options, IPv6 extension headers, fragments, frames that are cut off.
    Slow,
    /// ICMP and ICMPv6.
    Icmp,
    /// Answers of our own.
    Reject,
    /// Flows tracked by exception whose slot has changed.
    Exceptions,
    /// Requests to full-NAT services.
    Nat,
    /// Those that have no flow or no port yet.
    NatOpen,
    /// Replies from full-NAT services' backends.
    NatReply,
    /// Errors about either.
    NatIcmp,
    /// Resets of flows that nobody has answered, and packets of backends that flows have left.
    Retry,
    /// Those of the resets that become SYNs.
    Resend,
}

impl Stage {
    /// Every stage, in the order of the program array.
    pub const ALL: [Self; 10] = [
        Self::Slow,
        Self::Icmp,
        Self::Reject,
        Self::Exceptions,
        Self::Nat,
        Self::NatOpen,
        Self::NatReply,
        Self::NatIcmp,
        Self::Retry,
        Self::Resend,
    ];

    /// Its index in the program array.
    pub const fn index(self) -> u32 {
        self as u32
    }

    /// Its program's name.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Slow => "balance_slow",
            Self::Icmp => "balance_icmp",
            Self::Reject => "balance_reject",
            Self::Exceptions => "balance_exceptions",
            Self::Nat => "balance_nat",
            Self::NatOpen => "balance_nat_open",
            Self::NatReply => "balance_nat_reply",
            Self::NatIcmp => "balance_nat_icmp",
            Self::Retry => "balance_retry",
            Self::Resend => "balance_resend",
        }
    }
}
