//! Random histories, checked after every action with everything that a packet under way may still hold on to.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use lb_common::backend::MAX_SIBLINGS;
use lb_common::directory::{Bucket, Entry, Kind, hash};
use lb_common::service::Table;
use proptest::prelude::{Just, ProptestConfig, any, prop, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as Generator;

use super::*;
use crate::datapath::arrays::{Arrays, Sizes};
use crate::datapath::execute::{World, execute};
use crate::datapath::observed::{
    Addresses, Observed, Occupancy, Rested, backend_key, half, service_key, use_of_backend, use_of_service,
};
use crate::datapath::{Wanted, WantedBackend, WantedService, tables};
use crate::model::{OnNoBackend, Protocol, Strategy};

const SIZES: Sizes = Sizes { flows: 16, services: 8, backends: 40, table_size: 61, cpus: 1 };

#[test]
fn the_first_service_comes_up_in_order() {
    let mut lab = Lab::new();
    let plan = lab.plan(&wanted(vec![service("10.0.0.100:80", &["10.0.1.1:80", "10.0.1.2:80"])])).unwrap();
    let kinds: Vec<_> = plan.actions.iter().map(kind).collect();
    assert_eq!(
        kinds,
        [
            "PutBackend",
            "PutBackend",
            "GracePeriod",
            "WriteTable",
            "PutService",
            "WriteDirectory",
            "SwitchDirectory",
            "AddAddress"
        ]
    );
    assert_eq!(
        plan.steps,
        [
            "backend 10.0.1.1:80 of service 10.0.0.100:80: added with weight 1",
            "backend 10.0.1.2:80 of service 10.0.0.100:80: added with weight 1",
            "service 10.0.0.100:80 (10.0.0.100:80/tcp): added",
            "service 10.0.0.100:80: 61 slots built as maglev over 2 backends",
            "directory: 4 entries",
            "address 10.0.0.100: added to this host and announced",
        ]
    );
    lab.carry_out(&plan, usize::MAX);
}

#[test]
fn a_dead_backend_leaves_the_table_before_it_gives_up_its_flows() {
    let mut lab = Lab::new();
    let mut state = wanted(vec![service("10.0.0.100:80", &["10.0.1.1:80", "10.0.1.2:80"])]);
    lab.apply(&state);
    state.services[0].backends[0].serving = false;
    let plan = lab.plan(&state).unwrap();
    let kinds: Vec<_> = plan.actions.iter().map(kind).collect();
    assert_eq!(kinds, ["WriteTable", "SwitchTable", "GracePeriod", "SetBackend"]);
    assert!(plan.steps[0].contains("over 1 backend ("), "{:?}", plan.steps);
    lab.carry_out(&plan, usize::MAX);
}

#[test]
fn a_changed_answer_to_no_backend_writes_no_table() {
    let mut lab = Lab::new();
    let mut state = wanted(vec![service("10.0.0.100:80", &["10.0.1.1:80"])]);
    lab.apply(&state);
    state.services[0].on_no_backend = OnNoBackend::Drop;
    let plan = lab.plan(&state).unwrap();
    assert_eq!(plan.actions.iter().map(kind).collect::<Vec<_>>(), ["SwitchTable"]);
}

#[test]
fn addresses_that_were_there_before_are_never_removed() {
    let mut lab = Lab::new();
    let vip: IpAddr = "10.0.0.100".parse().unwrap();
    lab.addresses.present.insert(vip);
    lab.apply(&wanted(vec![service("10.0.0.100:80", &[])]));
    lab.apply(&wanted(vec![]));
    assert!(lab.addresses.present.contains(&vip));
}

#[test]
fn contradictions_are_refused_and_nothing_is_planned() {
    let lab = Lab::new();
    let many: Vec<_> = (0..9).map(|n| service(&format!("10.0.0.100:{}", 80 + n), &["10.0.1.1:80"])).collect();
    for (state, message) in [
        (
            wanted(vec![service("10.0.0.100:80", &["10.0.1.1:80", "10.0.1.1:80"])]),
            "backend 10.0.1.1:80 of service 10.0.0.100:80: listed twice",
        ),
        (
            wanted(vec![service("10.0.0.100:80", &["[fd00::1]:80"])]),
            "backend [fd00::1]:80 of service 10.0.0.100:80: not of the same address family as 10.0.0.100:80",
        ),
        (
            wanted(vec![service("10.0.0.1:80", &[]), service("10.0.0.2:80", &["10.0.0.1:80"])]),
            "service 10.0.0.1:80: 10.0.0.1:80/tcp is also a backend's address",
        ),
        (
            wanted(many),
            "backend 10.0.1.1:80 of service 10.0.0.100:88: already serves 8 services, as many as one can",
        ),
    ] {
        assert_eq!(lab.plan(&state).unwrap_err().to_string(), message);
    }
    let full: Vec<_> = (0..9).map(|n| service(&format!("10.0.0.100:{}", 80 + n), &[])).collect();
    let error = lab.plan(&wanted(full)).unwrap_err().to_string();
    assert!(error.starts_with("service 10.0.0.100:88: no room: all 8 rows"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_prefix_is_safe_and_every_history_arrives(
        history in prop::collection::vec((any_wanted(), interruption(), any::<bool>()), 1..8),
    ) {
        let mut lab = Lab::new();
        for (state, interruption, sweep) in history {
            if sweep {
                lab.sweep();
            }
            let plan = match lab.plan(&state) {
                Ok(plan) => plan,
                Err(_) => {
                    // Rows that rest are not free yet.
                    lab.sweep();
                    lab.plan(&state).unwrap()
                }
            };
            lab.carry_out(&plan, interruption);
            if interruption < plan.actions.len() {
                lab.restart();
                lab.sweep();
                lab.apply(&state);
            }
            lab.holds(&state);
            prop_assert_eq!(lab.plan(&state).unwrap().actions, vec![]);
            lab.restart();
            prop_assert_eq!(lab.plan(&state).unwrap().actions, vec![]);
        }
    }
}

/// A data plane without a kernel, and the packets that may be under way in it.
struct Lab {
    arrays: Arrays,
    rested: Rested,
    known: BTreeMap<u16, TableInputs>,
    addresses: Addresses,
    /// Directory halves, and services with their tables, that a packet may have found since the last grace period.
    halves: BTreeSet<usize>,
    tables: BTreeSet<(u16, u64)>,
}

impl World for Addresses {
    fn grace_period(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    fn add_address(&mut self, address: IpAddr) -> anyhow::Result<()> {
        assert!(self.present.insert(address) && self.ours.insert(address));
        Ok(())
    }

    fn remove_address(&mut self, address: IpAddr) -> anyhow::Result<()> {
        assert!(self.present.remove(&address) && self.ours.remove(&address));
        Ok(())
    }
}

impl Lab {
    fn new() -> Self {
        let mut lab = Self {
            arrays: Arrays::private(SIZES),
            rested: Rested::default(),
            known: BTreeMap::new(),
            addresses: Addresses::default(),
            halves: BTreeSet::new(),
            tables: BTreeSet::new(),
        };
        lab.reach();
        lab
    }

    fn plan(&self, wanted: &Wanted) -> anyhow::Result<Plan> {
        let observed = Observed::read(&self.arrays, &self.rested, Some(self.addresses.clone()));
        diff(&self.arrays, observed, wanted, &self.known)
    }

    fn apply(&mut self, wanted: &Wanted) {
        let plan = self.plan(wanted).unwrap();
        self.carry_out(&plan, usize::MAX);
    }

    fn carry_out(&mut self, plan: &Plan, actions: usize) {
        for action in plan.actions.iter().take(actions) {
            self.may_be_written(action);
            execute(action, &mut self.arrays, &mut self.rested, &mut self.addresses).unwrap();
            if *action == Action::GracePeriod {
                self.halves.clear();
                self.tables.clear();
            }
            self.reach();
            self.is_safe();
        }
        self.known = plan.tables.clone();
    }

    /// An agent that starts remembers nothing.
    fn restart(&mut self) {
        self.rested = Rested::default();
        self.known.clear();
    }

    /// Frees the rows that rest, as a sweep does that finds no flow.
    fn sweep(&mut self) {
        self.halves.clear();
        self.tables.clear();
        self.reach();
        for id in 0..self.arrays.services.len() {
            if use_of_service(&self.arrays.services[id]) == Occupancy::Resting {
                self.arrays.services.write(id, Default::default());
            }
        }
        for id in 0..self.arrays.backends.len() {
            if use_of_backend(&self.arrays.backends[id]) == Occupancy::Resting {
                self.arrays.backends.write(id, Default::default());
            }
        }
    }

    fn current_half(&self) -> usize {
        self.arrays.settings().directory_half.load() as usize
    }

    fn reach(&mut self) {
        self.halves.insert(self.current_half());
        for half in self.halves.clone() {
            for entry in entries(&self.arrays, half).filter(|entry| entry.kind() == Kind::Service) {
                let table = self.arrays.services[usize::from(entry.id())].table.load();
                self.tables.insert((entry.id(), table));
            }
        }
    }

    fn may_be_written(&self, action: &Action) {
        match action {
            Action::WriteDirectory { half, .. } => assert!(!self.halves.contains(half), "{action:?} is read"),
            Action::WriteTable { region, .. } => {
                let named = |&(_, word): &(u16, u64)| {
                    crate::datapath::observed::region_of(Table(word), SIZES.table_size) == Some(*region)
                };
                assert!(!self.tables.iter().any(named), "region {region} is read");
            }
            Action::PutBackend { id, .. } => {
                assert_eq!(use_of_backend(&self.arrays.backends[usize::from(*id)]), Occupancy::Free);
            }
            Action::PutService { id, .. } => {
                assert_eq!(use_of_service(&self.arrays.services[usize::from(*id)]), Occupancy::Free);
            }
            _ => {}
        }
    }

    fn is_safe(&self) {
        for &half in &self.halves {
            for entry in entries(&self.arrays, half) {
                self.names_its_row(half, entry);
            }
        }
        for &(service, word) in &self.tables {
            let table = Table(word);
            let listed = self.find(&service_key(&self.arrays.services[usize::from(service)]), Kind::Service);
            for id in self.arrays.table(table.line(), table.slots()) {
                let row = &self.arrays.backends[usize::from(id)];
                assert!(row.is_serving() && row.service == service, "{service} has slots of {id}: {row:?}");
                // Where new flows go replies must be recognised.
                if listed == Some(service) && self.arrays.services[usize::from(service)].table.load() == word
                {
                    assert!(self.chain(id).contains(&id), "replies of {id} are not recognised");
                }
            }
        }
    }

    fn names_its_row(&self, half: usize, entry: Entry) {
        let key = self.arrays.settings().directory_keys[half].load();
        let hash = match entry.kind() {
            Kind::Service => {
                let row = &self.arrays.services[usize::from(entry.id())];
                assert_eq!(row.live, 1);
                hash(&row.vip, row.port, row.protocol, key)
            }
            Kind::Vip => {
                let row = &self.arrays.services[usize::from(entry.id())];
                hash(&row.vip, Default::default(), Default::default(), key)
            }
            Kind::Backend => {
                let row = &self.arrays.backends[usize::from(entry.id())];
                hash(&row.address, row.port, row.protocol, key)
            }
        };
        assert!(entry.matches(hash), "{entry:?}");
    }

    fn find(&self, endpoint: &Endpoint, kind: Kind) -> Option<u16> {
        let (key, buckets) = half(&self.arrays, self.current_half());
        let hash = hash(&endpoint.address, endpoint.port, endpoint.protocol, key);
        let bucket = buckets[hash as usize & (buckets.len() - 1)];
        let entry = bucket.entries.into_iter().map(Entry).find(|entry| entry.matches(hash))?;
        (entry.kind() == kind).then_some(entry.id())
    }

    /// The rows that a reply from a backend's endpoint is compared with.
    fn chain(&self, id: u16) -> Vec<u16> {
        let endpoint = backend_key(&self.arrays.backends[usize::from(id)]);
        let mut next = self.find(&endpoint, Kind::Backend).unwrap_or(0);
        let mut chain = Vec::new();
        while next != 0 && chain.len() < MAX_SIBLINGS {
            let row = &self.arrays.backends[usize::from(next)];
            assert_eq!(backend_key(row), endpoint);
            chain.push(next);
            next = row.sibling();
        }
        chain
    }

    /// What is there is what is wanted.
    fn holds(&self, wanted: &Wanted) {
        let observed = Observed::read(&self.arrays, &self.rested, None);
        assert_eq!(observed.services.len(), wanted.services.len());
        let mut rows = 0;
        for service in &wanted.services {
            let vip = Endpoint::new(service.vip, service.protocol);
            let id = self.find(&vip, Kind::Service).expect("listed");
            let address = Endpoint { port: Default::default(), protocol: Default::default(), ..vip };
            assert!(self.find(&address, Kind::Vip).is_some());
            let mut members = Vec::new();
            for backend in &service.backends {
                let endpoint = Endpoint::new(backend.address, service.protocol);
                let (&id, row) = observed
                    .backends
                    .iter()
                    .find(|(_, row)| row.service == id && row.endpoint == endpoint)
                    .expect("in use");
                assert_eq!(row.serving, backend.serving);
                assert!(self.chain(id).contains(&id));
                let weight = if backend.serving { backend.weight } else { 0 };
                members.push(Member { address: endpoint.address, port: endpoint.port, weight, id });
                rows += 1;
            }
            let table = observed.services[&vip].table;
            assert_eq!(table.on_no_backend() as u8, service.on_no_backend as u8);
            let slots = self.arrays.table(table.line(), table.slots());
            assert_eq!(slots, tables::build(service.strategy, &members, SIZES.table_size));
        }
        assert_eq!(observed.backends.len(), rows);
        let vips: BTreeSet<_> = wanted.services.iter().map(|service| service.vip.ip()).collect();
        assert_eq!(self.addresses.present, vips);
    }
}

fn entries(arrays: &Arrays, which: usize) -> impl Iterator<Item = Entry> {
    let (_, buckets): (u64, &[Bucket]) = half(arrays, which);
    buckets.iter().flat_map(|bucket| bucket.entries).filter(|&entry| entry != 0).map(Entry)
}

fn kind(action: &Action) -> &'static str {
    match action {
        Action::PutBackend { .. } => "PutBackend",
        Action::SetBackend { .. } => "SetBackend",
        Action::WriteTable { .. } => "WriteTable",
        Action::PutService { .. } => "PutService",
        Action::SwitchTable { .. } => "SwitchTable",
        Action::WriteDirectory { .. } => "WriteDirectory",
        Action::SwitchDirectory { .. } => "SwitchDirectory",
        Action::GracePeriod => "GracePeriod",
        Action::RetireService { .. } => "RetireService",
        Action::RetireBackend { .. } => "RetireBackend",
        Action::AddAddress { .. } => "AddAddress",
        Action::RemoveAddress { .. } => "RemoveAddress",
    }
}

fn wanted(services: Vec<WantedService>) -> Wanted {
    Wanted { services }
}

fn service(vip: &str, backends: &[&str]) -> WantedService {
    let backend =
        |address: &&str| WantedBackend { address: address.parse().unwrap(), weight: 1, serving: true };
    WantedService {
        name: vip.to_owned(),
        vip: vip.parse().unwrap(),
        protocol: Protocol::Tcp,
        strategy: Strategy::Maglev,
        on_no_backend: OnNoBackend::Reset,
        backends: backends.iter().map(backend).collect(),
    }
}

/// Where the agent dies: after that many actions.
fn interruption() -> impl Generator<Value = usize> {
    prop_oneof![Just(usize::MAX), 0usize..20]
}

fn any_wanted() -> impl Generator<Value = Wanted> {
    prop::collection::btree_map((0u8..2, 0u16..2, any::<bool>()), any_service(), 0..5).prop_map(|services| {
        Wanted {
            services: services
                .into_iter()
                .map(|((host, port, udp), service)| {
                    let vip = SocketAddr::from(([10, 0, 0, 100 + host], 80 + port));
                    let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
                    WantedService { name: vip.to_string(), vip, protocol, ..service }
                })
                .collect(),
        }
    })
}

fn any_service() -> impl Generator<Value = WantedService> {
    let backends = prop::collection::btree_map(1u8..6, (0u32..3, any::<bool>()), 0..5);
    (backends, any::<bool>(), any::<bool>()).prop_map(|(backends, maglev, reset)| WantedService {
        strategy: if maglev { Strategy::Maglev } else { Strategy::ConsistentHash },
        on_no_backend: if reset { OnNoBackend::Reset } else { OnNoBackend::Drop },
        backends: backends
            .into_iter()
            .map(|(host, (weight, serving))| WantedBackend {
                address: SocketAddr::from(([10, 0, 1, host], 8080)),
                weight,
                serving,
            })
            .collect(),
        ..service("10.0.0.100:80", &[])
    })
}
