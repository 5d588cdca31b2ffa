//! Which system settings are what they are because of us, and what they were.
//!
//! A pinned map remembers, as it does for addresses: it outlives the agent, and goes with the machine's settings when
//! that boots.

use std::path::Path;

use anyhow::{Context as _, ensure};
use aya::maps::{HashMap, Map, MapData};

/// Name of the map that remembers: setting to values. No program uses it.
pub(in crate::datapath) const CHANGED: &str = "CHANGED_SETTINGS";

/// Settings that are remembered at most: a few for each interface.
const CAPACITY: u32 = 65_536;
/// `BPF_F_NO_PREALLOC` of linux/bpf.h: memory for what is there, not for what may be.
const NO_PREALLOC: u32 = 1;
/// Bytes of a setting's name. The longest is `ipv6/conf/<interface>/forwarding`, with 15 bytes of an interface's name.
const NAME: usize = 64;

/// What a setting was, and what it was set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) before: u32,
    pub(super) after: u32,
}

/// Remembers changes of settings, which are named by their path below `/proc/sys/net`.
pub(super) trait Ledger {
    /// Enters a change, in place of an earlier one of the same setting.
    fn enter(&mut self, setting: &str, change: Change) -> anyhow::Result<()>;
    /// All changes.
    fn changes(&self) -> anyhow::Result<Vec<(String, Change)>>;
    /// Strikes a change out.
    fn strike(&mut self, setting: &str) -> anyhow::Result<()>;
}

/// The pinned map.
pub(super) struct Pinned(HashMap<MapData, [u8; NAME], [u32; 2]>);

impl Pinned {
    /// Takes over what is remembered under `pin_dir`, or begins to remember.
    pub(super) fn open(pin_dir: &Path) -> anyhow::Result<Self> {
        let path = pin_dir.join(CHANGED);
        if !path.exists() {
            HashMap::<MapData, [u8; NAME], [u32; 2]>::create(CAPACITY, NO_PREALLOC)
                .map_err(anyhow::Error::from)
                .and_then(|map| Ok(map.pin(&path)?))
                .with_context(|| format!("cannot create {}", path.display()))?;
        }
        Self::recall(&path)
    }

    /// What is remembered under `pin_dir`, if anything ever was.
    pub(super) fn existing(pin_dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = pin_dir.join(CHANGED);
        path.exists().then(|| Self::recall(&path)).transpose()
    }

    fn recall(path: &Path) -> anyhow::Result<Self> {
        let open = || anyhow::Ok(Map::from_map_data(MapData::from_pin(path)?)?.try_into()?);
        Ok(Self(open().with_context(|| format!("cannot open {}", path.display()))?))
    }
}

impl Ledger for Pinned {
    fn enter(&mut self, setting: &str, change: Change) -> anyhow::Result<()> {
        self.0
            .insert(to_key(setting)?, [change.before, change.after], 0)
            .with_context(|| format!("cannot remember what {setting} was"))
    }

    fn changes(&self) -> anyhow::Result<Vec<(String, Change)>> {
        let read = |entry: Result<([u8; NAME], [u32; 2]), _>| {
            let (key, [before, after]) = entry.context("cannot read the changed settings")?;
            Ok((to_name(&key), Change { before, after }))
        };
        self.0.iter().map(read).collect()
    }

    fn strike(&mut self, setting: &str) -> anyhow::Result<()> {
        self.0.remove(&to_key(setting)?).with_context(|| format!("cannot forget what {setting} was"))
    }
}

fn to_key(setting: &str) -> anyhow::Result<[u8; NAME]> {
    ensure!(setting.len() <= NAME, "setting {setting} has a longer name than any that there is");
    let mut key = [0; NAME];
    key[..setting.len()].copy_from_slice(setting.as_bytes());
    Ok(key)
}

fn to_name(key: &[u8; NAME]) -> String {
    let end = key.iter().position(|&byte| byte == 0).unwrap_or(NAME);
    String::from_utf8_lossy(&key[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_setting_comes_back() {
        let setting = "ipv6/conf/fifteen-letters/forwarding";
        assert_eq!(to_name(&to_key(setting).unwrap()), setting);
        assert!(to_key(&"x".repeat(NAME + 1)).is_err());
    }
}
