//! Another backend for a flow whose own refuses it or does not answer, before its client notices.
//!
//! * A backend's reset of a flow that nobody has answered is not passed on. The flow is given another backend, and the reset's
//!   frame becomes the client's SYN, written anew from what is [kept of it](lb_common::syn), on its way there.
//! * Where that cannot be (the row is another flow's, the options did not fit, the way is not known), the reset is dropped, and
//!   the SYN that the client sends again goes to the next backend.
//! * A SYN that comes again before any answer goes to another backend than before.
//! * A backend that its flow has left is told so by a reset when it answers after all.
//!
//! Each is a finding about the backend: see [`lb_common::suspicion`]. A flow is moved [three times](lb_common::syn::MAX_MOVES) at
//! most and never back; where no backend is left, its client gets the reset. The entry's one swap decides between CPUs.

use lb_common::address::{Be16, Protocol};
use lb_common::backend::{Backend, MAX_SIBLINGS};
use lb_common::checksum::fold;
use lb_common::flow::{Data, Entry, Key, State};
use lb_common::hash::scale;
use lb_common::reason::{Event, Reason};
use lb_common::service::{Options, Service, Table};
use lb_common::suspicion::Suspicion;
use lb_common::syn::{OPTIONS, Syn};

use crate::clash;
use crate::classify::{self, Found};
use crate::family::Family;
use crate::flows::{self, Lookup};
use crate::frame::{Fields, Frame};
use crate::link;
use crate::nat;
use crate::next_hops::{self, Kind};
use crate::open::{Facts, Opening};
use crate::parse::Packet;
use crate::reject::{self, Answering, Ends, Header, Rejection};
use crate::send::out;
use crate::tables::{RouteQuery, Tables};
use crate::verdict::{Stage, Step, Verdict};

/// Bytes of a TCP header without options.
const TCP_HEADER: usize = 20;
/// Data that a SYN may have brought and its reset acknowledges (RFC 7413): what fits into a packet.
const MAX_DATA: u32 = 1460;

/// What a SYN of a flow that nobody has answered is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    /// The same once more, by a duplicating path; or one that must not go elsewhere.
    Copy = 0,
    /// The first of another connection from the same port.
    Another = 1,
    /// The first that its backend is sent.
    First = 2,
    /// Its predecessor was not answered in time.
    Late = 3,
    /// The same, though nothing is known of the predecessor any more.
    Unknown = 4,
}

/// Defers a SYN of a flow that nobody has answered, where such flows are retried and it is more than a copy.
#[inline(always)]
pub fn check_syn<A: Family, T: Tables>(
    tables: &T,
    packet: &Packet<A>,
    service: &Found<'_, Service>,
    hash: u64,
    data: Data,
) -> Step<()> {
    if packet.segment.is_syn()
        && data.state() == State::HALF_OPEN
        && Options(service.row.options.load()).has(Options::RETRY)
        && again(tables, hash, packet.segment.sequence) != Again::Copy
    {
        return Err(Verdict::Defer(Stage::Retry));
    }
    Ok(())
}

/// What a SYN of a flow that nobody has answered is.
#[inline(always)]
fn again<T: Tables>(tables: &T, hash: u64, sequence: u32) -> Again {
    match standing(tables, hash, sequence as u64) {
        0 => Again::Copy,
        1 => Again::Another,
        2 => Again::First,
        3 => Again::Late,
        _ => Again::Unknown,
    }
}

/// A function of its own in the kernel too: rare, and its paths need not be multiplied by its caller's.
#[inline(never)]
fn standing<T: Tables>(tables: &T, hash: u64, sequence: u64) -> u32 {
    let Some(row) = tables.syn(hash as u32) else { return Again::Copy as u32 };
    let Some(syn) = row.read(hash) else { return Again::Unknown as u32 };
    let again = if syn.sequence as u64 != sequence {
        Again::Another
    } else if syn.is(Syn::UNSENT) {
        Again::First
    } else if (syn.age(tables.jiffies()) as u32) < tables.settings().jiffies_per_second / 4 || syn.may_join()
    {
        // Clients wait for a second (RFC 6298 section 2).
        Again::Copy
    } else {
        Again::Late
    };
    again as u32
}

/// Keeps a SYN that is on its way to its flow's backend.
#[inline(always)]
pub fn note<A: Family, F: Frame, T: Tables>(
    frame: &F,
    tables: &T,
    packet: &Packet<A>,
    hash: u64,
    keeps_tried: bool,
) {
    let place = (keeps_tried as u64) << 63 | (packet.ip.l3 as u64) << 32 | packet.ip.l4 as u64;
    write_row::<A, F, T>(frame, tables, hash, place);
}

/// A function of its own in the kernel too: what it needs would be kept on a stack that is nearly full.
#[inline(never)]
fn write_row<A: Family, F: Frame, T: Tables>(frame: &F, tables: &T, hash: u64, place: u64) {
    let (l3, l4) = ((place >> 32) as usize & 0xffff, place as usize & 0xffff);
    let Some(row) = tables.syn(hash as u32) else { return };
    let (Some(head), Some([hop_limit]), Some(header)) =
        (frame.read::<4>(l3), frame.read::<1>(l3 + A::HOP_LIMIT), frame.fields::<TCP_HEADER>(l4))
    else {
        return;
    };
    let mut syn = Syn {
        sequence: u32::from_be_bytes(header.get::<4, 4>()),
        head,
        hop_limit,
        offset_and_flags: header.get::<12, 2>(),
        window: header.get::<14, 2>(),
        sent: tables.jiffies() as u16,
        ..Syn::default()
    };
    if place >> 63 != 0 {
        syn.tried = row.read(hash).map_or(0, |known| known.tried);
    }
    // Longer ones do not fit, and the SYN is not written again.
    let length = syn.options_length();
    if length <= OPTIONS {
        syn.flags = Syn::COMPLETE;
        for at in 0..OPTIONS / 4 {
            let mut word = 0;
            if at * 4 < length {
                match frame.read::<4>(l4 + TCP_HEADER + at * 4) {
                    Some(bytes) => word = u32::from_le_bytes(bytes) as u64,
                    None => syn.flags = 0,
                }
            }
            // Whether it was read or not: the verifier need not follow both ways to the end.
            syn.options[at / 2] |= tables.blur(word) << (at % 2 * 32);
        }
    }
    row.write(hash, &syn);
}

/// Packets that may have to do with a flow that nobody has answered: SYNs that come again, resets, and what comes of a backend
/// that is not its flow's.
///
/// A stage of its own, since they are rare and this is long.
#[inline(always)]
pub fn handle<A: Family, F: Frame, T: Tables>(frame: &F, tables: &T, packet: &Packet<A>) -> Step<Verdict> {
    let ip = &packet.ip;
    let request = classify::service::<A, T>(tables, ip.destination, packet.destination_port, ip.protocol);
    let refused = request.is_none();
    let flow = match request {
        Some(service) => sent_again(frame, tables, packet, &service)?,
        None => refused_flow(tables, packet)?,
    };
    match move_on(tables, &flow, refused) {
        Outcome::Moved(id) if refused => {
            let pending = tables.icmp_budget().ok_or(Verdict::INTERNAL)?;
            pending.pending.store(id as u64);
            pending.pending_flow.store(flow.hash);
            Ok(Verdict::Defer(Stage::Resend))
        }
        Outcome::Overtaken if refused => Err(Verdict::Drop(Reason::DropResetStale)),
        // To where the flow's entry says, be it the next backend; a reset of a flow that is over, to its client.
        _ => Ok(Verdict::Defer(Stage::Slow)),
    }
}

/// The flow of a SYN that came again, if it is to be given another backend.
#[inline(always)]
fn sent_again<'a, A: Family, F: Frame, T: Tables>(
    frame: &F,
    tables: &'a T,
    packet: &Packet<A>,
    service: &Found<'_, Service>,
) -> Step<Flow<'a, A>> {
    const AS_IT_IS: Verdict = Verdict::Defer(Stage::Slow);
    let client = (packet.ip.source, packet.source_port);
    let key = A::key(client.0, client.1, service.id);
    let hash = key.hash(tables.settings().flow_key);
    let Lookup::Hit(entry, data) = flows::look_up::<A, T>(tables, hash, key).ok_or(Verdict::INTERNAL)? else {
        return Err(AS_IT_IS);
    };
    let again = again(tables, hash, packet.segment.sequence);
    if again == Again::Another || again == Again::First || again == Again::Unknown {
        note(frame, tables, packet, hash, again == Again::First);
    }
    if again != Again::Late && again != Again::Unknown {
        return Err(AS_IT_IS);
    }
    Ok(Flow { client, service: service.id, hash, entry, data, backend: data.backend() })
}

/// The flow that a backend's packet refuses.
#[inline(always)]
fn refused_flow<'a, A: Family, T: Tables>(tables: &'a T, packet: &Packet<A>) -> Step<Flow<'a, A>> {
    let flow = flow_of::<A, T>(tables, packet)?;
    if flow.data.backend() != flow.backend {
        return Err(reject::with(tables, Rejection::StaleSynAck));
    }
    if flow.data.state() != State::HALF_OPEN || !packet.segment.is_reset() {
        // Somebody has changed it meanwhile.
        return Err(Verdict::Defer(Stage::Slow));
    }
    let sequence = packet.segment.acknowledgement.wrapping_sub(1);
    if !packet.segment.is_acknowledging() || !acknowledges(tables, flow.hash, sequence as u64) {
        return Err(Verdict::Drop(Reason::DropResetStale));
    }
    Ok(flow)
}

/// Whether a reset is of the connection that is being opened; what is not known of that is noted.
#[inline(never)]
fn acknowledges<T: Tables>(tables: &T, hash: u64, sequence: u64) -> bool {
    let Some(row) = tables.syn(hash as u32) else { return false };
    match row.read(hash) {
        Some(syn) => (sequence as u32).wrapping_sub(syn.sequence) <= MAX_DATA,
        None => {
            row.write(hash, &Syn::unseen(sequence as u32));
            true
        }
    }
}

/// What came of the attempt to give a flow another backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It has this one.
    Moved(u16),
    /// There is no other. A flow that was refused is over.
    NoneLeft,
    /// Another CPU has changed the flow meanwhile.
    Overtaken,
}

/// Gives a flow that its backend has refused or not answered another one.
#[inline(always)]
fn move_on<A: Family, T: Tables>(tables: &T, flow: &Flow<'_, A>, refused: bool) -> Outcome {
    let &Flow { client: (client, port), service, hash, entry, data, .. } = flow;
    if data.state() != State::HALF_OPEN {
        return Outcome::Overtaken;
    }
    let current = data.backend();
    let next = match tried(tables, hash) {
        NO_MORE => 0,
        tried => {
            let opening = Opening { client, port, service, hash, facts: Facts(0) };
            A::next(tables, &opening, tried << 16 | current as u64)
        }
    };
    let now = flows::now(tables, tables.settings());
    let after = if next != 0 {
        data.with_backend(next).stamped(now)
    } else if refused {
        data.in_state(State::CLOSING).stamped(now)
    } else {
        data.stamped(now)
    };
    if after != data && !entry.data.replace(data.0, after.0) {
        return Outcome::Overtaken;
    }
    flows::account_here(tables, data, after);
    blame(tables, current as u64, refused);
    if next == 0 {
        return Outcome::NoneLeft;
    }
    flows::count(tables, Event::FlowRetried);
    left(tables, hash, (next as u64) << 16 | current as u64, refused);
    Outcome::Moved(next)
}

/// What [`tried`] says of a flow that is not to be given another backend.
const NO_MORE: u64 = u64::MAX;

/// The backends that a flow has left, 16 bits each.
#[inline(never)]
fn tried<T: Tables>(tables: &T, hash: u64) -> u64 {
    match tables.syn(hash as u32).and_then(|row| row.read(hash)) {
        Some(syn) if !syn.is_exhausted() && !syn.may_join() => syn.tried,
        _ => NO_MORE,
    }
}

/// Notes that a flow has left a backend for another, which is above it in `backends`.
#[inline(never)]
fn left<T: Tables>(tables: &T, hash: u64, backends: u64, refused: bool) {
    if let Some(load) = tables.load((backends >> 16) as u16) {
        load.retried.add(1);
    }
    let Some(row) = tables.syn(hash as u32) else { return };
    if let Some(syn) = row.read(hash) {
        let unsent = if refused { Syn::UNSENT } else { 0 };
        let flags = syn.flags & !Syn::UNSENT | unsent;
        row.write(hash, &Syn { flags, sent: tables.jiffies() as u16, ..syn.left(backends as u16) });
    }
}

/// Counts what a backend did to a flow, and may make it suspect.
#[inline(never)]
fn blame<T: Tables>(tables: &T, backend: u64, refused: bool) {
    let Some(load) = tables.load(backend as u16) else { return };
    let (jiffies, per_second) = (tables.jiffies(), tables.settings().jiffies_per_second);
    let word = Suspicion(load.suspicion.load());
    let next = if refused {
        load.refused.add(1);
        word.refused(jiffies, per_second)
    } else {
        load.unanswered.add(1);
        word.unanswered(jiffies, per_second)
    };
    if next != word {
        // Where another CPU was faster, its finding is as good.
        load.suspicion.replace(word.0, next.0);
    }
}

/// The backend that a flow may go to next: of those that take new flows and are not excluded, 16 bits each; 0 where there is none.
#[inline(always)]
pub fn next<A: Family, T: Tables>(tables: &T, flow: &Opening<A>, excluded: u64) -> u16 {
    let &Opening { client, port, service, hash, .. } = flow;
    let others = if tables.backend(excluded as u16).is_some_and(|row| row.is_shared()) {
        clash::others::<A, T>(tables, hash, A::key(client, port, service))
    } else {
        [0; 2]
    };
    let Some(row) = tables.service(service) else { return 0 };
    let slot = scale(A::slot_hash(client, port, row.seed), Table(row.table.load()).slots());
    clash::elsewhere(tables, (service as u64) << 32 | slot as u64, others, excluded) as u16
}

/// The flow behind a backend's packet, whichever backend it is on now.
struct Flow<'a, A: Family> {
    client: (A::Address, Be16),
    service: u16,
    hash: u64,
    entry: &'a Entry<A::Key>,
    data: Data,
    /// The row of the packet's source in that service.
    backend: u16,
}

#[inline(always)]
fn flow_of<'a, A: Family, T: Tables>(tables: &'a T, packet: &Packet<A>) -> Step<Flow<'a, A>> {
    let ip = &packet.ip;
    let first = classify::endpoint::<A, T>(tables, ip.source, packet.source_port, ip.protocol)
        .ok_or(Verdict::Pass(Reason::PassNotOurs))?;
    if first.row.is_behind_full_nat()
        && let Some(row) =
            nat::port_row::<A, T>(tables, tables.settings(), ip.destination, packet.destination_port)
    {
        return of_port(tables, row, &first).ok_or(Verdict::Pass(Reason::PassPoolWithoutFlow));
    }
    let client = (ip.destination, packet.destination_port);
    of_client::<A, T>(tables, client, first.id).ok_or(Verdict::Pass(Reason::PassReplyWithoutFlow))
}

/// The flow of a client to one of the services that an endpoint serves: the one on this endpoint, or else one that may have been.
#[inline(always)]
fn of_client<A: Family, T: Tables>(
    tables: &T,
    client: (A::Address, Be16),
    first: u16,
) -> Option<Flow<'_, A>> {
    let mut found = None;
    let mut id = first;
    for _ in 0..MAX_SIBLINGS {
        let row = tables.backend(id)?;
        let key = A::key(client.0, client.1, row.service);
        let hash = key.hash(tables.settings().flow_key);
        if retries(tables, row)
            && let Lookup::Hit(entry, data) = flows::look_up::<A, T>(tables, hash, key)?
        {
            found = Some(Flow { client, service: row.service, hash, entry, data, backend: id });
            if data.backend() == id {
                break;
            }
        }
        id = row.sibling();
        if id == 0 {
            break;
        }
    }
    found
}

/// The flow that has a port of a source pool.
#[inline(always)]
fn of_port<'a, A: Family, T: Tables>(
    tables: &'a T,
    row: u32,
    first: &Found<'_, Backend>,
) -> Option<Flow<'a, A>> {
    let holder = nat::holder::<A, T>(tables, tables.settings(), row)?;
    let service = holder.owner.service;
    let client = (A::narrow(&holder.owner.client), holder.owner.port);
    let hash = A::key(client.0, client.1, service).hash(tables.settings().flow_key);
    let mut id = first.id;
    for _ in 0..MAX_SIBLINGS {
        let row = tables.backend(id)?;
        if row.service == service {
            return retries(tables, row).then_some(Flow {
                client,
                service,
                hash,
                entry: holder.entry,
                data: holder.data,
                backend: id,
            });
        }
        id = row.sibling();
    }
    None
}

/// Whether flows of a backend's service are retried.
#[inline(always)]
pub fn retries<T: Tables>(tables: &T, backend: &Backend) -> bool {
    tables
        .service(backend.service)
        .is_some_and(|row| Options(row.options.load()).has(Options::RETRY) && !backend.is_by_exception())
}

/// Turns a reset's frame into the client's SYN, and sends it to the flow's new backend.
///
/// A stage of its own: what [`handle`] takes and what this takes is more than one program can hold.
#[inline(always)]
pub fn resend<A: Answering, F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    packet: &Packet<A>,
) -> Step<Verdict> {
    const CANNOT: Verdict = Verdict::Drop(Reason::DropRefused);
    let pending = tables.icmp_budget().ok_or(Verdict::INTERNAL)?;
    let (id, hash) = (pending.pending.load() as u16, pending.pending_flow.load());
    let backend = Found { id, row: tables.backend(id).ok_or(Verdict::INTERNAL)? };
    let row = tables.syn(hash as u32).ok_or(Verdict::INTERNAL)?;
    let syn = row.read(hash).filter(|syn| syn.is(Syn::COMPLETE)).ok_or(CANNOT)?;
    let query = || RouteQuery {
        ingress: frame.ingress(),
        source: A::widen(packet.ip.destination),
        destination: backend.row.address,
    };
    let way = next_hops::to_backend(tables, tables.settings(), backend.row, query);
    if way.kind != Kind::Hop {
        return Err(CANNOT);
    }
    row.write(hash, &Syn { flags: Syn::COMPLETE, sent: tables.jiffies() as u16, ..syn });
    let ends = Ends::<A> { source: packet.ip.destination, destination: A::narrow(&backend.row.address) };
    let ports = (packet.destination_port, backend.row.port);
    write_syn(frame, &syn, &ends, ports).ok_or(Verdict::INTERNAL)?;
    link::address_to(frame, link::HEADER, &way.hop, A::ETHERTYPE)?;
    if let Some(traffic) = tables.traffic(backend.id) {
        traffic.rx_packets.count(1);
        traffic.rx_bytes.count((A::HEADER + TCP_HEADER + syn.options_length()) as u64);
    }
    Ok(out(frame, &way.hop, Reason::RequestRetried))
}

/// Writes a SYN behind an untagged link-layer header, which is left to be written.
#[inline(always)]
fn write_syn<A: Answering, F: Frame>(
    frame: &mut F,
    syn: &Syn,
    ends: &Ends<A>,
    (source_port, destination_port): (Be16, Be16),
) -> Option<()> {
    let options = syn.options_length();
    // A reset has 20 bytes of TCP at least: so much room, and the frame is long enough to be cut.
    frame.move_front(-(OPTIONS as i32))?;
    let l4 = link::HEADER + A::HEADER;
    frame.move_end((l4 + TCP_HEADER + options) as i32 - frame.length() as i32)?;
    let length = (TCP_HEADER + options) as u16;
    let header = Header {
        head: syn.head,
        hop_limit: syn.hop_limit.wrapping_sub(1),
        protocol: Protocol::TCP,
        payload: length,
    };
    A::write_header(frame, link::HEADER, ends, &header)?;

    let [p0, p1] = source_port.to_wire();
    let [q0, q1] = destination_port.to_wire();
    let [s0, s1, s2, s3] = syn.sequence.to_be_bytes();
    let [o0, o1] = syn.offset_and_flags;
    let [w0, w1] = syn.window;
    let words = [[p0, p1, q0, q1], [s0, s1, s2, s3], [o0, o1, w0, w1]];
    let mut sum = A::pseudo_sum(ends, Protocol::TCP, length);
    for word in words {
        sum += u32::from_ne_bytes(word) as u64;
    }
    for at in 0..OPTIONS / 4 {
        let word = (syn.options[at / 2] >> (at % 2 * 32)) as u32;
        sum += u32::from_ne_bytes(word.to_le_bytes()) as u64;
        if at * 4 < options {
            frame.write(l4 + TCP_HEADER + at * 4, word.to_le_bytes())?;
        }
    }
    let [c0, c1] = (!fold(sum)).to_ne_bytes();
    frame.write(l4, [p0, p1, q0, q1, s0, s1, s2, s3, 0, 0, 0, 0, o0, o1, w0, w1, c0, c1, 0, 0])
}
