//! The last SYN of a flow whose handshake is under way, so that another backend can be sent the same when the first refuses it.
//!
//! A side table of the flow table, by the lower bits of the same hash, overwritten freely: whose row is lost is still given
//! another backend, but by the SYN that its client sends again.

use crate::abi::row;
use crate::atomic::Word;

/// Bytes of TCP options that a row holds. What Linux sends are 20; with Multipath TCP (RFC 8684), 32.
pub const OPTIONS: usize = 32;
/// Times that a flow is given another backend before any has answered.
pub const MAX_MOVES: usize = 3;

/// A row of the side table: [`Syn`] under a seal.
///
/// Several CPUs may write a row at once, each for a flow of its own. The seal is a sum over the flow's hash and all
/// other words: a mixture of two flows, or of two moments of one, has another.
#[repr(C, align(64))]
#[derive(Clone, Debug, Default)]
pub struct SynRow {
    words: [Word; WORDS],
}
row!(SynRow, 64, { [Word; WORDS] });

const WORDS: usize = 8;

/// What is known of a flow's SYN.
///
/// ```text
///     63            48 47            32 31    24 23    16 15              0
///    +----------------+----------------+--------+--------+----------------+
/// 1  | sequence number                 | start of the IP header           |
/// 2  | 0               | flags | TTL   | offset and flags | window         |
/// 3  | options, 32 bytes as on the wire                                    |
///    +--------------------------------------------------+-----------------+
/// 7  | backends tried before: up to three                | jiffies        |
///    +--------------------------------------------------+-----------------+
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Syn {
    /// The client's initial sequence number.
    pub sequence: u32,
    /// The IP header's first four bytes, as on the wire: version, traffic class, flow label.
    pub head: [u8; 4],
    /// TTL or hop limit as it came.
    pub hop_limit: u8,
    /// The header's 13th and 14th byte: its length, and the flag bits.
    pub offset_and_flags: [u8; 2],
    /// The window field, as on the wire.
    pub window: [u8; 2],
    /// The options as on the wire, eight bytes a word, zeros behind them.
    pub options: [u64; OPTIONS / 8],
    /// [`Self::COMPLETE`], [`Self::UNSENT`].
    pub flags: u8,
    /// The backends that it went to before the one that the flow's entry names: 16 bits each, the last in the lowest.
    pub tried: u64,
    /// Jiffies when it was last sent, modulo 65,536.
    pub sent: u16,
}

impl Syn {
    /// All of the SYN is here, so that it can be written again. Otherwise its options were too long for a row, or it
    /// was not seen.
    pub const COMPLETE: u8 = 1;
    /// The backend that the flow's entry names has not been sent it: its client's next one is its first there.
    pub const UNSENT: u8 = 2;

    /// A SYN that was not seen, but is known by what refused it.
    pub const fn unseen(sequence: u32) -> Self {
        Self {
            sequence,
            head: [0; 4],
            hop_limit: 0,
            offset_and_flags: [0; 2],
            window: [0; 2],
            options: [0; OPTIONS / 8],
            flags: Self::UNSENT,
            tried: 0,
            sent: 0,
        }
    }

    /// Whether a flag is set.
    #[inline(always)]
    pub const fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Bytes of the options.
    #[inline(always)]
    pub const fn options_length(&self) -> usize {
        let length = (self.offset_and_flags[0] >> 4) as usize * 4;
        length.saturating_sub(20)
    }

    /// Whether it went to that backend before.
    #[inline(always)]
    pub const fn was_tried(&self, backend: u16) -> bool {
        let [a, b, c] = [self.tried, self.tried >> 16, self.tried >> 32];
        backend == a as u16 || backend == b as u16 || backend == c as u16
    }

    /// Whether the flow has been given as many backends as it may.
    #[inline(always)]
    pub const fn is_exhausted(&self) -> bool {
        self.tried >> (16 * (MAX_MOVES - 1)) != 0
    }

    /// The same flow, given another backend by `backend`.
    #[inline(always)]
    pub const fn left(self, backend: u16) -> Self {
        Self { tried: (self.tried << 16 | backend as u64) & ((1 << (16 * MAX_MOVES)) - 1), ..self }
    }

    /// Jiffies since it was last sent. Wraps after a minute at 1000 Hz: between two of a client's SYNs is less.
    #[inline(always)]
    pub const fn age(&self, jiffies: u64) -> u16 {
        (jiffies as u16).wrapping_sub(self.sent)
    }

    /// Whether its options may ask to join a connection of Multipath TCP (`MP_JOIN`, RFC 8684 section 3.2), which only the
    /// backend of that connection can grant.
    ///
    /// Looks for the three bytes anywhere: one of a million others that has them by chance is not retried either.
    #[inline(always)]
    pub const fn may_join(&self) -> bool {
        let mut found = 0;
        let mut at = 0;
        while at < OPTIONS - 2 {
            let word = self.options[at / 8] >> (at % 8 * 8);
            // Shifted twice: by 64 at once is not defined.
            let next = if at / 8 + 1 < OPTIONS / 8 { self.options[at / 8 + 1] } else { 0 };
            let bytes = word | (next << 1) << (63 - at % 8 * 8);
            // Kind 30, 12 bytes, subtype 1.
            found |= (bytes & 0xf0_ffff == 0x10_0c1e) as u64;
            at += 1;
        }
        found != 0
    }

    #[inline(always)]
    const fn to_words(self) -> [u64; WORDS - 1] {
        let [o0, o1] = self.offset_and_flags;
        let [w0, w1] = self.window;
        let [a, b, c, d] = self.options;
        [
            (self.sequence as u64) << 32 | u32::from_le_bytes(self.head) as u64,
            (self.flags as u64) << 40
                | (self.hop_limit as u64) << 32
                | u32::from_le_bytes([w0, w1, o0, o1]) as u64,
            a,
            b,
            c,
            d,
            self.tried << 16 | self.sent as u64,
        ]
    }

    #[inline(always)]
    const fn from_words([first, second, a, b, c, d, last]: [u64; WORDS - 1]) -> Self {
        let [w0, w1, o0, o1] = (second as u32).to_le_bytes();
        Self {
            sequence: (first >> 32) as u32,
            head: (first as u32).to_le_bytes(),
            hop_limit: (second >> 32) as u8,
            offset_and_flags: [o0, o1],
            window: [w0, w1],
            options: [a, b, c, d],
            flags: (second >> 40) as u8,
            tried: last >> 16,
            sent: last as u16,
        }
    }
}

impl SynRow {
    /// What is known of the flow with that hash, if the row is its.
    #[inline(always)]
    pub fn read(&self, hash: u64) -> Option<Syn> {
        let [seal, first, second, a, b, c, d, last] = &self.words;
        let words = [first, second, a, b, c, d, last].map(|word| word.load());
        (seal.load() == sealed(hash, words)).then_some(Syn::from_words(words))
    }

    /// Makes the row that flow's.
    #[inline(always)]
    pub fn write(&self, hash: u64, syn: &Syn) {
        let words = syn.to_words();
        let [seal, first, second, a, b, c, d, last] = &self.words;
        first.store(words[0]);
        second.store(words[1]);
        a.store(words[2]);
        b.store(words[3]);
        c.store(words[4]);
        d.store(words[5]);
        last.store(words[6]);
        seal.store(sealed(hash, words));
    }
}

#[cfg(not(target_arch = "bpf"))]
impl SynRow {
    /// Makes the row so many jiffies older, whose-ever it is: for tests, whose clock may be the kernel's.
    pub fn backdate(&self, jiffies: u16) {
        let [seal, rest @ ..] = &self.words;
        let words = rest.each_ref().map(|word| word.load());
        // The hash is what the seal has more than the sum.
        let hash = sealed(seal.load(), words);
        if let Some(syn) = self.read(hash) {
            self.write(hash, &Syn { sent: syn.sent.wrapping_sub(jiffies), ..syn });
        }
    }
}

/// Odd, so that each bit of a word counts, and different, so that its place does.
const FACTORS: [u64; WORDS - 1] = [
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
    0xd6e8_feb8_6659_fd93,
    0xa076_1d64_78bd_642f,
    0xe703_7ed1_a0b4_28db,
    0x8ebc_6af0_9c88_c6e3,
];

/// No row of zeros is sealed.
#[inline(always)]
const fn sealed(hash: u64, words: [u64; WORDS - 1]) -> u64 {
    let mut sum = 1u64;
    let mut at = 0;
    while at < words.len() {
        sum = sum.wrapping_add(words[at].wrapping_mul(FACTORS[at]));
        at += 1;
    }
    hash ^ sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syn() -> Syn {
        Syn {
            sequence: 0xdead_beef,
            head: [0x45, 1, 2, 3],
            hop_limit: 63,
            offset_and_flags: [0xa0, 0x02],
            window: [0xfa, 0xf0],
            options: [0x0101_0402_b405_0402, 0x1122_3344_5566_0a08, 0x0703_0301, 0],
            flags: Syn::COMPLETE,
            tried: 0x0003_0002_0001,
            sent: 0xfff0,
        }
    }

    #[test]
    fn a_row_is_its_flow_s_alone() {
        let row = SynRow::default();
        assert_eq!((row.read(0), row.read(7)), (None, None));
        row.write(7, &syn());
        assert_eq!((row.read(7), row.read(8)), (Some(syn()), None));
    }

    #[test]
    fn a_mixture_of_two_flows_is_neither_s() {
        let (one, other) = (SynRow::default(), SynRow::default());
        one.write(7, &syn());
        other.write(9, &Syn { sequence: 1, options: [5, 6, 7, 8], sent: 3, ..syn() });
        for mixed in 1..(1 << WORDS) - 1 {
            let row = SynRow::default();
            for at in 0..WORDS {
                let from = if mixed >> at & 1 == 1 { &one } else { &other };
                row.words[at].store(from.words[at].load());
            }
            let differs = |at: usize| one.words[at].load() != other.words[at].load();
            let [first, second] =
                [1, 0].map(|whose| (0..WORDS).any(|at| differs(at) && mixed >> at & 1 != whose));
            assert_eq!((row.read(7).is_some(), row.read(9).is_some()), (!first, !second), "{mixed:08b}");
        }
    }

    #[test]
    fn a_flow_has_three_backends_behind_it_at_most() {
        let mut known = Syn { tried: 0, ..syn() };
        for backend in [5, 6] {
            known = known.left(backend);
            assert!(!known.is_exhausted() && known.was_tried(5), "{backend}");
        }
        known = known.left(0xffff);
        assert!(known.is_exhausted());
        assert!([5, 6, 0xffff].iter().all(|&backend| known.was_tried(backend)) && !known.was_tried(7));
        assert_eq!((known.left(9).tried, known.sequence), (0x0006_ffff_0009, syn().sequence));
    }

    #[test]
    fn ages_wrap() {
        assert_eq!((syn().age(0xfff0), syn().age(0x1_0010)), (0, 0x20));
    }

    #[test]
    fn joining_another_connection_is_seen_wherever_the_option_is() {
        let join = [30u8, 12, 0x10, 1, 2, 3, 4, 5, 6, 7, 8, 9];
        for at in 0..=OPTIONS - join.len() {
            let mut bytes = [1u8; OPTIONS];
            bytes[at..at + join.len()].copy_from_slice(&join);
            let known = Syn { options: words(bytes), ..syn() };
            assert!(known.may_join(), "at {at}");
            bytes[at + 2] = 0x00;
            assert!(!Syn { options: words(bytes), ..syn() }.may_join(), "MP_CAPABLE at {at}");
        }
        assert!(!syn().may_join());
    }

    fn words(bytes: [u8; OPTIONS]) -> [u64; OPTIONS / 8] {
        core::array::from_fn(|at| u64::from_le_bytes(core::array::from_fn(|byte| bytes[at * 8 + byte])))
    }
}
