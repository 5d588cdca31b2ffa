//! Random histories of flows, changes of hands, deaths and time, against the one promise: a flow that is never silent
//! for longer than its timeout keeps its backend while that lives.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::Be32;
use lb_common::address::Protocol;
use lb_common::backend::{Backend, IN_USE, Standing};
use lb_common::flow::WAYS;
use lb_common::service::{Index, OnNoBackend};
use lb_common::slot::SLOTS_PER_LINE;
use lb_ebpf::classify::Found;
use lb_ebpf::exceptions;
use lb_ebpf::parse::{Headers, Packet, Part};
use lb_ebpf::tcp::Segment;
use lb_ebpf::verdict::{Stage, Verdict};
use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::{Just, Strategy as Generator};
use proptest::test_runner::TestCaseError;

use super::*;
use crate::datapath::arrays::Sizes;
use crate::datapath::sweep::Sweep;
use crate::datapath::view::View;

const SERVICE: u16 = 1;
const SLOTS: u32 = 7;
const BACKENDS: u16 = 4;
/// More flows than these could ever be refused an entry, which the promise excepts.
const FLOWS: u16 = 24;
const TIMEOUT: u64 = timeout::ESTABLISHED;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const FIN: u8 = 0x01;

#[derive(Clone, Debug)]
enum Event {
    /// A client opens a connection; whether its ACK comes at once.
    Open(u16, bool),
    /// A client that has one sends data, and its backend answers.
    Data(u16),
    Close(u16),
    /// Somebody forges a SYN.
    Forge(u16),
    /// Slots change hands, some to nobody.
    Change(Vec<u16>),
    /// A backend dies, or comes back.
    Toggle(u16),
    /// Ticks go by.
    Wait(u64),
}

fn event() -> impl Generator<Value = Event> {
    let port = 0..FLOWS;
    prop_oneof![
        4 => (port.clone(), any::<bool>()).prop_map(|(port, now)| Event::Open(port, now)),
        6 => port.clone().prop_map(Event::Data),
        1 => port.clone().prop_map(Event::Close),
        1 => port.prop_map(Event::Forge),
        2 => prop::collection::vec(0..=BACKENDS, SLOTS as usize).prop_map(Event::Change),
        1 => (1..=BACKENDS).prop_map(Event::Toggle),
        3 => prop_oneof![Just(1), Just(40), Just(TIMEOUT / 2), Just(TIMEOUT + 3)].prop_map(Event::Wait),
    ]
}

/// A connection as its two ends know it.
#[derive(Clone, Copy, Debug)]
struct Connection {
    backend: u16,
    /// When anything of it was seen last.
    seen: u64,
    /// Whether the client has acknowledged the SYN-ACK.
    confirmed: bool,
}

struct World {
    arrays: Arrays,
    now: u64,
    connections: BTreeMap<u16, Connection>,
    dead: BTreeSet<u16>,
}

impl World {
    fn new() -> Self {
        let sizes = Sizes {
            flows: 4096,
            flows6: 64,
            services: 4,
            backends: 8,
            table_size: 61,
            cpus: 1,
            ..Sizes::TEST
        };
        let mut arrays = Arrays::private(sizes);
        for id in 1..=BACKENDS {
            let at = |last| (Address::from_v4(Be32::new(0x0a00_0000 + last)), Be16::new(80));
            let row = Backend::new(SERVICE, at(100), at(u32::from(id)), Protocol::TCP);
            row.state.store(standing(true));
            arrays.backends.write(usize::from(id), row);
        }
        let row = Service {
            vip: Address::from_v4(Be32::new(0x0a00_0064)),
            port: Be16::new(80),
            protocol: Protocol::TCP,
            live: 1,
            seed: 7,
            options: Options::EXCEPTIONS.0.into(),
            table: Table::new(0, SLOTS, Index::Flow, OnNoBackend::Drop).0.into(),
            ..Service::default()
        };
        arrays.services.write(usize::from(SERVICE), row);
        let mut world = Self { arrays, now: 10_000, connections: BTreeMap::new(), dead: BTreeSet::new() };
        let owners = (0..SLOTS).map(|slot| Owners::clean((slot % u32::from(BACKENDS)) as u16 + 1));
        world.write(&owners.collect::<Vec<_>>());
        world
    }

    fn view(&self) -> View<'_> {
        let shift = self.arrays.settings().tick_shift;
        View { arrays: &self.arrays, jiffies: self.now << shift }
    }

    fn owners(&self) -> Vec<Owners> {
        owners(&self.arrays, Table(self.arrays.services[usize::from(SERVICE)].table.load()))
    }

    /// Writes the table where it is: nothing else happens meanwhile.
    fn write(&mut self, owners: &[Owners]) {
        let mut line = lb_common::slot::SlotLine::default();
        let elements = to_elements(owners.iter().copied());
        assert!(elements.len() <= SLOTS_PER_LINE as usize);
        line.backends[..elements.len()].copy_from_slice(&elements);
        self.arrays.slots.write(0, line);
    }

    fn packet(&self, port: u16, flags: u8, acknowledgement: u32) -> Packet<Ipv4> {
        let client = Be32::new(0x0a63_0001);
        let vip = self.arrays.services[usize::from(SERVICE)].vip.v4();
        let ip = Headers {
            source: client,
            destination: vip,
            protocol: Protocol::TCP,
            hop_limit: 64,
            dont_fragment: true,
            l3: 14,
            l4: 34,
            length: 40,
            part: Part::WHOLE,
            identification: 0,
        };
        let segment = Segment { flags, sequence: 1, acknowledgement };
        let (source_port, destination_port) = (Be16::new(1000 + port), Be16::new(80));
        Packet { ip, source_port, destination_port, segment, has_transport: true, unchecked: false }
    }

    /// The backend that a client's segment reaches.
    fn request(&self, port: u16, flags: u8, acknowledgement: u32) -> Option<u16> {
        let view = self.view();
        let service = Found { id: SERVICE, row: &self.arrays.services[usize::from(SERVICE)] };
        let packet = self.packet(port, flags, acknowledgement);
        let client = (packet.ip.source, packet.source_port);
        let by_slot = exceptions::backend_by_slot::<Ipv4, _>(&view, &service, client);
        let found = match by_slot {
            Err(Verdict::Defer(Stage::Exceptions)) => {
                exceptions::backend_of(&view, self.arrays.settings(), &packet, &service)
            }
            other => other,
        };
        found.ok().map(|backend| backend.id)
    }

    /// Whether a backend's segment reaches the client.
    fn reply(&self, port: u16, backend: u16, flags: u8, sequence: u32) -> bool {
        let view = self.view();
        let backend = Found { id: backend, row: &self.arrays.backends[usize::from(backend)] };
        let request = self.packet(port, flags, 0);
        let ip = Headers { source: request.ip.destination, destination: request.ip.source, ..request.ip };
        let packet = Packet {
            ip,
            source_port: request.destination_port,
            destination_port: request.source_port,
            segment: Segment { flags, sequence, acknowledgement: 2 },
            ..request
        };
        let client = (ip.destination, packet.destination_port);
        match exceptions::owns_by_slot::<Ipv4, _>(&view, &backend, client) {
            Err(Verdict::Defer(Stage::Exceptions)) => {
                exceptions::owns(&view, self.arrays.settings(), &packet, &backend).is_ok()
            }
            other => other.is_ok(),
        }
    }

    /// Connections that are promised nothing any more: silent for too long, or with a dead backend.
    fn forget(&mut self) {
        let (now, dead) = (self.now, &self.dead);
        self.connections.retain(|_, connection| {
            let timeout = if connection.confirmed { TIMEOUT } else { timeout::HALF_OPEN };
            now - connection.seen <= timeout && !dead.contains(&connection.backend)
        });
    }

    fn happen(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match event {
            Event::Open(port, _) | Event::Forge(port) if self.connections.contains_key(port) => {
                if matches!(event, Event::Forge(_)) {
                    let reached = self.request(*port, SYN, 0);
                    // Nothing tells a forged SYN from the client's own second one: a connection that is not there
                    // yet goes where the last went.
                    let connection = self.connections.remove(port).filter(|known| known.confirmed);
                    let again =
                        reached.map(|backend| Connection { backend, seen: self.now, confirmed: false });
                    if let Some(connection) = connection.or(again) {
                        self.connections.insert(*port, connection);
                    }
                }
            }
            &Event::Open(port, at_once) => {
                let Some(backend) = self.request(port, SYN, 0) else { return Ok(()) };
                self.connections.insert(port, Connection { backend, seen: self.now, confirmed: false });
                if at_once {
                    self.confirm(port)?;
                }
            }
            &Event::Data(port) => self.data(port)?,
            &Event::Close(port) => {
                if let Some(connection) = self.connections.remove(&port).filter(|known| known.confirmed) {
                    prop_assert_eq!(self.request(port, FIN | ACK, 78), Some(connection.backend));
                }
            }
            Event::Forge(port) => drop(self.request(*port, SYN, 0)),
            Event::Change(to) => self.change(to),
            &Event::Toggle(backend) => self.toggle(backend),
            Event::Wait(ticks) => self.wait(*ticks),
        }
        self.forget();
        Ok(())
    }

    /// The backend answers the SYN, and the client confirms.
    fn confirm(&mut self, port: u16) -> Result<(), TestCaseError> {
        let backend = self.connections[&port].backend;
        prop_assert!(self.reply(port, backend, SYN | ACK, 76), "the answer of {backend} to {port} is lost");
        prop_assert_eq!(self.request(port, ACK, 77), Some(backend), "the ACK of {}", port);
        self.connections.insert(port, Connection { backend, seen: self.now, confirmed: true });
        Ok(())
    }

    fn data(&mut self, port: u16) -> Result<(), TestCaseError> {
        let Some(&connection) = self.connections.get(&port) else { return Ok(()) };
        if !connection.confirmed {
            return self.confirm(port);
        }
        prop_assert_eq!(self.request(port, ACK, 78), Some(connection.backend), "data of {}", port);
        prop_assert!(self.reply(port, connection.backend, ACK, 80), "a reply to {port} is lost");
        self.connections.insert(port, Connection { seen: self.now, ..connection });
        Ok(())
    }

    /// As the planner changes a table.
    fn change(&mut self, to: &[u16]) {
        self.arrays.service_states[usize::from(SERVICE)].changed.store(CHANGED_NOW);
        let owner = |to: u16| if self.dead.contains(&to) { 0 } else { to };
        let after: Vec<_> = self
            .owners()
            .iter()
            .zip(to)
            .map(|(owners, to)| {
                let given = owners.given_to(owner(*to));
                if self.dead.contains(&given.base) { given.rebased() } else { given }
            })
            .collect();
        self.write(&after);
    }

    fn toggle(&mut self, backend: u16) {
        if self.dead.remove(&backend) {
            self.arrays.backends[usize::from(backend)].state.store(standing(true));
            return;
        }
        self.dead.insert(backend);
        let to: Vec<_> = self.owners().iter().map(|owners| owners.current).collect();
        self.change(&to);
        self.arrays.backends[usize::from(backend)].state.store(standing(false));
    }

    /// Time goes by, and the agent does what it does every second, here in one stroke.
    fn wait(&mut self, ticks: u64) {
        date_changes(&self.arrays, self.now);
        self.now += ticks;
        self.forget();
        date_changes(&self.arrays, self.now);
        for table in outlived(&self.arrays, self.now) {
            self.write(&pairs(&table.elements).collect::<Vec<_>>());
            forget_change(&self.arrays, SERVICE, self.now);
        }
        let mut sweep = Sweep::default();
        let pass = loop {
            if let Some(pass) = sweep.step(&mut self.arrays, self.now) {
                break pass;
            }
        };
        for table in settled(&self.arrays, &pass) {
            self.write(&pairs(&table.elements).collect::<Vec<_>>());
        }
    }
}

fn standing(serving: bool) -> u64 {
    Standing { serving, weight: 1, by_exception: true, ..Standing::default() }.to_word() | IN_USE
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_flow_keeps_its_backend_through_any_history(history in prop::collection::vec(event(), 1..120)) {
        let mut world = World::new();
        for event in &history {
            world.happen(event)?;
        }
    }

    #[test]
    fn every_slot_is_clean_in_the_end(history in prop::collection::vec(event(), 1..40)) {
        let mut world = World::new();
        for event in &history {
            world.happen(event)?;
        }
        world.change(&[1; SLOTS as usize]);
        let lives = !world.dead.contains(&1);
        for _ in 0..3 {
            world.wait(TIMEOUT + 3);
        }
        if lives {
            prop_assert_eq!(world.owners(), vec![Owners::clean(1); SLOTS as usize]);
        }
    }
}

#[test]
fn the_flow_table_of_these_tests_has_room_for_every_flow() {
    // Else what is excepted from the promise would be tested for it.
    let world = World::new();
    assert!(world.arrays.flows4.len() * WAYS > 100 * usize::from(FLOWS));
}
