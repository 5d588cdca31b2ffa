//! Client affinity: all flows of a client to a service go to the backend that the last of them went to.
//!
//! What is remembered of a client is an entry of the flow table like any other, in the state [`State::AFFINITY`], with
//! port 0 and the service's identifier [marked](AFFINITY_OF): no flow's key. It is no flow either: it counts as no
//! connection, gives way to whatever a half-open entry gives way to, and the sweep frees it when the client has opened no flow
//! for as long as the service says. It is looked up when a flow opens and at no other time, so that packets of flows that are
//! known do not pay for it.

use lb_common::address::Be16;
use lb_common::flow::{AFFINITY_OF, Data, Key, State};
use lb_common::reason::Event;
use lb_common::service::{Options, Service, Table};

use crate::classify::Found;
use crate::family::Family;
use crate::flows::{self, Insertion, Lookup};
use crate::open::Opening;
use crate::select;
use crate::tables::Tables;

/// The backend that a client's new flow goes to because of those before it, or that those after it will go to; 0 where
/// there is none, and the strategy alone decides.
///
/// Also where it finds nobody to remember it chooses, so that of two flows that open at once on two CPUs neither goes
/// its own way: who comes second follows the entry of who came first.
#[inline(always)]
pub fn prefer<A: Family, T: Tables>(tables: &T, opening: &Opening<A>) -> u64 {
    let &Opening { client, port, service: id, facts, .. } = opening;
    let Some(row) = tables.service(id) else { return 0 };
    let options = Options(row.options.load());
    if !options.has(Options::AFFINITY) || !A::is_unicast(client) || !facts.follows_affinity(options) {
        return 0;
    }
    let now = flows::now(tables, tables.settings());
    match look_up::<A, T>(tables, client, id) {
        Some(Lookup::Hit(entry, data)) => {
            let holds = data.age(now) <= options.affinity() && takes_flows(tables, id, data);
            let next = if holds { data.stamped(now) } else { data.freed() };
            // Where this swap loses, another flow of the client has just stamped it, or found it to hold no more.
            entry.data.replace(data.0, next.0);
            if holds {
                return data.backend() as u64;
            }
        }
        Some(_) => {}
        None => return 0,
    }
    let table = Table(row.table.load());
    let choice = select::choose::<A, T>(tables, &Found { id, row }, table, (client, port));
    if !choice.is_backend() {
        return 0;
    }
    remember::<A, T>(tables, (client, id), choice.backend(), now) as u64
}

/// The backend that a client's next flow would go to, if that is known. No side effects.
#[inline(always)]
pub fn known<A: Family, T: Tables>(
    tables: &T,
    service: &Found<'_, Service>,
    client: A::Address,
) -> Option<u16> {
    let options = Options(service.row.options.load());
    if !options.has(Options::AFFINITY) {
        return None;
    }
    let Lookup::Hit(_, data) = look_up::<A, T>(tables, client, service.id)? else { return None };
    let now = flows::now(tables, tables.settings());
    (data.age(now) <= options.affinity() && takes_flows(tables, service.id, data)).then_some(data.backend())
}

#[inline(always)]
fn look_up<A: Family, T: Tables>(tables: &T, client: A::Address, service: u16) -> Option<Lookup<'_, A::Key>> {
    let key = A::key(client, Be16(0), service | AFFINITY_OF);
    flows::look_up::<A, T>(tables, key.hash(tables.settings().flow_key), key)
}

/// Remembers where a client goes. Returns where it goes: another CPU may have remembered another.
#[inline(always)]
fn remember<A: Family, T: Tables>(
    tables: &T,
    (client, service): (A::Address, u16),
    backend: u16,
    now: u64,
) -> u16 {
    let key = A::key(client, Be16(0), service | AFFINITY_OF);
    let hash = key.hash(tables.settings().flow_key);
    let fresh = Data::fresh(State::AFFINITY, backend, now);
    let evicted = |victim: Data| {
        flows::count(tables, Event::FlowEvicted);
        flows::account_here(tables, victim, victim.freed());
    };
    match flows::insert::<A, T>(tables, hash, key, fresh, now, evicted) {
        Some(Insertion::Exists(data)) if takes_flows(tables, service, data) => data.backend(),
        Some(Insertion::Refused) => {
            flows::count(tables, Event::AffinityUntracked);
            backend
        }
        _ => backend,
    }
}

/// Whether the backend of an entry is the service's and takes new flows: one that drains does not.
#[inline(always)]
fn takes_flows<T: Tables>(tables: &T, service: u16, data: Data) -> bool {
    tables
        .backend(data.backend())
        .is_some_and(|row| row.service == service && row.is_serving() && row.weight() > 0)
}
