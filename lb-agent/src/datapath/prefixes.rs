//! The services' prefix lists in the kernel's trie: each a row of keys under the service's row and a generation.
//!
//! A list is never changed. Another is written under a generation that no packet asks for, the service's options switch to
//! it by one word, and after a grace period the old one is erased: a packet sees one or the other, whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use aya::maps::MapData;
use aya::maps::lpm_trie::{Key, LpmTrie};
use lb_common::Address;
use lb_common::prefix::{ALLOW, DENY, LIST_BITS, PrefixKey};

use crate::model::{Guard, Prefix};

/// A list: bits of an address, the address, and the verdict.
pub(crate) type List = BTreeMap<(u32, [u32; 4]), u32>;
/// Every list that there is, by the service's row and its generation.
pub(crate) type Lists = BTreeMap<(u16, u16), Arc<List>>;

/// What a guard's prefixes are in the trie.
pub(crate) fn list(guard: &Guard) -> List {
    let of = |prefixes: &std::collections::BTreeSet<Prefix>, verdict| -> Vec<_> {
        prefixes.iter().map(|prefix| (key(*prefix), verdict)).collect()
    };
    of(&guard.allow, ALLOW).into_iter().chain(of(&guard.deny, DENY)).collect()
}

fn key(prefix: Prefix) -> (u32, [u32; 4]) {
    let before = if prefix.network().is_ipv4() { 96 } else { 0 };
    let network = Address::from(prefix.network());
    (before + u32::from(prefix.length()), PrefixKey::new(0, 0, &network).address)
}

/// The trie, and what this agent knows to be in it.
pub(super) struct Trie {
    map: LpmTrie<MapData, PrefixKey, u32>,
    pub(super) lists: Lists,
}

impl Trie {
    /// Reads what an agent before has left.
    pub(super) fn open(map: LpmTrie<MapData, PrefixKey, u32>) -> anyhow::Result<Self> {
        let mut lists: BTreeMap<(u16, u16), List> = BTreeMap::new();
        for entry in map.iter() {
            let (key, verdict) = entry.context("cannot read PREFIXES")?;
            let (bits, prefix) = (key.prefix_len().saturating_sub(LIST_BITS), key.data());
            let list = lists.entry((prefix.service(), prefix.generation())).or_default();
            list.insert((bits, prefix.address), verdict);
        }
        let lists = lists.into_iter().map(|(at, list)| (at, Arc::new(list))).collect();
        Ok(Self { map, lists })
    }

    /// Writes a list that no packet asks for yet.
    pub(super) fn write(&mut self, service: u16, generation: u16, list: &Arc<List>) -> anyhow::Result<()> {
        // Entered first: what is written before a failure is erased by the next plan.
        self.lists.insert((service, generation), Arc::clone(list));
        for ((bits, address), verdict) in &**list {
            let key = entry_key(service, generation, *bits, *address);
            self.map.insert(&key, verdict, 0).context("cannot write PREFIXES")?;
        }
        Ok(())
    }

    /// Erases a list that no packet asks for any more.
    pub(super) fn erase(&mut self, service: u16, generation: u16) -> anyhow::Result<()> {
        let Some(list) = self.lists.get(&(service, generation)) else { return Ok(()) };
        for (bits, address) in list.keys() {
            match self.map.remove(&entry_key(service, generation, *bits, *address)) {
                Ok(()) | Err(aya::maps::MapError::KeyNotFound) => {}
                Err(aya::maps::MapError::SyscallError(error))
                    if error.io_error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).context("cannot erase from PREFIXES"),
            }
        }
        self.lists.remove(&(service, generation));
        Ok(())
    }
}

fn entry_key(service: u16, generation: u16, bits: u32, address: [u32; 4]) -> Key<PrefixKey> {
    let prefix = PrefixKey { address, ..PrefixKey::new(service, generation, &Address::default()) };
    Key::new(LIST_BITS + bits, prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_s_prefixes_are_keys_behind_the_list() {
        let guard = Guard {
            allow: ["10.0.0.0/8", "fd00::/16"].map(|text| text.parse().unwrap()).into(),
            deny: ["10.1.2.3"].map(|text| text.parse().unwrap()).into(),
            ..Guard::default()
        };
        let list = list(&guard);
        let verdicts: Vec<_> = list.iter().map(|((bits, _), verdict)| (*bits, *verdict)).collect();
        assert_eq!(verdicts, [(16, ALLOW), (104, ALLOW), (128, DENY)]);
    }
}
