//! The way of a reply: find the flow it belongs to, put the virtual address back, send it to the client.

use lb_common::address::{Address, Be16};
use lb_common::backend::{Backend, MAX_SIBLINGS};
use lb_common::flow::{Data, Entry, Key, State};
use lb_common::reason::Reason;
use lb_common::settings::Settings;

use crate::classify::Found;
use crate::exceptions;
use crate::family::{CLIENT_TAG, Family};
use crate::flows::{self, Lookup};
use crate::frame::Frame;
use crate::next_hops::{self, Way};
use crate::parse::Packet;
use crate::reject::{self, Rejection};
use crate::retry;
use crate::select;
use crate::send::send;
use crate::tables::{RouteQuery, Tables};
use crate::tcp;
use crate::translate::Translation;
use crate::verdict::{Stage, Step, Verdict};

/// The flow behind a packet from a backend.
pub struct Owner<'a, K: Key> {
    /// The backend, as the service's that the flow goes to.
    pub backend: Found<'a, Backend>,
    /// The flow's entry; none where it went untracked.
    pub entry: Option<(&'a Entry<K>, Data)>,
}

/// Sends a backend's packet to its client.
#[inline(always)]
pub fn forward<A: Family, F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    settings: &Settings,
    packet: &Packet<A>,
    first: Found<'_, Backend>,
) -> Step<Verdict> {
    let client = (packet.ip.destination, packet.destination_port);
    let owner = if first.row.is_by_exception() {
        exceptions::owns_by_slot::<A, T>(tables, &first, client)?;
        Owner { backend: first, entry: None }
    } else {
        owner::<A, T>(tables, settings, first.id, client)
            .ok_or(without_flow(packet, Reason::PassReplyWithoutFlow))?
    };
    if let Some((_, data)) = owner.entry {
        check_reset(tables, packet, owner.backend.row, data)?;
    }
    send_from(frame, tables, settings, packet, &owner)
}

/// What becomes of a packet whose backend has no flow with its client: it passes, but where it may be from a backend that the
/// flow has left.
#[inline(always)]
pub fn without_flow<A: Family>(packet: &Packet<A>, passes: Reason) -> Verdict {
    if packet.segment.is_syn_ack() || packet.segment.is_reset() {
        Verdict::Defer(Stage::Retry)
    } else {
        Verdict::Pass(passes)
    }
}

/// Defers a reset of a flow that nobody has answered, where such flows are retried.
#[inline(always)]
pub fn check_reset<A: Family, T: Tables>(
    tables: &T,
    packet: &Packet<A>,
    backend: &Backend,
    data: Data,
) -> Step<()> {
    if packet.segment.is_reset() && data.state() == State::HALF_OPEN && retry::retries(tables, backend) {
        return Err(Verdict::Defer(Stage::Retry));
    }
    Ok(())
}

/// Sends a backend's packet to its client where the slot alone does not say whether there is a flow.
#[inline(always)]
pub fn forward_exception<A: Family, F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    settings: &Settings,
    packet: &Packet<A>,
    backend: Found<'_, Backend>,
) -> Step<Verdict> {
    exceptions::owns(tables, settings, packet, &backend)?;
    send_from(frame, tables, settings, packet, &Owner { backend, entry: None })
}

#[inline(always)]
fn send_from<A: Family, F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    settings: &Settings,
    packet: &Packet<A>,
    owner: &Owner<'_, A::Key>,
) -> Step<Verdict> {
    if packet.ip.hop_limit <= 1 {
        return Err(reject::with(tables, Rejection::TimeExceeded));
    }
    let now = flows::now(tables, settings);
    if packet.has_transport
        && let Some((entry, data)) = owner.entry
        && let Some((before, after)) =
            flows::update(entry, data, |data| tcp::after_reply(data, packet.segment, now))
    {
        flows::account_reply(tables, before, after, packet.segment);
    }
    let translation = Translation::from_backend(owner.backend.row);
    let way = to_client::<A, F, T>(frame, tables, settings, owner, packet.ip.destination);
    if let Some(traffic) = tables.traffic(owner.backend.id) {
        traffic.tx_packets.count(1);
        traffic.tx_bytes.count(packet.ip.length as u64);
    }
    send(frame, tables, packet, &way, &translation, Reason::ReplyForwarded)
}

/// The way to a flow's client: by the next hop that its entry remembers.
#[inline(always)]
pub fn to_client<A: Family, F: Frame, T: Tables>(
    frame: &F,
    tables: &T,
    settings: &Settings,
    owner: &Owner<'_, A::Key>,
    client: A::Address,
) -> Way {
    let query = || RouteQuery {
        ingress: frame.ingress(),
        source: owner.backend.row.vip,
        destination: A::widen(client),
    };
    // A flow without an entry: the next hop is remembered for the client itself.
    let reference = match owner.entry {
        Some((_, data)) => data.next_hop(),
        None => remembered::<A, T>(tables, settings, client),
    };
    let way = next_hops::resolve(tables, settings, reference, query);
    if way.reference != reference {
        if let Some((entry, data)) = owner.entry {
            let now = Data(entry.data.load());
            if now.generation() == data.generation() {
                flows::update(entry, now, |data| data.by_next_hop(way.reference));
            }
        } else {
            let Address([head, tail]) = A::widen(client);
            remember::<A, T>(tables, head, tail, way.reference as u64);
        }
    }
    way
}

/// The next hop that is remembered for a client; 0 for none.
#[inline(always)]
fn remembered<A: Family, T: Tables>(tables: &T, settings: &Settings, client: A::Address) -> u16 {
    let (hash, tag) = A::client_hop(client, settings.flow_key);
    match tables.client_hop(hash as u32).map(|word| word.load()) {
        Some(word) if word & CLIENT_TAG == tag => (word & !CLIENT_TAG) as u16,
        _ => 0,
    }
}

/// Remembers a next hop for a client. A function of its own in the kernel too: rare, and where it were inlined, what it needs
/// would be kept on a stack that is nearly full.
#[inline(never)]
fn remember<A: Family, T: Tables>(tables: &T, head: u64, tail: u64, reference: u64) {
    let client = A::narrow(&Address([head, tail]));
    let (hash, tag) = A::client_hop(client, tables.settings().flow_key);
    if let Some(word) = tables.client_hop(hash as u32) {
        word.store(tag | reference);
    }
}

/// Which of the services that an endpoint serves a client's flow goes to: the one whose flow names this very backend.
#[inline(always)]
pub fn owner<'a, A: Family, T: Tables>(
    tables: &'a T,
    settings: &Settings,
    first: u16,
    client: (A::Address, Be16),
) -> Option<Owner<'a, A::Key>> {
    let row = tables.backend(first)?;
    if row.is_by_exception() {
        let service = Found { id: row.service, row: tables.service(row.service)? };
        let backend =
            exceptions::known::<A, T>(tables, &service, client).filter(|backend| backend.id == first)?;
        return Some(Owner { backend, entry: None });
    }
    let mut id = first;
    for _ in 0..MAX_SIBLINGS {
        let row = tables.backend(id)?;
        let key = A::key(client.0, client.1, row.service);
        match flows::look_up::<A, T>(tables, key.hash(settings.flow_key), key)? {
            Lookup::Hit(entry, data) if data.backend() == id => {
                return Some(Owner { backend: Found { id, row }, entry: Some((entry, data)) });
            }
            Lookup::Untracked if selects::<A, T>(tables, row.service, client, id) => {
                return Some(Owner { backend: Found { id, row }, entry: None });
            }
            _ => {}
        }
        id = row.sibling();
        if id == 0 {
            return None;
        }
    }
    None
}

/// Whether an untracked flow of this client would go to this backend.
#[inline(always)]
fn selects<A: Family, T: Tables>(tables: &T, service: u16, client: (A::Address, Be16), backend: u16) -> bool {
    let Some(row) = tables.service(service) else { return false };
    let service = Found { id: service, row };
    select::computed::<A, T>(tables, &service, client.0, client.1)
        .is_some_and(|(chosen, _)| chosen.id == backend)
}
