//! Takes everything down, with or without an agent that ever ran since the machine booted.

use std::net::IpAddr;
use std::path::Path;

use aya::maps::MapInfo;
use lb_common::maps;

use super::pins::{PinDir, unpin, unpin_all};
use super::{sysctl, vip};

/// What was taken down.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Detached {
    /// Interfaces that ran the program.
    pub links: Vec<String>,
    /// Generations of the program.
    pub programs: Vec<String>,
    /// Maps.
    pub maps: Vec<String>,
    /// Addresses that this host had because of its services.
    pub addresses: Vec<IpAddr>,
    /// System settings that are what they were before, as sysctl(8) writes them. What somebody else has changed since is left alone.
    pub settings: Vec<String>,
}

impl Detached {
    /// Whether there was nothing to take down.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Takes down what is pinned in `pin_dir`. Nothing there is not an error.
///
/// # Errors
///
/// Where an agent is using the directory, or the kernel refuses something; calling again goes on from there.
pub fn detach(pin_dir: &Path) -> anyhow::Result<Detached> {
    match PinDir::existing(pin_dir)? {
        Some(pins) => take_down(pins),
        None => Ok(Detached::default()),
    }
}

/// Addresses first, so that no new client comes; then the program, then the settings that it needs, then what it works on.
fn take_down(pins: PinDir) -> anyhow::Result<Detached> {
    let mut detached =
        Detached { addresses: vip::remove_all(pins.path())?.into_iter().collect(), ..Detached::default() };
    for interface in pins.linked()? {
        unpin(&pins.link(&interface))?;
        detached.links.push(interface);
    }
    for number in pins.generations()? {
        unpin_all(&pins.generation(number))?;
        detached.programs.push(format!("program-{number}"));
    }
    detached.settings = sysctl::restore_all(pins.path())?;
    for name in maps::PINNED.into_iter().chain([vip::ADDED, sysctl::CHANGED]) {
        let path = pins.map(name);
        if MapInfo::from_pin(&path).is_ok() {
            unpin(&path)?;
            detached.maps.push(name.to_owned());
        }
    }
    pins.remove()?;
    Ok(detached)
}
