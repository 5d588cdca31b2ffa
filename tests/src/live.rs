//! Rows of a running data plane, read from its pins while agent and packets use them.

use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::MapData;
use lb_common::backend::{Backend, IN_USE};
use lb_common::maps;
use lb_common::service::{Service, Table};
use lb_common::slot::{SLOTS_PER_LINE, SlotLine};

use crate::object::Mapping;

/// Services, backends and slots.
pub struct LiveRows {
    services: Mapping<Service>,
    backends: Mapping<Backend>,
    slots: Mapping<SlotLine>,
}

impl LiveRows {
    /// Maps what is pinned in a directory.
    ///
    /// # Errors
    /// When it is not there, or not mappable.
    pub fn open(pin_dir: &Path) -> Result<Self> {
        // SAFETY: the rows that `lb-common` lays out for these maps.
        unsafe {
            Ok(Self {
                services: open(pin_dir, maps::SERVICES)?,
                backends: open(pin_dir, maps::BACKENDS)?,
                slots: open(pin_dir, maps::SLOTS)?,
            })
        }
    }

    /// Services and backends that are in use.
    #[must_use]
    pub fn in_use(&self) -> (usize, usize) {
        let services = self.services.iter().filter(|row| row.live == 1).count();
        let backends = self.backends.iter().filter(|row| row.state.load() & IN_USE != 0).count();
        (services, backends)
    }

    /// The first slot that leads nowhere: of a service's table, to a backend that is not that service's or not in use.
    /// For services that remember all flows.
    #[must_use]
    pub fn contradiction(&self) -> Option<String> {
        (0..).zip(self.services.iter()).find_map(|(id, service)| self.contradiction_of(id, service))
    }

    fn contradiction_of(&self, id: u16, service: &Service) -> Option<String> {
        let word = service.table.load();
        let table = Table(word);
        (0..table.slots()).find_map(|slot| {
            let line = self.slots.get((table.line() + slot / SLOTS_PER_LINE) as usize)?;
            let owner = &line.backends[(slot % SLOTS_PER_LINE) as usize];
            // SAFETY: a reference; volatile, since the agent may be writing another table there by now.
            let backend = unsafe { std::ptr::read_volatile(owner) };
            let row = self.backends.get(usize::from(backend))?;
            // SAFETY: as above.
            let of = unsafe { std::ptr::read_volatile(&raw const row.service) };
            let is_sound = of == id && row.state.load() & IN_USE != 0;
            // Packets are waited for before a table's place is used again; whoever reads without being one looks again.
            let is_current = service.table.load() == word;
            (!is_sound && is_current).then(|| {
                format!(
                    "service {id}, slot {slot} of {}: backend {backend} is of service {of}",
                    table.slots()
                )
            })
        })
    }
}

/// # Safety
///
/// As [`Mapping::map`].
unsafe fn open<T>(pin_dir: &Path, name: &str) -> Result<Mapping<T>> {
    let path = pin_dir.join(name);
    let map = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let rows = map.info()?.max_entries();
    // SAFETY: the caller's promise.
    unsafe { Mapping::map(map.fd(), rows) }
}
