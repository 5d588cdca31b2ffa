//! The data word: one entry of the flow table, but for its key.

use super::State;

const NEXT_HOP_SHIFT: u32 = 16;
const STATE_SHIFT: u32 = 28;
const GENERATION_SHIFT: u32 = 32;
const STAMP_SHIFT: u32 = 40;
const STAMP_BITS: u32 = 22;
const STAMP_MASK: u64 = (1 << STAMP_BITS) - 1;
const ANSWERED_TIME_BITS: u32 = 6;
const ANSWERED_TIME_MASK: u64 = (1 << ANSWERED_TIME_BITS) - 1;

/// Something holds of the whole bucket. What it is depends on the way: see [`Mark`].
const MARK: u64 = 1 << 62;
/// Of a mark: set, again perhaps, since the sweep last looked. In way 0's word: [`LOCK`].
const RECENT: u64 = 1 << 63;
/// The bits of every word that are the bucket's and not the entry's.
const FLAGS: u64 = MARK | RECENT;

/// The bucket is being inserted into: the flag, in way 0's word.
pub const LOCK: u64 = RECENT;
/// A mark as it is set: anew. The sweep first takes the newness away, and later the mark, unless it is new again.
pub const MARKED: u64 = MARK | RECENT;

/// What is marked of a whole bucket, each in the word of a way of its own.
///
/// A mark and its newness share a word, so that the sweep can take the mark away by one swap that fails where
/// somebody has set it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Flows of this bucket may be in their second-choice buckets too.
    Spill = 1,
    /// Flows of this bucket may have gone untracked: replies without an entry are tried by the hash.
    Untracked = 2,
}

/// An entry's data word, taken apart by accessors.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data(pub u64);

impl Data {
    /// The bit that says that a mark was set since the sweep last looked.
    pub const NEWNESS: u64 = RECENT;

    /// A new entry's word, in no way yet: neither generation nor flags.
    #[inline(always)]
    pub const fn fresh(state: State, backend: u16, now: u64) -> Self {
        Self((state.0 as u64) << STATE_SHIFT | backend as u64).stamped(now)
    }

    /// A [fresh](Self::fresh) word as it follows `previous` in the same way: the next generation, the bucket's flags kept.
    #[inline(always)]
    pub const fn following(self, previous: Data) -> Self {
        let generation = (previous.generation() as u64 + 1) & 0xff;
        Self(self.0 | previous.0 & FLAGS | generation << GENERATION_SHIFT)
    }

    /// A new entry's word, following `previous` in the same way: [`fresh`](Self::fresh) and [`following`](Self::following).
    #[inline(always)]
    pub const fn succeeding(previous: Data, state: State, backend: u16, now: u64) -> Self {
        Self::fresh(state, backend, now).following(previous)
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

    /// The same entry with another backend.
    #[inline(always)]
    pub const fn with_backend(self, backend: u16) -> Self {
        Self(self.0 & !0xffff | backend as u64)
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

    /// The same half-open entry with the [moment](crate::latency::moment) of its SYN in the stamp's upper 16 bits.
    ///
    /// A stamp that is nothing but a tick says that there is no such moment, be it that one was not wanted or that another
    /// packet has stamped the entry since. One moment in 65,536 looks like that, and is not measured.
    #[inline(always)]
    pub const fn opened(self, moment: u16) -> Self {
        let moment_shift = STAMP_SHIFT + ANSWERED_TIME_BITS;
        Self(self.0 & !(0xffff << moment_shift) | (moment as u64) << moment_shift)
    }

    /// That moment, if the half-open entry has one.
    #[inline(always)]
    pub const fn opened_at(self, now: u64) -> Option<u16> {
        let stamp = self.0 >> STAMP_SHIFT & STAMP_MASK;
        let tick = now.wrapping_sub(now.wrapping_sub(stamp) & ANSWERED_TIME_MASK) & STAMP_MASK;
        if stamp == tick { None } else { Some((stamp >> ANSWERED_TIME_BITS) as u16) }
    }

    /// What [`answered`](Self::answered) kept of the expected acknowledgement.
    #[inline(always)]
    pub const fn expected_acknowledgement(self) -> u16 {
        (self.0 >> (STAMP_SHIFT + ANSWERED_TIME_BITS)) as u16
    }

    /// Ticks since the last packet. Wraps at 48 days, and at 64 ticks before a handshake is done: far beyond each timeout.
    #[inline(always)]
    pub const fn age(self, now: u64) -> u64 {
        self.age_within(now, Self::age_mask(self.state()))
    }

    /// The [age](Self::age) by the mask of a state.
    #[inline(always)]
    pub const fn age_within(self, now: u64, mask: u64) -> u64 {
        now.wrapping_sub(self.0 >> STAMP_SHIFT) & mask
    }

    /// Which bits of the stamp are the time, in a state.
    #[inline(always)]
    pub const fn age_mask(state: State) -> u64 {
        if state.is(State::ANSWERED) || state.is(State::HALF_OPEN) { ANSWERED_TIME_MASK } else { STAMP_MASK }
    }

    /// The word without the bucket's flags, for comparing entries.
    #[inline(always)]
    pub const fn without_flags(self) -> u64 {
        self.0 & !FLAGS
    }

    /// Whether the bucket has the mark that this way's word stands for.
    #[inline(always)]
    pub const fn is_marked(self) -> bool {
        self.0 & MARK != 0
    }

    /// Whether the mark was set since the sweep last looked.
    #[inline(always)]
    pub const fn is_marked_anew(self) -> bool {
        self.0 & MARKED == MARKED
    }

    /// The same word without the mark.
    #[inline(always)]
    pub const fn unmarked(self) -> Self {
        Self(self.0 & !MARKED)
    }

    /// Freed: generation and flags stay.
    #[inline(always)]
    pub const fn freed(self) -> Self {
        Self(self.0 & (FLAGS | 0xff << GENERATION_SHIFT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_half_open_entry_has_the_moment_of_its_syn_until_it_is_stamped() {
        for now in [0, 70, 63 << 6, 0x3f_ffff, 0x40_0010] {
            let fresh = Data::succeeding(Data(LOCK), State::HALF_OPEN, 0xffff, now);
            assert_eq!((fresh.opened_at(now), fresh.opened_at(now + 40)), (None, None), "{now}");
            let opened = fresh.by_next_hop(0xabc).opened(0xbeef);
            assert_eq!((opened.opened_at(now), opened.opened_at(now + 40)), (Some(0xbeef), Some(0xbeef)));
            assert_eq!((opened.age(now + 3), opened.next_hop(), opened.backend()), (3, 0xabc, 0xffff));
            assert_eq!((opened.generation(), opened.0 & LOCK), (1, LOCK));
            assert_eq!(opened.stamped(now + 1).opened_at(now + 2), None, "a second SYN");
        }
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
}
