//! Limits of new flows per second: the generic cell rate algorithm (ITU-T I.371), a word of state each.
//!
//! The state is the *theoretical arrival time* of the next flow: each flow that is let in moves it by the interval at which
//! flows may come, and one that would move it further than a burst ahead of the clock is refused. The clock is
//! jiffies, read as if they advanced evenly: what comes of a tick of 1 to 10 ms is allowed on top of the burst, or a
//! limit of more than one flow a tick could not be reached.

use crate::abi::row;
use crate::address::Address;
use crate::atomic::Word;

/// Bits behind the point of a time that is counted in jiffies.
pub const FRACTION: u32 = 20;

/// The longest that a limit looks ahead, in seconds: a burst is worth an hour of flows at most.
pub const HORIZON: u64 = 3600;

/// Jiffies by which one CPU may have read the clock earlier than another that has moved the state since: a retry, an
/// interrupt between reading and writing. Within it a full state stays full, or the late CPU would grant a second burst.
const SKEW: u64 = 64;

/// A limit's parameters in one word, so that they change together.
///
/// ```text
///  63                    32 31              8 7         0
/// +------------------------+-----------------+-----------+
/// | interval (2^-20 jiffy) | burst (flows)   | prefix    |
/// +------------------------+-----------------+-----------+
/// ```
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit(pub u64);

impl Limit {
    /// The most flows a second that a limit can tell apart from none.
    pub const MAX_RATE: u32 = 10_000_000;
    /// The largest burst.
    pub const MAX_BURST: u32 = (1 << 24) - 1;

    /// `rate` flows a second (1 to [`MAX_RATE`](Self::MAX_RATE)), `burst` of them at once, for each source `prefix` bits
    /// long, counted in the 128 of an [`Address`]; 0 where sources are not told apart.
    pub const fn new(rate: u32, burst: u32, prefix: u8, jiffies_per_second: u32) -> Self {
        let rate = if rate == 0 { 1 } else { rate };
        let interval = ((jiffies_per_second as u64) << FRACTION) / rate as u64;
        let interval = if interval > u32::MAX as u64 { u32::MAX as u64 } else { interval };
        Self(interval << 32 | ((burst & Self::MAX_BURST) as u64) << 8 | prefix as u64)
    }

    #[inline(always)]
    const fn interval(self) -> u64 {
        self.0 >> 32
    }

    #[inline(always)]
    const fn burst(self) -> u64 {
        self.0 >> 8 & Self::MAX_BURST as u64
    }

    /// How many bits of a source's address tell it apart.
    #[inline(always)]
    pub const fn prefix(self) -> u32 {
        self.0 as u32 & 0xff
    }

    /// The state after one more flow, if it is let in.
    ///
    /// A state further ahead than this limit allows, and the `SKEW` of the clocks with it, is of a limit that was
    /// higher, or of another age of the clock: it counts for nothing.
    #[inline(always)]
    pub const fn admit(self, state: u64, jiffies: u64) -> Option<u64> {
        let now = jiffies << FRACTION;
        let tolerance = self.interval() * self.burst() + (1 << FRACTION);
        let ahead = state.wrapping_sub(now);
        // What lies behind is, without a sign, very far ahead.
        let counted = if ahead > tolerance + (SKEW << FRACTION) { 0 } else { ahead };
        let next = counted + self.interval();
        if next <= tolerance { Some(now.wrapping_add(next)) } else { None }
    }
}

/// Words of a line.
pub const SOURCES_PER_LINE: usize = 8;

/// The sources whose hash leads to the same cache line.
#[repr(C, align(64))]
#[derive(Clone, Debug, Default)]
pub struct SourceLine {
    /// See [`Source`]; 0 is nobody's.
    pub sources: [Word; SOURCES_PER_LINE],
}
row!(SourceLine, 64, { [Word; SOURCES_PER_LINE] });

/// A source's state: 16 bits of its hash above 48 of its theoretical arrival time.
///
/// Twelve days of 250 Hz fit in; an idle word is taken for one far ahead of the clock in half of the time after six, which
/// [`is_idle`](Self::is_idle) knows by the [`HORIZON`].
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source(pub u64);

const TIME: u64 = (1 << 48) - 1;

impl Source {
    /// The word of a source with that hash.
    #[inline(always)]
    pub const fn new(hash: u64, state: u64) -> Self {
        Self(Self::tag(hash) | state & TIME)
    }

    /// Whether the word is of a source with that hash. Two in 65,536 that share a line are taken for one.
    #[inline(always)]
    pub const fn is(self, hash: u64) -> bool {
        self.0 & !TIME == Self::tag(hash)
    }

    /// The lowest bit of a tag is set: no word in use is 0.
    #[inline(always)]
    const fn tag(hash: u64) -> u64 {
        (hash | 1 << 48) & !TIME
    }

    /// The whole state, given the clock.
    #[inline(always)]
    pub const fn state(self, jiffies: u64) -> u64 {
        let now = jiffies << FRACTION;
        let ahead = (self.0.wrapping_sub(now) << 16) as i64 >> 16;
        now.wrapping_add(ahead as u64)
    }

    /// Whether the source may do again all that it might ever: then nothing is lost with the word.
    #[inline(always)]
    pub const fn is_idle(self, jiffies: u64, jiffies_per_second: u32) -> bool {
        let ahead = self.state(jiffies).wrapping_sub(jiffies << FRACTION);
        self.0 == 0 || ahead.wrapping_sub(1) >= (HORIZON * jiffies_per_second as u64) << FRACTION
    }
}

/// The first bits of an address, the rest zero.
#[inline(always)]
pub const fn network(address: [u64; 2], prefix: u32) -> [u64; 2] {
    let [head, tail] = address;
    if prefix <= 64 { [head & leading(prefix), 0] } else { [head, tail & leading(prefix - 64)] }
}

/// A mask of the first bits, as the wire has them, of an address's word.
#[inline(always)]
const fn leading(bits: u32) -> u64 {
    if bits == 0 { 0 } else { (u64::MAX << ((64 - bits) & 63)).to_be() }
}

impl Address {
    /// The network that an address is in: its first `prefix` bits, of 128.
    pub const fn network(&self, prefix: u32) -> Self {
        Self(network(self.0, prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    const HZ: u32 = 250;
    /// Later than 48 bits of time, which a source's word does not have.
    const NOW: u64 = 1 << 40;

    /// How many of `flows` a second, evenly spread over `seconds`, a limit lets in.
    fn admitted(limit: Limit, flows: u64, seconds: u64) -> u64 {
        let (mut state, mut count) = (0, 0);
        for flow in 0..flows * seconds {
            let jiffies = NOW + flow * u64::from(HZ) / flows;
            if let Some(next) = limit.admit(state, jiffies) {
                (state, count) = (next, count + 1);
            }
        }
        count
    }

    #[test]
    #[cfg_attr(
        miri,
        ignore = "tens of millions of flows: the better part of an hour, and nothing for Miri to find"
    )]
    fn a_flood_is_cut_to_the_rate_and_one_burst() {
        for (rate, burst) in [(1, 1), (10, 20), (100, 1), (1000, 1), (1000, 500), (20_000, 1), (100_000, 7)] {
            let limit = Limit::new(rate, burst, 0, HZ);
            let admitted = admitted(limit, 200_000, 20);
            let (least, tick) = (u64::from(rate) * 20, u64::from(rate.div_ceil(HZ)));
            let most = least + u64::from(burst) + tick;
            assert!(admitted >= least && admitted <= most + most / 10_000, "{rate}/s, {burst}: {admitted}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "hundreds of thousands of flows: half a minute, and nothing for Miri to find")]
    fn what_keeps_to_the_rate_is_never_refused() {
        for rate in [1, 7, 250, 999, 12_345] {
            assert_eq!(admitted(Limit::new(rate, 1, 0, HZ), u64::from(rate), 20), u64::from(rate) * 20);
        }
    }

    #[test]
    fn a_burst_is_let_in_at_once_and_no_more() {
        let limit = Limit::new(10, 20, 0, HZ);
        let mut state = 0;
        for _ in 0..20 {
            state = limit.admit(state, NOW).unwrap();
        }
        assert_eq!(limit.admit(state, NOW), None);
        // A tenth of a second is 25 jiffies, one of which is allowed on top.
        assert_eq!(limit.admit(state, NOW + 23), None);
        assert!(limit.admit(state, NOW + 24).is_some());
    }

    #[test]
    fn a_lowered_limit_and_a_state_from_the_future_do_not_shut_out() {
        let high = Limit::new(1, 1000, 0, HZ);
        let state = (0..1000).fold(0, |state, _| high.admit(state, NOW).unwrap());
        assert!(Limit::new(1, 10, 0, HZ).admit(state, NOW).is_some());
    }

    #[test]
    fn a_clock_read_late_grants_no_second_burst() {
        let limit = Limit::new(10, 20, 0, HZ);
        let full = (0..20).fold(0, |state, _| limit.admit(state, NOW).unwrap());
        for late in [1, 2, SKEW] {
            assert_eq!(limit.admit(full, NOW - late), None, "{late} jiffies");
        }
    }

    #[test]
    fn a_source_s_word_keeps_tag_and_time_apart() {
        for hash in [0, 0xfeed_0000_0000_0000, u64::MAX] {
            for state in [(NOW << FRACTION) + 12345, (NOW << FRACTION) - 12345] {
                let source = Source::new(hash, state);
                assert!(source.is(hash) && !source.is(hash ^ 1 << 63) && source.0 != 0);
                assert_eq!(source.state(NOW), state);
            }
        }
    }

    #[test]
    fn a_word_is_idle_when_its_time_has_come_and_when_it_cannot_be_of_this_age() {
        let at = |jiffies: u64| Source::new(7, jiffies << FRACTION);
        assert!(Source(0).is_idle(NOW, HZ));
        assert!(
            at(NOW).is_idle(NOW, HZ) && at(NOW - 1).is_idle(NOW, HZ) && at(NOW - (1 << 26)).is_idle(NOW, HZ)
        );
        assert!(!at(NOW + 1).is_idle(NOW, HZ) && !at(NOW + 3600 * 250).is_idle(NOW, HZ));
        assert!(at(NOW + 3601 * 250).is_idle(NOW, HZ));
        // Ten days ago: the clock has gone past half of what 48 bits hold.
        assert!(at(NOW - 10 * 86_400 * 250).is_idle(NOW, HZ));
    }

    #[test]
    fn networks_are_the_first_bits() {
        let network = |address: &str, prefix| {
            IpAddr::from(Address::from(address.parse::<IpAddr>().unwrap()).network(prefix)).to_string()
        };
        assert_eq!(network("10.1.2.3", 96 + 32), "10.1.2.3");
        assert_eq!(network("10.1.255.3", 96 + 20), "10.1.240.0");
        assert_eq!(network("10.1.2.3", 96), "0.0.0.0");
        assert_eq!(network("fd00:1:2:3:4::5", 64), "fd00:1:2:3::");
        assert_eq!(network("fd00:1:2:3:4::5", 65), "fd00:1:2:3::");
        assert_eq!(network("fd00:1:2:3:8000::5", 65), "fd00:1:2:3:8000::");
        assert_eq!(network("fd00:1:2:3:4::5", 0), "::");
        assert_eq!(network("fd00:1:2:3:4::5", 9), "fd00::");
        assert_eq!(network("fd80:1:2:3:4::5", 9), "fd80::");
        assert_eq!(network("fd00::5", 128), "fd00::5");
    }
}
