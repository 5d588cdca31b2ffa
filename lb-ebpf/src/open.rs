//! The beginning of a flow, and the end of one whose backend is gone: a backend is chosen, and remembered.
//!
//! Nothing here is on the way of an established flow's packets. In the kernel it is a few functions for each family
//! that the verifier checks by themselves and once ([`Tables::open4`], [`Tables::open6`]): what the programs know of a
//! packet when they call would otherwise be multiplied by all that can happen here.

use lb_common::address::{Be16, Protocol};
use lb_common::flow::{Data, State};
use lb_common::latency::moment;
use lb_common::reason::Event;
use lb_common::service::{Index, Options, Service, Table};
use lb_common::settings::Settings;

use crate::clash;
use crate::classify::Found;
use crate::family::Family;
use crate::flows::{self, Insertion, Lookup};
use crate::parse::Packet;
use crate::select::{self, Choice};
use crate::tables::Tables;

/// What there is to know of a packet whose flow has no backend.
#[derive(Clone, Copy, Debug)]
pub struct Opening<A: Family> {
    /// Who sends it.
    pub client: A::Address,
    /// From which port.
    pub port: Be16,
    /// To which service.
    pub service: u16,
    /// Hash of the flow's key.
    pub hash: u64,
    /// What else.
    pub facts: Facts,
}

/// What a packet says of its flow, a bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts(pub u64);

/// Of so many handshakes one is timed where no strategy goes by them: by the lowest bits of the flow's hash, of
/// which a bucket is chosen by the highest. A power of two.
pub const SAMPLED: u64 = 8;

impl Facts {
    /// UDP.
    const DATAGRAM: u64 = 1;
    /// TCP: opens a connection.
    const SYN: u64 = 1 << 1;
    /// TCP: ends one.
    const ENDING: u64 = 1 << 2;
    /// Not the first fragment: neither ports nor flags are its own.
    const LATER_FRAGMENT: u64 = 1 << 3;
    /// There is an entry, but it names a backend that is gone, or a connection that is over.
    const KNOWN: u64 = 1 << 4;

    /// The service has [affinity](crate::affinity).
    const STICKY: u64 = 1 << 5;

    /// A backend that is [preferred](Self::preferring) or [settled on](Self::settled_on).
    const ELSEWHERE: u64 = 0xffff_ffff << 16;

    /// The backend that has been settled on is the strategy's choice.
    const BY_STRATEGY: u64 = 1 << 8;

    /// Opens a connection that is given another backend where its own does not answer ([`crate::retry`]).
    const RETRIED: u64 = 1 << 7;

    /// Somebody wants to know how long the handshake takes.
    const TIMED: u64 = 1 << 6;

    /// The same, to be timed if this begins a handshake: always where the strategy goes by it, else one of
    /// [so many](SAMPLED), for those who watch.
    #[inline(always)]
    const fn timed_by(self, table: Table, hash: u64) -> Self {
        let is_sampled = hash & (SAMPLED - 1) == 0;
        let is_wanted = is_sampled || table.index() as u8 == Index::LeastLatency as u8;
        let is_timed = self.has(Self::SYN) && is_wanted;
        Self(if is_timed { self.0 | Self::TIMED } else { self.0 })
    }

    /// The word that a new entry begins with. One that is given another backend is not timed: few are.
    #[inline(always)]
    fn entry<T: Tables>(self, tables: &T, backend: u16, now: u64) -> Data {
        let fresh = Data::fresh(self.first_state(), backend, now);
        if self.has(Self::TIMED) { fresh.opened(moment(tables.nanoseconds())) } else { fresh }
    }

    /// Whether there has been an entry.
    #[inline(always)]
    pub const fn is_known(self) -> bool {
        self.has(Self::KNOWN)
    }

    /// Whether it opens a connection that is given another backend where its own does not answer.
    #[inline(always)]
    pub const fn is_retried(self) -> bool {
        self.has(Self::RETRIED)
    }

    /// Whether the service has [affinity](crate::affinity).
    #[inline(always)]
    pub const fn is_sticky(self) -> bool {
        self.has(Self::STICKY)
    }

    /// Whether affinity has a say in where the packet goes. What is in mid-stream went somewhere already: to where its
    /// hash says, if anybody knows.
    #[inline(always)]
    pub(crate) const fn follows_affinity(self, options: Options) -> bool {
        if self.has(Self::KNOWN) {
            self.has(Self::SYN) || !options.has(Options::RESET_ON_BACKEND_DOWN)
        } else {
            !self.is_midstream()
        }
    }

    /// The same, with the backend that affinity asks for; 0 for none.
    #[inline(always)]
    pub const fn preferring(self, backend: u64) -> Self {
        Self(self.0 | (backend & 0xffff) << 32)
    }

    /// That backend.
    #[inline(always)]
    const fn preferred(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// The same, with a backend that has been settled on instead of the `chosen` one: see [`crate::clash`].
    #[inline(always)]
    pub const fn settled_on(self, backend: u16, chosen: u16) -> Self {
        let is_same = backend == chosen && !self.is_sticky();
        Self(self.0 | (backend as u64) << 16 | if is_same { Self::BY_STRATEGY } else { 0 })
    }

    /// The backend that has been settled on; 0 where none has.
    #[inline(always)]
    const fn settled(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Whether any of these is one.
    #[inline(always)]
    const fn has(self, facts: u64) -> bool {
        self.0 & facts != 0
    }

    /// Whether there has been a packet of this flow before.
    #[inline(always)]
    const fn is_midstream(self) -> bool {
        self.has(Self::LATER_FRAGMENT) || !self.has(Self::DATAGRAM | Self::SYN)
    }

    /// The state that an entry begins in.
    #[inline(always)]
    const fn first_state(self) -> State {
        if self.has(Self::DATAGRAM) {
            State::DATAGRAM
        } else if self.has(Self::SYN) {
            State::HALF_OPEN
        } else {
            State::ADOPTED
        }
    }
}

impl<A: Family> Opening<A> {
    /// Of a packet to a service; `known` says that there is an entry.
    #[inline(always)]
    pub fn of(packet: &Packet<A>, service: &Found<'_, Service>, hash: u64, known: bool) -> Self {
        let bit = |fact: bool, bit: u64| if fact { bit } else { 0 };
        let options = Options(service.row.options.load());
        let facts = bit(packet.ip.protocol == Protocol::UDP, Facts::DATAGRAM)
            | bit(packet.segment.is_syn(), Facts::SYN)
            | bit(packet.segment.is_ending(), Facts::ENDING)
            | bit(!packet.has_transport, Facts::LATER_FRAGMENT)
            | bit(known, Facts::KNOWN)
            | bit(options.has(Options::AFFINITY), Facts::STICKY)
            | bit(packet.segment.is_syn() && options.has(Options::RETRY), Facts::RETRIED);
        let (client, port) = (packet.ip.source, packet.source_port);
        Self { client, port, service: service.id, hash, facts: Facts(facts) }
    }
}

/// Picks the backend of a flow that has no entry, and remembers it: a [`Choice`].
#[inline(always)]
pub fn open<A: Family, T: Tables>(tables: &T, opening: &Opening<A>) -> u64 {
    let &Opening { client, port, service, hash, facts } = opening;
    if !A::is_unicast(client) {
        return Choice::SOURCE_INVALID.0;
    }
    let Some(row) = tables.service(service) else { return Choice::CONTRADICTION.0 };
    let table = Table(row.table.load());
    if facts.is_midstream() && table.slots() > 0 && !table.index().is_hash() {
        return Choice::UNKNOWN_FLOW.0;
    }
    let choice = choose::<A, T>(tables, opening, row, table, port);
    if !choice.is_backend() {
        return choice.0;
    }
    // Where it is suspect, or its endpoint serves others too, the caller asks first whether another is better.
    if is_unsettled(tables, facts, choice) {
        return choice.to_be_settled().0;
    }
    // The end of a connection that is not remembered is not worth remembering; nor is a fragment's, whose first part was.
    if facts.has(Facts::ENDING | Facts::LATER_FRAGMENT) {
        return choice.0;
    }
    match remember(tables, &Opening { facts: facts.timed_by(table, hash), ..*opening }, choice) {
        Some(choice) => choice.0,
        // Its next packet would go anywhere.
        None if !table.index().is_hash() => Choice::TABLE_FULL.0,
        None if facts.has(Facts::ELSEWHERE) && !facts.has(Facts::BY_STRATEGY) => Choice::BY_HASH.0,
        None => {
            flows::count(tables, Event::FlowUntracked);
            choice.0
        }
    }
}

/// Gives a flow another backend whose own is gone, or whose connection is over while its client opens a new one; or ends
/// it, where its service is set so. A [`Choice`].
#[inline(always)]
pub fn reopen<A: Family, T: Tables>(tables: &T, opening: &Opening<A>) -> u64 {
    let &Opening { port, service, facts, .. } = opening;
    let Some(row) = tables.service(service) else { return Choice::CONTRADICTION.0 };
    // A SYN asks for a new connection, which any backend can give.
    if !facts.has(Facts::SYN) && Options(row.options.load()).has(Options::RESET_ON_BACKEND_DOWN) {
        return end(tables, opening).0;
    }
    let choice = choose::<A, T>(tables, opening, row, Table(row.table.load()), port);
    if !choice.is_backend() {
        return choice.0;
    }
    if is_unsettled(tables, facts, choice) {
        return choice.to_be_settled().0;
    }
    reassign(tables, opening, choice).0
}

/// Whether a backend is chosen that is suspect, or whose endpoint has flows of other services too, and nobody has asked yet
/// whether another is better: see [`crate::clash`].
#[inline(always)]
fn is_unsettled<T: Tables>(tables: &T, facts: Facts, choice: Choice) -> bool {
    facts.settled() == 0
        && (tables.backend(choice.backend()).is_some_and(|row| row.is_shared())
            || facts.has(Facts::RETRIED) && clash::is_suspect(tables, choice.backend()))
}

/// The backend that has been settled on, or that affinity asks for, or the strategy's choice.
#[inline(always)]
fn choose<A: Family, T: Tables>(
    tables: &T,
    opening: &Opening<A>,
    row: &Service,
    table: Table,
    port: Be16,
) -> Choice {
    let known = match opening.facts.settled() {
        0 => opening.facts.preferred(),
        settled => settled,
    };
    match known {
        0 => {
            select::choose::<A, T>(tables, &Found { id: opening.service, row }, table, (opening.client, port))
        }
        backend => Choice::of(backend),
    }
}

/// Makes an entry; `None` where there is no room.
#[inline(always)]
pub(crate) fn remember<A: Family, T: Tables>(
    tables: &T,
    opening: &Opening<A>,
    choice: Choice,
) -> Option<Choice> {
    let &Opening { client, port, service, hash, facts } = opening;
    let now = flows::now(tables, tables.settings());
    let evicted = |victim: Data| {
        flows::count(tables, Event::FlowEvicted);
        flows::account_here(tables, victim, victim.freed());
    };
    let fresh = facts.entry(tables, choice.backend(), now);
    let key = A::key(client, port, service);
    let Some(insertion) = flows::insert::<A, T>(tables, hash, key, fresh, now, evicted) else {
        return Some(Choice::CONTRADICTION);
    };
    match insertion {
        Insertion::Created => {
            flows::count(tables, Event::FlowCreated);
            flows::account_here(tables, Data(0), fresh);
            Some(choice)
        }
        // Another CPU was first: the flow goes where that one sent it.
        Insertion::Exists(data) if serves(tables, service, data) => Some(Choice::of(data.backend())),
        Insertion::Exists(_) => Some(choice),
        Insertion::Refused => None,
    }
}

/// Gives an entry another backend: its own is gone, or its connection is over and the client opens a new one.
#[inline(always)]
pub(crate) fn reassign<A: Family, T: Tables>(tables: &T, opening: &Opening<A>, choice: Choice) -> Choice {
    let &Opening { client, port, service, hash, facts } = opening;
    let settings: &Settings = tables.settings();
    let key = A::key(client, port, service);
    let Some(Lookup::Hit(entry, data)) = flows::look_up::<A, T>(tables, hash, key) else { return choice };
    let reopened = facts.has(Facts::SYN) && data.state() == State::CLOSING;
    if !reopened && serves(tables, service, data) {
        // Another CPU has done it meanwhile.
        return Choice::of(data.backend());
    }
    let now = flows::now(tables, settings);
    let succeeding = Data::succeeding(data, facts.first_state(), choice.backend(), now);
    // Where this swap loses, another CPU has moved the flow on: its next packet follows that.
    if entry.data.replace(data.0, succeeding.0) {
        flows::account_here(tables, data, succeeding);
        flows::count(tables, Event::FlowCreated);
    }
    if !reopened {
        flows::count(tables, Event::FlowRebalanced);
    }
    choice
}

/// Ends a flow whose backend is gone, and tells its client.
///
/// A TCP flow's entry stays for a while as that of a closing one, so that whatever is still on its way is answered
/// alike and nothing of it reaches another backend. A datagram flow's goes: the client is told once, and its next
/// datagram opens a new flow.
#[inline(always)]
fn end<A: Family, T: Tables>(tables: &T, opening: &Opening<A>) -> Choice {
    let &Opening { client, port, service, hash, facts } = opening;
    // A later fragment is not answered; the first was, or will be.
    if !facts.has(Facts::LATER_FRAGMENT)
        && let Some(Lookup::Hit(entry, data)) =
            flows::look_up::<A, T>(tables, hash, A::key(client, port, service))
    {
        let ended = if data.state() == State::DATAGRAM {
            data.freed()
        } else {
            data.in_state(State::CLOSING).stamped(flows::now(tables, tables.settings()))
        };
        if entry.data.replace(data.0, ended.0) {
            flows::account_here(tables, data, ended);
        }
    }
    Choice::BACKEND_DOWN
}

/// Whether the backend of an entry is the service's and serves.
#[inline(always)]
fn serves<T: Tables>(tables: &T, service: u16, data: Data) -> bool {
    tables.backend(data.backend()).is_some_and(|row| row.service == service && row.is_serving())
}
