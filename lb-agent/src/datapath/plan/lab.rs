//! The data plane of the planner's tests: checked after every action with everything that a packet under way may
//! still hold on to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use lb_common::backend::MAX_SIBLINGS;
use lb_common::directory::{Bucket, Entry, Kind, hash};
use lb_common::port::NO_ADDRESS;
use lb_common::service::{Options, Table};

use super::diff::row_weight;
use super::options::flags;
use super::owners::{elements, pairs};
use super::{Action, Plan, TableInputs, diff};
use crate::datapath::Wanted;
use crate::datapath::arrays::{Arrays, Sizes};
use crate::datapath::execute::{World, execute};
use crate::datapath::identity::Endpoint;
use crate::datapath::observed::{
    Addresses, Observed, Occupancy, Rested, backend_key, half, region_of, service_key, use_of_backend,
    use_of_service,
};
use crate::datapath::prefixes::{List, Lists, list};
use crate::datapath::tables::{Member, build, index};
use crate::model::Track;

const SIZES: Sizes =
    Sizes { flows: 16, flows6: 16, services: 8, backends: 40, table_size: 61, cpus: 1, ..Sizes::TEST };

/// A data plane without a kernel, and the packets that may be under way in it.
pub(super) struct Lab {
    arrays: Arrays,
    rested: Rested,
    known: BTreeMap<u16, TableInputs>,
    pub(super) ground: Ground,
    /// Prefix lists that a packet may have been sent to since the last grace period.
    lists: BTreeSet<(u16, u16)>,
    /// Directory halves, and services with their tables, that a packet may have found since the last grace period.
    halves: BTreeSet<usize>,
    tables: BTreeSet<(u16, u64)>,
    /// Source addresses likewise.
    sources: BTreeSet<u8>,
}

/// What plans change outside of the rows.
#[derive(Default)]
pub(super) struct Ground {
    pub(super) addresses: Addresses,
    pub(super) lists: Lists,
}

impl World for Ground {
    fn grace_period(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    fn add_address(&mut self, address: IpAddr) -> anyhow::Result<()> {
        let Addresses { present, ours } = &mut self.addresses;
        assert!(present.insert(address) && ours.insert(address));
        Ok(())
    }

    fn remove_address(&mut self, address: IpAddr) -> anyhow::Result<()> {
        let Addresses { present, ours } = &mut self.addresses;
        assert!(present.remove(&address) && ours.remove(&address));
        Ok(())
    }

    fn write_list(&mut self, service: u16, generation: u16, list: &Arc<List>) -> anyhow::Result<()> {
        assert!(self.lists.insert((service, generation), Arc::clone(list)).is_none());
        Ok(())
    }

    fn erase_list(&mut self, service: u16, generation: u16) -> anyhow::Result<()> {
        assert!(self.lists.remove(&(service, generation)).is_some());
        Ok(())
    }
}

impl Lab {
    pub(super) fn new() -> Self {
        let mut lab = Self {
            arrays: Arrays::private(SIZES),
            rested: Rested::default(),
            known: BTreeMap::new(),
            ground: Ground::default(),
            lists: BTreeSet::new(),
            halves: BTreeSet::new(),
            tables: BTreeSet::new(),
            sources: BTreeSet::new(),
        };
        lab.reach();
        lab
    }

    pub(super) fn plan(&self, wanted: &Wanted) -> anyhow::Result<Plan> {
        let observed = Observed::read(&self.arrays, &self.rested, Some(self.ground.addresses.clone()));
        let observed = Observed { lists: self.ground.lists.clone(), ..observed };
        diff(&self.arrays, observed, wanted, &self.known)
    }

    pub(super) fn apply(&mut self, wanted: &Wanted) {
        let plan = self.plan(wanted).unwrap();
        self.carry_out(&plan, usize::MAX);
    }

    pub(super) fn carry_out(&mut self, plan: &Plan, actions: usize) {
        for action in plan.actions.iter().take(actions) {
            self.may_be_written(action);
            execute(action, &mut self.arrays, &mut self.rested, &mut self.ground).unwrap();
            if *action == Action::GracePeriod {
                self.halves.clear();
                self.tables.clear();
                self.lists.clear();
                self.sources.clear();
            }
            self.reach();
            self.is_safe();
        }
        self.known = plan.tables.clone();
    }

    /// An agent that starts remembers nothing.
    pub(super) fn restart(&mut self) {
        self.rested = Rested::default();
        self.known.clear();
    }

    /// Frees the rows that rest, as a sweep does that finds no flow.
    pub(super) fn sweep(&mut self) {
        self.halves.clear();
        self.tables.clear();
        self.lists.clear();
        self.sources.clear();
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
                let options = Options(self.arrays.services[usize::from(entry.id())].options.load());
                if options.has(Options::PREFIX_LISTS) {
                    self.lists.insert((entry.id(), options.list_generation()));
                }
                let pool = self.arrays.services[usize::from(entry.id())].pool.entries();
                self.sources.extend(pool.into_iter().filter(|&number| number != NO_ADDRESS));
            }
        }
    }

    fn may_be_written(&self, action: &Action) {
        match action {
            Action::WriteDirectory { half, .. } => assert!(!self.halves.contains(half), "{action:?} is read"),
            Action::WriteTable { region, .. } => {
                let named =
                    |&(_, word): &(u16, u64)| region_of(Table(word), SIZES.table_size) == Some(*region);
                assert!(!self.tables.iter().any(named), "region {region} is read");
            }
            Action::WriteList { service, generation, .. } | Action::EraseList { service, generation } => {
                assert!(!self.lists.contains(&(*service, *generation)), "{action:?} is read");
            }
            Action::PutSource { number, .. } => {
                assert_eq!(self.arrays.pool_addresses[usize::from(*number)].live.load(), 0);
                assert!(!self.sources.contains(number), "{action:?} is read");
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
        assert!(self.lists.iter().all(|at| self.ground.lists.contains_key(at)), "a list is missing");
        for &number in &self.sources {
            assert_eq!(self.arrays.pool_addresses[usize::from(number)].live.load(), 1, "source {number}");
        }
        for &half in &self.halves {
            for entry in entries(&self.arrays, half) {
                self.names_its_row(half, entry);
            }
        }
        for &(service, word) in &self.tables {
            let table = Table(word);
            let listed = self.find(&service_key(&self.arrays.services[usize::from(service)]), Kind::Service);
            for id in self.named(service, table) {
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

    /// The backends that a table names, for new flows or for old ones.
    fn named(&self, service: u16, table: Table) -> Vec<u16> {
        let options = Options(self.arrays.services[usize::from(service)].options.load());
        let by_exception = options.has(Options::EXCEPTIONS);
        let elements = self.arrays.table(table.line(), elements(table.slots(), by_exception));
        if !by_exception {
            return elements;
        }
        pairs(&elements).flat_map(|owners| [owners.base, owners.current]).filter(|&id| id != 0).collect()
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
            Kind::Pool => {
                let row = &self.arrays.pool_addresses[usize::from(entry.id())];
                assert_eq!(row.live.load(), 1);
                hash(&row.address, Default::default(), Default::default(), key)
            }
            Kind::Backend => {
                let row = &self.arrays.backends[usize::from(entry.id())];
                hash(&row.address, row.port, row.protocol, key)
            }
            Kind::Host => {
                let row = &self.arrays.backends[usize::from(entry.id())];
                hash(&row.address, Default::default(), row.protocol, key)
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

    /// Whether a backend's row is a full-NAT service's.
    fn is_full_nat(&self, id: u16) -> bool {
        let service = self.arrays.backends[usize::from(id)].service;
        Options(self.arrays.services[usize::from(service)].options.load()).has(Options::FULL_NAT)
    }

    /// What is there is what is wanted.
    pub(super) fn holds(&self, wanted: &Wanted) {
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
                assert_eq!(
                    (row.standing.serving, row.standing.weight),
                    (backend.serving, row_weight(backend))
                );
                let host = Endpoint { port: Default::default(), ..endpoint };
                assert!(self.find(&host, Kind::Host).is_some(), "{endpoint}'s address is not listed");
                let chain = self.chain(id);
                assert!(chain.contains(&id));
                let alike: Vec<_> = chain.iter().filter(|&&id| !self.is_full_nat(id)).collect();
                assert_eq!(row.standing.shared, alike.contains(&&id) && alike.len() > 1);
                let behind = chain.iter().any(|&id| self.is_full_nat(id));
                assert_eq!(row.standing.behind_full_nat, behind);
                let weight = if backend.serving { backend.weight } else { 0 };
                members.push(Member { address: endpoint.address, port: endpoint.port, weight, id });
                rows += 1;
            }
            let (options, limits) = (observed.services[&vip].options, observed.services[&vip].limits);
            assert_eq!(options.with_list(0), flags(service, self.arrays.settings()));
            assert_eq!(limits, super::options::limits(service, self.arrays.settings().jiffies_per_second));
            if options.has(Options::PREFIX_LISTS) {
                assert_eq!(*self.ground.lists[&(id, options.list_generation())], list(&service.guard));
            }
            let table = observed.services[&vip].table;
            let sources: BTreeSet<_> =
                service.source_pool.iter().map(|source| observed.sources[source]).collect();
            let pool = observed.services[&vip].pool.into_iter().filter(|&number| number != NO_ADDRESS);
            assert_eq!(pool.collect::<BTreeSet<_>>(), sources);
            assert_eq!(table.on_no_backend() as u8, service.on_no_backend as u8);
            if service.track == Track::Exceptions {
                let elements = self.arrays.table(table.line(), elements(table.slots(), true));
                let current: Vec<_> = pairs(&elements).map(|owners| owners.current).collect();
                let mut built = build(service.strategy, &members, table.slots());
                built.resize(current.len(), 0);
                assert_eq!(current, built);
            } else {
                let slots = self.arrays.table(table.line(), table.slots());
                assert_eq!(slots, build(service.strategy, &members, SIZES.table_size));
            }
            assert_eq!(table.index(), index(service.strategy));
        }
        assert_eq!(observed.backends.len(), rows);
        let sources: BTreeSet<_> =
            wanted.services.iter().flat_map(|service| service.source_pool.iter().copied()).collect();
        assert_eq!(observed.sources.keys().copied().collect::<BTreeSet<_>>(), sources);
        let vips = wanted.services.iter().map(|service| service.vip.ip()).chain(sources).collect();
        assert_eq!(self.ground.addresses.present, vips);
        let listing = wanted.services.iter().filter(|service| service.guard.prefixes() > 0);
        assert_eq!(self.ground.lists.len(), listing.count(), "nothing is left behind");
    }
}

fn entries(arrays: &Arrays, which: usize) -> impl Iterator<Item = Entry> {
    let (_, buckets): (u64, &[Bucket]) = half(arrays, which);
    buckets.iter().flat_map(|bucket| bucket.entries).filter(|&entry| entry != 0).map(Entry)
}
