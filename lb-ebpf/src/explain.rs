//! Where a packet would go, by the very steps that packets take, and without side effects.

use lb_common::address::{Address, Be16, Protocol};
use lb_common::flow::{Key, State};
use lb_common::service::{OnNoBackend, Options, Service, Table};

use crate::affinity;
use crate::classify::{self, Found};
use crate::exceptions;
use crate::family::{Family, Ipv4, Ipv6};
use crate::flows::{self, Lookup};
use crate::select;
use crate::tables::Tables;

/// Why a packet goes where it goes. Identifiers are those of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Explanation {
    /// To no service.
    NoService,
    /// Its service has no backend that takes new flows.
    NoBackend(OnNoBackend),
    /// Its service's table names a row that is no serving backend of it: the packet would be dropped as
    /// [`Reason::DropInternal`](lb_common::reason::Reason::DropInternal). Must not happen.
    Contradiction,
    /// It belongs to a flow with a backend.
    Flow {
        /// The backend.
        backend: u16,
        /// The flow's state.
        state: State,
    },
    /// It would open a flow: the backend that the client's flows before it went to.
    Affinity {
        /// The backend.
        backend: u16,
    },
    /// It would open a flow: the backend of its slot.
    Slot {
        /// The backend.
        backend: u16,
        /// The slot.
        slot: u32,
    },
    /// It would open a flow, and more than the packet decides to which backend: one of those in this table.
    Candidates(Table),
}

/// Explains a packet from `client` to `vip`; both of one family.
pub fn explain<T: Tables>(
    tables: &T,
    protocol: Protocol,
    client: (Address, Be16),
    vip: (Address, Be16),
) -> Explanation {
    if vip.0.is_v4() {
        family::<Ipv4, T>(
            tables,
            protocol,
            (Ipv4::narrow(&client.0), client.1),
            (Ipv4::narrow(&vip.0), vip.1),
        )
    } else {
        family::<Ipv6, T>(tables, protocol, client, vip)
    }
}

fn family<A: Family, T: Tables>(
    tables: &T,
    protocol: Protocol,
    client: (A::Address, Be16),
    vip: (A::Address, Be16),
) -> Explanation {
    let Some(service) = classify::service::<A, T>(tables, vip.0, vip.1, protocol) else {
        return Explanation::NoService;
    };
    if Options(service.row.options.load()).has(Options::EXCEPTIONS) {
        return by_exception::<A, T>(tables, client, &service);
    }
    flow::<A, T>(tables, client, service.id).unwrap_or_else(|| {
        let table = Table(service.row.table.load());
        if table.slots() == 0 {
            return Explanation::NoBackend(table.on_no_backend());
        }
        if let Some(backend) = affinity::known::<A, T>(tables, &service, client.0) {
            return Explanation::Affinity { backend };
        }
        if !table.index().is_hash() {
            return Explanation::Candidates(table);
        }
        match select::computed::<A, T>(tables, &service, client.0, client.1) {
            Some((backend, slot)) => Explanation::Slot { backend: backend.id, slot },
            None => Explanation::Contradiction,
        }
    })
}

/// Where flows are tracked by exception: the flow's answer if its slot is one to ask for and there is one, else the
/// slot's for a packet that opens a flow.
fn by_exception<A: Family, T: Tables>(
    tables: &T,
    client: (A::Address, Be16),
    service: &Found<'_, Service>,
) -> Explanation {
    let table = Table(service.row.table.load());
    if table.slots() == 0 {
        return Explanation::NoBackend(table.on_no_backend());
    }
    let Some(slot) = exceptions::slot::<A, T>(tables, service.row, table, client) else {
        return Explanation::NoService;
    };
    if slot.owners.look_up
        && let Some(flow) = flow::<A, T>(tables, client, service.id)
    {
        return flow;
    }
    match slot.owners.current {
        0 => Explanation::NoBackend(table.on_no_backend()),
        backend => Explanation::Slot { backend, slot: slot.number },
    }
}

/// The flow's answer, if there is a flow whose backend still serves.
fn flow<A: Family, T: Tables>(tables: &T, client: (A::Address, Be16), service: u16) -> Option<Explanation> {
    let key = A::key(client.0, client.1, service);
    let hash = key.hash(tables.settings().flow_key);
    let Lookup::Hit(_, data) = flows::look_up::<A, T>(tables, hash, key)? else { return None };
    let row = tables.backend(data.backend())?;
    (row.service == service && row.is_serving())
        .then_some(Explanation::Flow { backend: data.backend(), state: data.state() })
}
