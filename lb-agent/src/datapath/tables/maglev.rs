//! Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4), weighted.
//!
//! Each member walks its own permutation of the slots and takes the next free one when it is its turn. Weights set
//! how often a turn comes, so shares are exact to one slot, and a member's loss disturbs the others only where
//! its slots are taken over.

use super::Member;

const OFFSET_KEY: u64 = u64::from_le_bytes(*b"offset\0\0");
const SKIP_KEY: u64 = u64::from_le_bytes(*b"skip\0\0\0\0");

/// One member's walk over the slots: `offset + n * skip`, modulo their number.
struct Walk {
    weight: u64,
    position: u32,
    skip: u32,
    turns: u64,
    id: u16,
}

/// Fills a table. The members have weight and stand in the order of their endpoints.
pub(super) fn build(members: &[Member], slots: u32) -> Vec<u16> {
    let mut walks: Vec<_> = members.iter().map(|member| Walk::new(member, slots)).collect();
    let heaviest = walks.iter().map(|walk| walk.weight).max().unwrap_or(1);
    // 0 is nobody's identifier: a free slot.
    let mut table = vec![0; slots as usize];
    let mut free = slots;
    for round in 1.. {
        for walk in &mut walks {
            if walk.turns >= round * walk.weight / heaviest {
                continue;
            }
            if free == 0 {
                return table;
            }
            walk.turns += 1;
            walk.take(&mut table);
            free -= 1;
        }
    }
    table
}

impl Walk {
    fn new(member: &Member, slots: u32) -> Self {
        let modulus = u64::from(slots);
        let position = (member.hash(OFFSET_KEY) % modulus) as u32;
        let mut skip = (1 + member.hash(SKIP_KEY) % modulus.saturating_sub(1).max(1)) as u32;
        // Every skip reaches every slot when their number is prime. It need not be.
        while greatest_common_divisor(skip, slots) != 1 {
            skip = skip % slots + 1;
        }
        Self { weight: u64::from(member.weight), position, skip, turns: 0, id: member.id }
    }

    /// Takes the next free slot of the walk. There is one.
    fn take(&mut self, table: &mut [u16]) {
        while table[self.position as usize] != 0 {
            self.advance(table.len());
        }
        table[self.position as usize] = self.id;
        self.advance(table.len());
    }

    fn advance(&mut self, slots: usize) {
        let next = self.position as usize + self.skip as usize;
        self.position = if next >= slots { next - slots } else { next } as u32;
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_reaches_every_slot_whatever_their_number() {
        let member = Member { address: Default::default(), port: Default::default(), weight: 1, id: 7 };
        for slots in [1, 2, 4, 6, 251, 256, 1000] {
            assert_eq!(build(&[member], slots), vec![7; slots as usize]);
        }
    }
}
