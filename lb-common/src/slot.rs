//! The slot array: every service's table, two bytes a slot, or four where flows are tracked by exception.

use crate::abi::row;

/// Elements of a line. A BPF array rounds its elements up to eight bytes, so slots are kept by the cache line.
pub const SLOTS_PER_LINE: u32 = 32;
/// Slots of a line where each is an [`Owners`] pair.
pub const PAIRS_PER_LINE: u32 = SLOTS_PER_LINE / 2;

/// 32 slots. A slot is a backend's identifier; 0 is nobody's and never in a table that a service names. Where flows
/// are tracked by exception, 16 slots: pairs of elements, an [`Owners`] each, and current owners may be 0.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotLine {
    /// Backend identifiers.
    pub backends: [u16; SLOTS_PER_LINE as usize],
}
row!(SlotLine, 64, { [u16; SLOTS_PER_LINE as usize] });

impl SlotLine {
    /// The pair of a slot. A line is not changed while a service names it, so the two loads see one pair.
    #[inline(always)]
    pub const fn owners(&self, slot: u32) -> Owners {
        let first = (slot % PAIRS_PER_LINE * 2) as usize;
        // The mask tells the compiler what it cannot see: that the index is in bounds.
        Owners::from_elements([self.backends[first], self.backends[(first + 1) % SLOTS_PER_LINE as usize]])
    }
}

/// Whom a slot belongs to, where flows are tracked by exception: whom it belonged to before it changed hands, and
/// whom it belongs to now.
///
/// A slot that has not changed for longer than any flow may be silent is *clean*: both are the same, and no flow needs
/// looking up. A slot that has changed sends unknown flows to its previous owner, since whatever began after the
/// change is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owners {
    /// Where flows go that no entry remembers: they began before the slot changed.
    pub base: u16,
    /// Where new flows go; 0 while no backend takes any.
    pub current: u16,
    /// Whether entries have to be asked first.
    pub look_up: bool,
}

/// The bit of the first element that says so: identifiers of backends are below it.
const LOOK_UP: u16 = 1 << 15;

/// Identifiers that fit beside the bit.
pub const MAX_BACKENDS: u32 = LOOK_UP as u32;

impl Owners {
    /// A slot that has always been this backend's.
    #[inline(always)]
    pub const fn clean(backend: u16) -> Self {
        Self { base: backend, current: backend, look_up: backend == 0 }
    }

    /// As the array has it.
    #[inline(always)]
    pub const fn to_elements(self) -> [u16; 2] {
        [if self.look_up { self.base | LOOK_UP } else { self.base }, self.current]
    }

    /// As the array says it.
    #[inline(always)]
    pub const fn from_elements(elements: [u16; 2]) -> Self {
        Self { base: elements[0] & !LOOK_UP, current: elements[1], look_up: elements[0] & LOOK_UP != 0 }
    }

    /// Given to another backend, or to none.
    ///
    /// The first change makes the owner until then the base. Later ones leave the base alone: flows that began in
    /// between have entries. So one previous owner is enough through any number of changes.
    pub const fn given_to(self, backend: u16) -> Self {
        let changed = backend != self.current;
        Self { current: backend, look_up: self.look_up || changed, ..self }
    }

    /// Without a base that differs: every flow from before the change has ended, or its backend has.
    pub const fn rebased(self) -> Self {
        Self { base: self.current, ..self }
    }

    /// Without the need to ask: no entry names another backend than this slot's.
    pub const fn settled(self) -> Self {
        Self { look_up: self.base != self.current || self.current == 0, ..self }
    }
}

/// Lines that a table of this many elements takes, its [members](members_line) included.
pub const fn lines(elements: u32) -> u32 {
    members_line(elements) + 1
}

/// The line of a table, counted from its first, that lists the backends in its slots: each once, up to a line of them,
/// then zeros. For who cannot take the backend of a slot and wants to know which others there are.
#[inline(always)]
pub const fn members_line(elements: u32) -> u32 {
    elements.div_ceil(SLOTS_PER_LINE)
}

/// The members' line of a table: where there are more backends than fit, some from all over them.
#[cfg(not(target_arch = "bpf"))]
pub fn members(slots: &[u16]) -> SlotLine {
    let all: Vec<u16> =
        slots.iter().copied().collect::<std::collections::BTreeSet<_>>().into_iter().collect();
    let room = SLOTS_PER_LINE as usize;
    let mut line = SlotLine::default();
    for (at, member) in line.backends.iter_mut().enumerate().take(all.len().min(room)) {
        *member = all[if all.len() > room { at * all.len() / room } else { at }];
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_survive_the_array() {
        for owners in [
            Owners::clean(7),
            Owners::clean(7).given_to(9),
            Owners::clean(0),
            Owners { base: 0x7fff, current: 0x7ffe, look_up: true },
        ] {
            assert_eq!(Owners::from_elements(owners.to_elements()), owners);
        }
        let mut line = SlotLine::default();
        [line.backends[30], line.backends[31]] = Owners::clean(3).given_to(4).to_elements();
        assert_eq!(line.owners(15 + 16), Owners { base: 3, current: 4, look_up: true });
    }

    #[test]
    fn the_first_owner_stays_the_base_through_later_changes() {
        let first = Owners::clean(1).given_to(2);
        assert_eq!(first, Owners { base: 1, current: 2, look_up: true });
        assert_eq!(first.given_to(3), Owners { base: 1, current: 3, look_up: true });
        assert_eq!(first.given_to(1), Owners { base: 1, current: 1, look_up: true }, "back, and still asked");
        assert_eq!(first.given_to(3).rebased(), Owners { base: 3, current: 3, look_up: true });
        assert_eq!(first.given_to(1).settled(), Owners::clean(1));
        assert_eq!(first.settled(), first, "not while the base differs");
        assert_eq!(Owners::clean(1).given_to(1), Owners::clean(1));
    }

    #[test]
    fn members_are_listed_once_and_many_are_sampled() {
        let few = members(&[3, 1, 3, 2, 1]).backends;
        assert_eq!((few[..3].to_vec(), few[3..].iter().any(|&id| id != 0)), (vec![1, 2, 3], false));
        let many: Vec<u16> = (1..=100).collect();
        let line = members(&many).backends;
        assert!(line.windows(2).all(|pair| pair[0] < pair[1]) && line[0] == 1 && line[31] > 90, "{line:?}");
        assert_eq!((members_line(64), lines(64), lines(65)), (2, 3, 4));
    }
}
