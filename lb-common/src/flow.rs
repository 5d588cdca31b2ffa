//! The flow table's rows: set-associative, one cache line per look-up, changed by compare-and-swap alone.
//!
//! A bucket has four ways. Each way is a key and a *data word*; **the data word is the entry**: every change of
//! an entry is one compare-and-swap of its whole data word, and the generation in it makes a late swap against
//! a recycled entry fail. `docs/design.md` has the protocol and what broke simpler ones.
//!
//! ```text
//!  63    62     61         40 39        32 31   28 27         16 15          0
//! +----+-----+---------------+------------+-------+-------------+-------------+
//! |lock|spill|  stamp (22)   | generation | state | next hop    | backend     |
//! +----+-----+---------------+------------+-------+-------------+-------------+
//! ```
//!
//! `lock` and `spill` are the bucket's, kept in way 0. In [`State::ANSWERED`] the stamp's upper 16 bits hold what
//! the client's ACK must acknowledge and its lower 6 the time.

use crate::abi::row;
use crate::address::{Address, Be16, Be32};
use crate::atomic::Word;
use crate::hash::{mix, mix3};

/// Entries of a bucket.
pub const WAYS: usize = 4;

/// Where a flow is in its life.
///
/// Four bits of the data word, and no Rust `enum`: any four bits are valid, and a comparison is one instruction
/// where an `enum` would first have to be checked into shape.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct State(u8);

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

    /// Every state, in the order of its number.
    pub const ALL: [Self; 8] = [
        Self::FREE,
        Self::CLAIMED,
        Self::HALF_OPEN,
        Self::ANSWERED,
        Self::CLOSING,
        Self::ESTABLISHED,
        Self::DATAGRAM,
        Self::ADOPTED,
    ];

    /// Whether a flow in this state counts as an active connection of its backend.
    #[inline(always)]
    pub const fn is_active(self) -> bool {
        self.0 >= Self::ESTABLISHED.0
    }

    /// Whether an entry in this state names a backend that packets may follow.
    #[inline(always)]
    pub const fn is_live(self) -> bool {
        self.0 >= Self::HALF_OPEN.0
    }

    /// Whether this is that state; `==` that constant functions can use.
    #[inline(always)]
    pub const fn is(self, other: Self) -> bool {
        self.0 == other.0
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
            _ => "unknown",
        }
    }
}

impl core::fmt::Debug for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

const NEXT_HOP_SHIFT: u32 = 16;
const STATE_SHIFT: u32 = 28;
const GENERATION_SHIFT: u32 = 32;
const STAMP_SHIFT: u32 = 40;
const STAMP_BITS: u32 = 22;
const STAMP_MASK: u64 = (1 << STAMP_BITS) - 1;
const ANSWERED_TIME_BITS: u32 = 6;
const ANSWERED_TIME_MASK: u64 = (1 << ANSWERED_TIME_BITS) - 1;

/// The bucket is being inserted into (way 0's word).
pub const LOCK: u64 = 1 << 63;
/// Flows of this bucket may also be elsewhere (way 0's word). Reserved: no spill is built yet.
pub const SPILL: u64 = 1 << 62;
const FLAGS: u64 = LOCK | SPILL;

/// An entry's data word, taken apart by accessors.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data(pub u64);

impl Data {
    /// A new entry's word, following `previous` in the same way: the next generation, the bucket's flags kept.
    #[inline(always)]
    pub const fn succeeding(previous: Data, state: State, backend: u16, now: u64) -> Self {
        let generation = (previous.generation() as u64 + 1) & 0xff;
        Self(
            previous.0 & FLAGS
                | generation << GENERATION_SHIFT
                | (state.0 as u64) << STATE_SHIFT
                | backend as u64,
        )
        .stamped(now)
    }

    /// The backend's identifier.
    #[inline(always)]
    pub const fn backend(self) -> u16 {
        self.0 as u16
    }

    /// The client's next hop, an index into the next-hop table; 0 while unknown.
    #[inline(always)]
    pub const fn next_hop(self) -> u16 {
        (self.0 >> NEXT_HOP_SHIFT) as u16 & 0xfff
    }

    /// The state.
    #[inline(always)]
    pub const fn state(self) -> State {
        State((self.0 >> STATE_SHIFT) as u8 & 0xf)
    }

    /// Counts the flows that have had this way, modulo 256.
    #[inline(always)]
    pub const fn generation(self) -> u8 {
        (self.0 >> GENERATION_SHIFT) as u8
    }

    /// The same entry in another state.
    #[inline(always)]
    pub const fn in_state(self, state: State) -> Self {
        Self(self.0 & !(0xf << STATE_SHIFT) | (state.0 as u64) << STATE_SHIFT)
    }

    /// The same entry by another next hop.
    #[inline(always)]
    pub const fn by_next_hop(self, next_hop: u16) -> Self {
        Self(self.0 & !(0xfff << NEXT_HOP_SHIFT) | ((next_hop & 0xfff) as u64) << NEXT_HOP_SHIFT)
    }

    /// The same entry, last seen at `now`, in ticks of about a second ([`crate::settings::Settings::tick`]).
    #[inline(always)]
    pub const fn stamped(self, now: u64) -> Self {
        Self(self.0 & !(STAMP_MASK << STAMP_SHIFT) | (now & STAMP_MASK) << STAMP_SHIFT)
    }

    /// The same entry, answered: the client's ACK must carry `acknowledgement` in its lower 16 bits.
    #[inline(always)]
    pub const fn answered(self, acknowledgement: u16, now: u64) -> Self {
        let stamp = (acknowledgement as u64) << ANSWERED_TIME_BITS | now & ANSWERED_TIME_MASK;
        self.in_state(State::ANSWERED).stamped(stamp)
    }

    /// What [`answered`](Self::answered) kept of the expected acknowledgement.
    #[inline(always)]
    pub const fn expected_acknowledgement(self) -> u16 {
        (self.0 >> (STAMP_SHIFT + ANSWERED_TIME_BITS)) as u16
    }

    /// Ticks since the last packet. Wraps at 48 days, and at 64 ticks while answered: far beyond each timeout.
    #[inline(always)]
    pub const fn age(self, now: u64) -> u64 {
        let mask = if self.state().is(State::ANSWERED) { ANSWERED_TIME_MASK } else { STAMP_MASK };
        now.wrapping_sub(self.0 >> STAMP_SHIFT) & mask
    }

    /// The word without the bucket's flags, for comparing entries.
    #[inline(always)]
    pub const fn without_flags(self) -> u64 {
        self.0 & !FLAGS
    }

    /// Freed: generation and flags stay.
    #[inline(always)]
    pub const fn freed(self) -> Self {
        Self(self.0 & (FLAGS | 0xff << GENERATION_SHIFT))
    }
}

/// What identifies a flow: the client and the service it talks to. Held whole, so there are no false matches.
pub trait Key: Copy + PartialEq + core::fmt::Debug {
    /// How the table stores it.
    type Stored: core::fmt::Debug;

    /// Which bucket: the low bits of a keyed hash of the client alone. The service is left out, so that the bucket is on
    /// its way from memory while the packet's service is still being looked up.
    fn hash(self, key: u64) -> u64;
    /// Whether the stored key is this one.
    fn is(self, stored: &Self::Stored) -> bool;
    /// Writes the key. Only the holder of the bucket's lock may.
    fn write(self, stored: &Self::Stored);
    /// Reads the key back: client address, client port, service.
    fn read(stored: &Self::Stored) -> (Address, Be16, u16);
}

/// The service's bits in a key's last word.
const SERVICE: u64 = 0xffff;

/// Key of an IPv4 flow: address, port and service in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key4(u64);

impl Key4 {
    /// The flow of `client` to a service.
    #[inline(always)]
    pub const fn new(client: Be32, port: Be16, service: u16) -> Self {
        Self((client.0 as u64) << 32 | (port.0 as u64) << 16 | service as u64)
    }
}

impl Key for Key4 {
    type Stored = Word;

    #[inline(always)]
    fn hash(self, key: u64) -> u64 {
        mix(self.0 & !SERVICE, key)
    }

    #[inline(always)]
    fn is(self, stored: &Word) -> bool {
        stored.load() == self.0
    }

    #[inline(always)]
    fn write(self, stored: &Word) {
        stored.store(self.0);
    }

    fn read(stored: &Word) -> (Address, Be16, u16) {
        let word = stored.load();
        (Address::from_v4(Be32((word >> 32) as u32)), Be16((word >> 16) as u16), word as u16)
    }
}

/// Key of an IPv6 flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key6([u64; 3]);

impl Key6 {
    /// The flow of `client` to a service.
    #[inline(always)]
    pub const fn new(client: &Address, port: Be16, service: u16) -> Self {
        Self([client.0[0], client.0[1], (port.0 as u64) << 16 | service as u64])
    }
}

impl Key for Key6 {
    type Stored = [Word; 3];

    #[inline(always)]
    fn hash(self, key: u64) -> u64 {
        mix3([self.0[0], self.0[1], self.0[2] & !SERVICE], key)
    }

    #[inline(always)]
    fn is(self, stored: &[Word; 3]) -> bool {
        stored[0].load() == self.0[0] && stored[1].load() == self.0[1] && stored[2].load() == self.0[2]
    }

    #[inline(always)]
    fn write(self, stored: &[Word; 3]) {
        stored[0].store(self.0[0]);
        stored[1].store(self.0[1]);
        stored[2].store(self.0[2]);
    }

    fn read(stored: &[Word; 3]) -> (Address, Be16, u16) {
        let [head, tail, rest] = [stored[0].load(), stored[1].load(), stored[2].load()];
        (Address([head, tail]), Be16((rest >> 16) as u16), rest as u16)
    }
}

/// One way of a bucket.
#[repr(C)]
#[derive(Debug)]
pub struct Entry<K: Key> {
    /// Whose entry it is; meaningful while the data word is live.
    pub key: K::Stored,
    /// The entry: see [`Data`].
    pub data: Word,
}

/// The flows that share a hash.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Bucket<K: Key> {
    /// The ways; the first one's data word carries the bucket's flags.
    pub ways: [Entry<K>; WAYS],
}

/// A bucket of IPv4 flows: one cache line.
pub type Bucket4 = Bucket<Key4>;
/// A bucket of IPv6 flows: two cache lines.
pub type Bucket6 = Bucket<Key6>;

row!(Bucket4, 64, { [Entry<Key4>; WAYS] });
row!(Bucket6, 128, { [Entry<Key6>; WAYS] });

/// Identifies the fragments of one datagram (RFC 791 section 3.2; RFC 8200 section 4.5).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// Who sends it.
    pub source: Address,
    /// Whom to.
    pub destination: Address,
    /// The identification field, as on the wire; IPv4's 16 bits in the first two bytes.
    pub identification: u32,
    /// The protocol that the datagram carries.
    pub protocol: u32,
}
row!(copy FragmentKey, 40, { Address, Address, u32, u32 });

/// The ports that only a datagram's first fragment carries.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// Sender's.
    pub source: Be16,
    /// Receiver's.
    pub destination: Be16,
}
row!(copy Ports, 4, { Be16, Be16 });

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    #[test]
    fn a_data_word_keeps_its_parts_apart() {
        let first = Data::succeeding(Data(LOCK), State::HALF_OPEN, 0xffff, 0x3f_ffff);
        assert_eq!((first.backend(), first.state(), first.generation()), (0xffff, State::HALF_OPEN, 1));
        assert_eq!(first.0 & LOCK, LOCK);
        let answered = first.by_next_hop(0xabc).answered(0xbeef, 70);
        assert_eq!(answered.expected_acknowledgement(), 0xbeef);
        assert_eq!((answered.next_hop(), answered.backend(), answered.generation()), (0xabc, 0xffff, 1));
        assert_eq!(answered.age(73), 3);
        let freed = answered.freed();
        assert_eq!((freed.state(), freed.generation(), freed.backend()), (State::FREE, 1, 0));
        assert_eq!(freed.0 & LOCK, LOCK);
    }

    #[test]
    fn generations_wrap_without_touching_their_neighbours() {
        let mut data = Data(0);
        for expected in 1..=300u32 {
            data = Data::succeeding(data, State::DATAGRAM, 7, 5);
            assert_eq!((u32::from(data.generation()), data.backend(), data.age(5)), (expected & 0xff, 7, 0));
        }
    }

    #[test]
    fn states_are_their_numbers() {
        for (number, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(Data((number as u64) << STATE_SHIFT).state(), state);
        }
    }

    #[test]
    fn a_clients_flows_share_a_bucket_and_nothing_else() {
        let client = Be32::from_wire([10, 9, 8, 7]);
        let [web, dns] = [1, 2].map(|service| Key4::new(client, Be16::new(40_000), service));
        assert_eq!(web.hash(7), dns.hash(7));
        assert_ne!(web, dns);
        let client = Address::from_v4(client);
        let [web, dns] = [1, 2].map(|service| Key6::new(&client, Be16::new(40_000), service));
        assert_eq!(web.hash(7), dns.hash(7));
        assert_ne!(web, dns);
    }

    #[test]
    fn keys_read_back() {
        let v4 = Word::default();
        Key4::new(Be32::from_wire([10, 9, 8, 7]), Be16::new(40_000), 511).write(&v4);
        let (address, port, service) = Key4::read(&v4);
        assert_eq!(
            (IpAddr::from(address).to_string(), port.get(), service),
            ("10.9.8.7".into(), 40_000, 511)
        );

        let v6 = Default::default();
        let client = Address::from("fd00::1:2".parse::<IpAddr>().unwrap());
        Key6::new(&client, Be16::new(1), 65_535).write(&v6);
        assert_eq!(Key6::read(&v6), (client, Be16::new(1), 65_535));
    }
}
