//! What the data plane is told once: one row, written before the program is attached.

use crate::abi::row;
use crate::atomic::Word;

/// The settings row.
#[repr(C, align(64))]
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// [`crate::ABI_VERSION`] of whoever made the maps.
    pub abi: u32,
    /// Jiffies a second (`CONFIG_HZ`), measured when the program is loaded.
    pub jiffies_per_second: u32,
    /// Right shift from jiffies to ticks of about a second: 8 at 250 Hz (1.024 s).
    pub tick_shift: u32,
    /// IPv4 flow buckets, any number.
    pub flow4_buckets: u32,
    /// IPv6 flow buckets.
    pub flow6_buckets: u32,
    /// Buckets of half a directory less one.
    pub directory_mask: u32,
    /// Generated ICMP errors a second and CPU (RFC 1812 section 4.3.2.8; RFC 4443 section 2.4 (f)).
    pub icmp_errors_per_second: u32,
    /// Rows of a CPU in the traffic array: the backends it has room for.
    pub backends: u32,
    /// Keys the hash of the flow table. Drawn at random when the maps are made.
    pub flow_key: u64,
    /// Keys the hash of each directory half.
    pub directory_keys: [Word; 2],
    /// Which directory half is read: 0 or 1.
    pub directory_half: Word,
    /// [`REDIRECT_BACK`], set anew whenever the program is attached.
    pub flags: Word,
    /// First port of every address of a source pool; see [`crate::port`].
    pub pool_port: u32,
    /// Ports of a block.
    pub pool_block: u32,
    /// Blocks of an address.
    pub pool_blocks: u32,
    /// Zero.
    pub reserved: u32,
    /// When an agent last saw to the tables, in seconds of `CLOCK_BOOTTIME`; 0 where none has yet. Packets do not ask.
    pub agent_seen: Word,
    /// Zero.
    pub reserved_end: [u32; 8],
}
row!(Settings, 128, {
    u32, u32, u32, u32, u32, u32, u32, u32, u64, [Word; 2], Word, Word, u32, u32, u32, u32, Word, [u32; 8]
});

/// Flag: a frame that leaves by the interface it came in by is redirected there instead of returned with `XDP_TX`.
///
/// For veth. Its `XDP_TX` leaves frames in the peer's ring unless the *peer* runs an XDP program (`veth_xdp_flush`,
/// Linux 6.18), though they got there by the peer's NAPI alone; a redirect wakes the peer either way.
pub const REDIRECT_BACK: u64 = 1;

impl Settings {
    /// The time in ticks, from jiffies.
    #[inline(always)]
    pub const fn tick(&self, jiffies: u64) -> u64 {
        jiffies >> (self.tick_shift & 31)
    }

    /// Ticks of which that many milliseconds are, rounded up.
    pub const fn ticks(&self, milliseconds: u64) -> u64 {
        (milliseconds * self.jiffies_per_second as u64).div_ceil(1000 << (self.tick_shift & 31))
    }

    /// Ports of an address of a source pool.
    #[inline(always)]
    pub const fn pool_ports(&self) -> u32 {
        self.pool_block.wrapping_mul(self.pool_blocks)
    }
}

/// How long a flow may be silent, in ticks of about a second, before the sweep frees its entry or an insertion takes it.
pub mod timeout {
    use crate::flow::State;

    /// TCP before the handshake is done: Linux retransmits a SYN at 1, 3, 7, 15 and 31 s.
    pub const HALF_OPEN: u64 = 32;
    /// TCP after it. Silence longer than that costs the entry, not the connection: a hash strategy finds the same
    /// backend again while its slot has not changed.
    pub const ESTABLISHED: u64 = 3600;
    /// TCP after a FIN or RST: as long as TIME-WAIT (RFC 9293 section 3.4.2, as Linux has it).
    pub const CLOSING: u64 = 60;
    /// UDP (RFC 4787 section 4.3 asks for two minutes at least).
    pub const DATAGRAM: u64 = 120;

    /// The longest of a flow.
    pub const LONGEST: u64 = ESTABLISHED;
    /// Of an affinity entry its service says it; an insertion, which does not ask, takes none for idle.
    pub const AFFINITY: u64 = (1 << 22) - 1;

    /// The timeout of a state.
    #[inline(always)]
    pub const fn of(state: State) -> u64 {
        match state {
            State::ESTABLISHED | State::ADOPTED => ESTABLISHED,
            State::DATAGRAM => DATAGRAM,
            State::CLOSING => CLOSING,
            State::HALF_OPEN | State::ANSWERED => HALF_OPEN,
            State::AFFINITY => AFFINITY,
            _ => 0,
        }
    }
}
