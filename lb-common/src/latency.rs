//! Connect times: from a client's SYN to its backend's SYN-ACK, as the balancer sees them, smoothed for each backend and
//! counted by their magnitude.
//!
//! The unit is 2^14 ns (16.384 µs), so that 16 bits last for a second. Linux sends a SYN again after one
//! (RFC 6298 section 2.1): what took longer cannot be told from the answer to a second SYN.

use crate::abi::row;
use crate::atomic::Word;

/// From nanoseconds to units: a right shift.
pub const UNIT_SHIFT: u32 = 14;
/// Nanoseconds of a unit.
pub const UNIT: u64 = 1 << UNIT_SHIFT;

/// A moment of the kernel's monotonic clock, in units modulo 2^16.
#[inline(always)]
pub const fn moment(nanoseconds: u64) -> u16 {
    (nanoseconds >> UNIT_SHIFT) as u16
}

/// Fractions of a unit in a smoothed time: a right shift.
const FRACTION: u32 = 8;
/// Ticks, of about a second each, after which a smoothed time counts half.
pub const HALF_LIFE: u64 = 4;
/// A new time's part in the smoothed one while they come often: an eighth.
const SMOOTHING: u32 = 3;

/// A backend's smoothed connect time, as [`crate::backend::Load`] has it.
///
/// ```text
///  63                          32 31                           0
/// +------------------------------+------------------------------+
/// | tick of the last measurement | connect time, 1/256 units    |
/// +------------------------------+------------------------------+
/// ```
///
/// **It fades.** A backend that is slow gets few flows and so few measurements; if what was measured once held for ever,
/// nobody would find out that it has recovered. So it counts half after [some seconds](HALF_LIFE) without another, and
/// half of that after as many more, until a flow tries it; and the longer ago it was measured, the less weight it has
/// beside what that flow finds.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency(pub u64);

impl Latency {
    /// The connect time as it counts now, in 1/256 units; 0 where nothing is known.
    #[inline(always)]
    pub const fn faded(self, now: u64) -> u64 {
        self.value() >> self.halvings(now)
    }

    /// The connect time as it was last, in nanoseconds; 0 where nothing was measured.
    pub const fn nanoseconds(self) -> u64 {
        (self.value() * UNIT) >> FRACTION
    }

    /// With another measurement, in units.
    #[inline(always)]
    pub const fn measured(self, units: u16, now: u64) -> Self {
        // Less than a unit is half of one: not nothing, which stands for not knowing.
        let new = if units == 0 { 1 << (FRACTION - 1) } else { (units as i64) << FRACTION };
        let (old, halvings) = (self.value() as i64, self.halvings(now));
        let value = if old == 0 {
            new
        } else if halvings == 0 {
            old + ((new - old) >> SMOOTHING)
        } else {
            new + ((old - new) >> halvings)
        };
        // Rounded down, the smallest ones must not become nothing.
        Self((now & 0xffff_ffff) << 32 | (value as u64 & 0xffff_ffff) | 1)
    }

    #[inline(always)]
    const fn value(self) -> u64 {
        self.0 & 0xffff_ffff
    }

    /// How often it has halved. A packet on another CPU may have measured with a clock that is ahead by a tick.
    #[inline(always)]
    const fn halvings(self, now: u64) -> u64 {
        let age = (now as u32).wrapping_sub((self.0 >> 32) as u32) as i32;
        if age <= 0 {
            return 0;
        };
        let halvings = age as u64 / HALF_LIFE;
        if halvings > 31 { 31 } else { halvings }
    }
}

/// Magnitudes that are told apart.
pub const MAGNITUDES: usize = 15;

/// How long connecting to a backend took, as one CPU has seen it: `cpu * backends + backend` in the array.
#[repr(C, align(64))]
#[derive(Clone, Debug, Default)]
pub struct ConnectTimes {
    /// Handshakes by the time that they took: under one unit, under two, under four, ...; the last has no bound.
    pub counts: [Word; MAGNITUDES],
    /// All those times together, in units.
    pub sum: Word,
}
row!(ConnectTimes, 128, { [Word; MAGNITUDES], Word });

impl ConnectTimes {
    /// The bound of a magnitude, in nanoseconds; the last has none.
    pub const fn bound(magnitude: usize) -> Option<u64> {
        if magnitude + 1 < MAGNITUDES { Some(UNIT << magnitude) } else { None }
    }

    /// Counts a handshake that took so many units.
    #[inline(always)]
    pub fn count(&self, units: u16) {
        self.counts[magnitude(units)].count(1);
        self.sum.count(units as u64);
    }
}

/// By halving the range, since there is neither a loop nor an instruction for it that every verifier and JIT has.
#[inline(always)]
const fn magnitude(units: u16) -> usize {
    let (mut rest, mut bits) = (units, 0);
    if rest >= 1 << 8 {
        rest >>= 8;
        bits += 8;
    }
    if rest >= 1 << 4 {
        rest >>= 4;
        bits += 4;
    }
    if rest >= 1 << 2 {
        rest >>= 2;
        bits += 2;
    }
    if rest >= 1 << 1 {
        rest >>= 1;
        bits += 1;
    }
    let bits = bits + rest as usize;
    // The mask tells the compiler what it cannot see: that the index is in bounds.
    if bits >= MAGNITUDES { MAGNITUDES - 1 } else { bits & 15 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(latency: Latency, now: u64) -> f64 {
        latency.faded(now) as f64 / 256.0
    }

    #[test]
    fn it_follows_what_is_measured_smoothly() {
        let mut latency = Latency::default();
        assert_eq!(latency.faded(7), 0, "not known");
        latency = latency.measured(100, 7);
        assert!((units(latency, 7) - 100.0).abs() < 0.1, "the first is taken as it is");
        latency = latency.measured(900, 7);
        assert!((units(latency, 7) - 200.0).abs() < 0.1, "{}", units(latency, 7));
        for _ in 0..60 {
            latency = latency.measured(900, 8);
        }
        assert!((units(latency, 8) - 900.0).abs() < 2.0, "{}", units(latency, 8));
        assert!((latency.nanoseconds() as f64 / (900.0 * UNIT as f64) - 1.0).abs() < 0.01);
    }

    #[test]
    fn it_fades_until_it_is_unknown_again() {
        let latency = Latency::default().measured(64, 1000);
        let at = |ticks: u64| units(latency, 1000 + ticks);
        assert_eq!([at(0), at(3)].map(f64::round), [64.0, 64.0]);
        assert_eq!([at(4), at(8), at(12)].map(f64::round), [32.0, 16.0, 8.0]);
        assert_eq!(at(1000), 0.0);
        assert_eq!(latency.faded(999), latency.faded(1000), "a clock that is behind");
    }

    #[test]
    fn what_is_old_weighs_little_beside_what_is_new() {
        let slow = Latency::default().measured(6400, 1000);
        let recovered = slow.measured(64, 1000 + 5 * HALF_LIFE);
        assert!(units(recovered, 1020) < 300.0, "{}", units(recovered, 1020));
        let once_more = recovered.measured(64, 1020 + 2 * HALF_LIFE);
        assert!(units(once_more, 1028) < 125.0, "{}", units(once_more, 1028));
    }

    #[test]
    fn less_than_a_unit_is_known() {
        let mut latency = Latency::default();
        for _ in 0..100 {
            latency = latency.measured(0, 5);
        }
        assert!(latency.faded(5) > 0);
    }

    #[test]
    fn clocks_wrap() {
        let before = Latency::default().measured(10, u64::from(u32::MAX));
        assert!(units(before, u64::from(u32::MAX) + 1) > 9.0);
        assert_eq!(moment(UNIT * 0x1_0005), 5);
    }

    #[test]
    fn magnitudes_are_bounded_by_powers_of_two() {
        for units in 0..=u16::MAX {
            let at = magnitude(units);
            let below = |magnitude| {
                ConnectTimes::bound(magnitude).is_none_or(|bound| u64::from(units) * UNIT < bound)
            };
            assert!(below(at) && (at == 0 || !below(at - 1)), "{units}: {at}");
        }
    }
}
