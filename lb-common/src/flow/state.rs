//! Where a flow is in its life: four bits of its data word.

/// Where a flow is in its life.
///
/// Four bits of the data word, and no Rust `enum`: any four bits are valid, and a comparison is one instruction
/// where an `enum` would first have to be checked into shape.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct State(pub(super) u8);

impl State {
    /// Nobody's.
    pub const FREE: Self = Self(0);
    /// Being written by whoever holds the bucket's lock.
    pub const CLAIMED: Self = Self(1);
    /// TCP: a SYN went to the backend.
    pub const HALF_OPEN: Self = Self(2);
    /// TCP: the backend's SYN-ACK went to the client. Not proof of a client: backends answer spoofed SYNs.
    pub const ANSWERED: Self = Self(3);
    /// TCP: a FIN or RST was seen; the next SYN starts a new flow.
    pub const CLOSING: Self = Self(4);
    /// TCP: the client acknowledged the SYN-ACK's sequence number, so it saw it. Never evicted by an unproven flow.
    pub const ESTABLISHED: Self = Self(5);
    /// UDP.
    pub const DATAGRAM: Self = Self(6);
    /// TCP met in mid-stream: the entry was lost, or the balancer came later than the flow.
    pub const ADOPTED: Self = Self(7);
    /// No flow: where a client's flows go.
    pub const AFFINITY: Self = Self(8);

    /// Every state, in the order of its number.
    pub const ALL: [Self; 9] = [
        Self::FREE,
        Self::CLAIMED,
        Self::HALF_OPEN,
        Self::ANSWERED,
        Self::CLOSING,
        Self::ESTABLISHED,
        Self::DATAGRAM,
        Self::ADOPTED,
        Self::AFFINITY,
    ];

    /// Whether a flow in this state counts as an active connection of its backend.
    #[inline(always)]
    pub const fn is_active(self) -> bool {
        self.is_one_of(1 << Self::ESTABLISHED.0 | 1 << Self::DATAGRAM.0 | 1 << Self::ADOPTED.0)
    }

    /// Whether a flow in this state counts as load of its backend: from the SYN on, so that a burst does not take a
    /// backend for idle before its handshakes are done, until it closes.
    #[inline(always)]
    pub const fn is_load(self) -> bool {
        self.is_active() || self.is_one_of(1 << Self::HALF_OPEN.0 | 1 << Self::ANSWERED.0)
    }

    /// Whether something more than a SYN and its answer has been seen of the flow: either of these can be had with a
    /// forged source.
    #[inline(always)]
    pub const fn is_confirmed(self) -> bool {
        self.is_live() && self.0 != Self::HALF_OPEN.0 && self.0 != Self::ANSWERED.0
    }

    /// Whether an entry in this state names a backend.
    #[inline(always)]
    pub const fn is_live(self) -> bool {
        self.0 >= Self::HALF_OPEN.0
    }

    /// Whether the bit of its number is set.
    #[inline(always)]
    const fn is_one_of(self, states: u32) -> bool {
        states >> self.0 & 1 != 0
    }

    /// Whether this is that state; `==` that constant functions can use.
    #[inline(always)]
    pub const fn is(self, other: Self) -> bool {
        self.0 == other.0
    }

    /// Its number, below 16.
    #[inline(always)]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Stable name, as `lb-agent flows` shows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FREE => "free",
            Self::CLAIMED => "claimed",
            Self::HALF_OPEN => "half-open",
            Self::ANSWERED => "answered",
            Self::CLOSING => "closing",
            Self::ESTABLISHED => "established",
            Self::DATAGRAM => "datagram",
            Self::ADOPTED => "adopted",
            Self::AFFINITY => "affinity",
            _ => "unknown",
        }
    }
}

impl core::fmt::Debug for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}
