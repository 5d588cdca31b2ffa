//! Whether a backend is fit for new flows, as its flows tell: each connection that it refuses or does not answer is a finding,
//! long before a health check is due.

/// Handshakes in a row that go unanswered before a backend is suspect. One may be a packet lost.
pub const STRIKES: u64 = 3;
/// Periods double up to 2^5 seconds.
const MAX_LEVEL: u64 = 6;

/// A backend's suspicion word, as [`crate::backend::Load`] has it.
///
/// ```text
///  63          48 47     40 39    32 31                          0
/// +--------------+---------+--------+-----------------------------+
/// | 0            | strikes | level  | jiffies of the next trial   |
/// +--------------+---------+--------+-----------------------------+
/// ```
///
/// Zero is above suspicion. A suspect backend gets no new flow while there is another, but for one each period: a second, then
/// two, four, up to 32. The first that is answered ends it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Suspicion(pub u64);

impl Suspicion {
    /// Whether new flows avoid the backend.
    #[inline(always)]
    pub const fn is_suspect(self) -> bool {
        self.level() != 0
    }

    /// How often it has been tried in vain, plus one; 0 where it is not suspect.
    #[inline(always)]
    pub const fn level(self) -> u64 {
        self.0 >> 32 & 0xff
    }

    #[inline(always)]
    const fn strikes(self) -> u64 {
        self.0 >> 40 & 0xff
    }

    /// After a connection that was refused: nothing listens.
    #[inline(always)]
    pub const fn refused(self, jiffies: u64, jiffies_per_second: u32) -> Self {
        if self.is_suspect() { self } else { Self::at(1, jiffies, jiffies_per_second) }
    }

    /// After a SYN that was not answered before its client sent another.
    #[inline(always)]
    pub const fn unanswered(self, jiffies: u64, jiffies_per_second: u32) -> Self {
        if self.is_suspect() {
            self
        } else if self.strikes() + 1 >= STRIKES {
            Self::at(1, jiffies, jiffies_per_second)
        } else {
            Self((self.strikes() + 1) << 40)
        }
    }

    /// The word with which a flow may try a suspect backend, if its time has come: whoever swaps it in is the one.
    #[inline(always)]
    pub const fn trial(self, jiffies: u64, jiffies_per_second: u32) -> Option<Self> {
        if ((jiffies as u32).wrapping_sub(self.0 as u32) as i32) < 0 {
            return None;
        }
        let level = if self.level() < MAX_LEVEL { self.level() + 1 } else { MAX_LEVEL };
        Some(Self::at(level, jiffies, jiffies_per_second))
    }

    #[inline(always)]
    const fn at(level: u64, jiffies: u64, jiffies_per_second: u32) -> Self {
        let next = jiffies.wrapping_add((jiffies_per_second as u64) << (level - 1));
        Self(level << 32 | next & 0xffff_ffff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HZ: u32 = 250;

    #[test]
    fn a_refusal_is_enough_and_three_silences_are() {
        assert!(!Suspicion::default().is_suspect());
        assert!(Suspicion::default().refused(7, HZ).is_suspect());
        let mut silent = Suspicion::default();
        for expected in [false, false, true] {
            silent = silent.unanswered(7, HZ);
            assert_eq!(silent.is_suspect(), expected, "{silent:?}");
        }
        assert_eq!(silent.unanswered(9, HZ), silent, "suspect already");
        assert_eq!(silent.refused(9, HZ), silent);
    }

    #[test]
    fn trials_come_after_one_second_two_four_and_at_last_every_32() {
        // The clock's lower half passes its end in between.
        let mut now = u64::from(u32::MAX) - 3 * u64::from(HZ);
        let mut word = Suspicion::default().refused(now, HZ);
        for seconds in [1u64, 2, 4, 8, 16, 32, 32] {
            let due = now + seconds * u64::from(HZ);
            assert_eq!(word.trial(due - 1, HZ), None, "{seconds}");
            word = word.trial(due, HZ).unwrap();
            now = due;
        }
    }
}
