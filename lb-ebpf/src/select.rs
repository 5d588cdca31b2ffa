//! A new flow's backend: one slot of the service's table.

use lb_common::hash::scale;
use lb_common::service::{OnNoBackend, Service, Table};
use lb_common::slot::SLOTS_PER_LINE;

use crate::classify::Found;
use crate::family::Family;
use crate::tables::Tables;
use lb_common::address::Be16;
use lb_common::backend::Backend;

/// What a service's table says of a new flow.
pub enum Selection<'a> {
    /// This backend, by this slot.
    Backend(Found<'a, Backend>, u32),
    /// No backend takes traffic; the client meets this.
    NoBackend(OnNoBackend),
    /// The table names a backend that is not the service's. Must not happen.
    Contradiction,
}

/// Picks the backend of a client's new flow to a service.
#[inline(always)]
pub fn backend<'a, A: Family, T: Tables>(
    tables: &'a T,
    service: &Found<'_, Service>,
    client: A::Address,
    port: Be16,
) -> Selection<'a> {
    let table = Table(service.row.table.load());
    if table.slots() == 0 {
        return Selection::NoBackend(table.on_no_backend());
    }
    let slot = scale(A::slot_hash(client, port, service.row.seed), table.slots());
    let Some(line) = tables.slots(table.line().wrapping_add(slot / SLOTS_PER_LINE)) else {
        return Selection::Contradiction;
    };
    let id = line.backends[(slot % SLOTS_PER_LINE) as usize];
    match tables.backend(id) {
        Some(row) if row.service == service.id && row.is_serving() => {
            Selection::Backend(Found { id, row }, slot)
        }
        _ => Selection::Contradiction,
    }
}
