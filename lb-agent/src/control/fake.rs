//! A data plane, a store and checks in memory, for the tests of everything above them.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::bail;
use tokio::sync::{mpsc, watch};

use super::{Changed, Control, ControlError, Handle, Order, Parts, load};
use crate::config::Limits;
use crate::datapath::{
    ConnectTime, Datapath, EventCount, Explanation, FlowCursor, FlowInfo, FlowLoad, FlowPage,
    InterfaceStatus, Network, Plan, ReasonCount, ServiceId, SourceAddress, Traffic, Wanted, WantedBackend,
};
use crate::health::{Failing, Probe, ProbeResult, Prober};
use crate::model::{Change, Desired, Protocol};
use crate::store::{Draft, Revision, RevisionInfo, Store, StoreError};

/// What stands for the world outside the control task. Clones share it.
#[derive(Clone, Default)]
pub struct World(Arc<Mutex<Inner>>);

/// The parts of the world, to be looked at and turned.
#[derive(Default)]
pub struct Inner {
    /// Which checks failed last, on disk.
    pub failing: BTreeSet<Failing>,
    /// What the data plane was told last.
    pub applied: Wanted,
    /// What is on disk: the latest revision's state.
    pub saved: Desired,
    /// Every revision that was made.
    pub revisions: Vec<Revision>,
    /// Tells of them.
    pub changed: watch::Sender<u64>,
    /// Flows open at a backend.
    pub active: HashMap<SocketAddr, u64>,
    /// Targets whose checks fail.
    pub dead: Vec<SocketAddr>,
    /// Checks made of each target.
    pub probes: HashMap<SocketAddr, usize>,
    /// What the data plane answers the next calls with; then it works again.
    pub refusals: Vec<&'static str>,
    /// Whether the disk is full.
    pub disk_full: bool,
    /// After which revision the disk is full.
    pub full_after: Option<u64>,
    /// What is wrong with the interface.
    pub interface_problem: Option<String>,
    /// Live flows.
    pub flows: Vec<FlowInfo>,
    /// Flows that gave way to others.
    pub evicted: u64,
}

impl World {
    /// One look at it.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// A control task in it.
    pub fn control(&self) -> anyhow::Result<(Control, Handle)> {
        self.control_with(Limits::default())
    }

    /// A control task in it, with limits.
    pub fn control_with(&self, limits: Limits) -> anyhow::Result<(Control, Handle)> {
        Control::start(Parts {
            revision: load(self, &limits)?,
            store: Box::new(self.clone()),
            datapath: Box::new(self.clone()),
            network: Network::default(),
            prober: Box::new(self.clone()),
            limits,
        })
    }

    /// A control task that runs.
    pub fn run(&self) -> Handle {
        let (control, handle) = self.control().unwrap();
        tokio::spawn(control.run());
        handle
    }

    /// What the data plane was told of a backend.
    pub fn backend(&self, address: &str) -> Option<WantedBackend> {
        let address = address.parse().unwrap();
        let applied = self.lock().applied.clone();
        applied.services.into_iter().flat_map(|service| service.backends).find(|b| b.address == address)
    }
}

impl Inner {
    fn latest(&self) -> Revision {
        let Revision { info, mut services, .. } = self.revisions.last().cloned().unwrap_or_default();
        // Tests put a state there without a revision.
        for name in self.saved.services.keys() {
            services.entry(name.clone()).or_insert(info.revision);
        }
        Revision { info, desired: Arc::new(self.saved.clone()), services }
    }

    /// Makes a revision, as another node would with a store that is shared.
    pub fn keep(&mut self, draft: Draft) -> Revision {
        let latest = self.latest();
        let next = latest.succeeded_by(latest.info.revision + 1, draft);
        self.saved = Desired::clone(&next.desired);
        self.revisions.push(next.clone());
        self.changed.send_replace(next.info.revision);
        next
    }
}

impl Handle {
    /// A change on no condition.
    pub async fn change(&self, change: Change, dry_run: bool) -> Result<Changed, ControlError> {
        self.order(change, Order { dry_run, ..Order::default() }).await
    }
}

impl Store for World {
    fn latest(&self) -> Result<Revision, StoreError> {
        Ok(self.lock().latest())
    }

    fn swap(&mut self, expected: u64, draft: Draft) -> Result<Revision, StoreError> {
        let mut inner = self.lock();
        if inner.disk_full || inner.full_after.is_some_and(|last| inner.latest().info.revision >= last) {
            let error = std::io::ErrorKind::StorageFull.into();
            return Err(StoreError::Io { action: "save the state to", path: "/state.toml".into(), error });
        }
        match inner.latest().info.revision {
            latest if latest == expected => Ok(inner.keep(draft)),
            latest => Err(StoreError::Conflict { expected, latest }),
        }
    }

    fn settle(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn history(&self) -> Result<Vec<RevisionInfo>, StoreError> {
        Ok(self.lock().revisions.iter().rev().map(|revision| revision.info.clone()).collect())
    }

    fn revision(&self, number: u64) -> Result<Revision, StoreError> {
        let inner = self.lock();
        let found = inner.revisions.iter().find(|revision| revision.info.revision == number);
        found.cloned().ok_or(StoreError::NotKept(number))
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.lock().changed.subscribe()
    }

    fn load_failing(&self) -> BTreeSet<Failing> {
        self.lock().failing.clone()
    }

    fn save_failing(&mut self, failing: &BTreeSet<Failing>) -> Result<(), StoreError> {
        self.lock().failing = failing.clone();
        Ok(())
    }
}

impl Prober for World {
    fn start(&mut self, probe: Probe, results: &mpsc::Sender<ProbeResult>) {
        let target = probe.check.target;
        *self.lock().probes.entry(target).or_default() += 1;
        let outcome = if self.lock().dead.contains(&target) { Err("refused".to_owned()) } else { Ok(()) };
        results.try_send(ProbeResult { id: probe.id, outcome, took: Duration::from_millis(2) }).unwrap();
    }
}

impl Datapath for World {
    fn plan(&self, wanted: &Wanted) -> anyhow::Result<Plan> {
        let steps = match self.lock().applied == *wanted {
            true => Vec::new(),
            false => vec![format!("serve {} services", wanted.services.len())],
        };
        Ok(Plan { steps, moves: Vec::new() })
    }

    fn apply(&mut self, wanted: &Wanted) -> anyhow::Result<Plan> {
        let plan = self.plan(wanted)?;
        let mut inner = self.lock();
        if let Some(refusal) = inner.refusals.pop() {
            // The worst case: it fails half-way.
            inner.applied = Wanted::default();
            bail!(refusal);
        }
        inner.applied = wanted.clone();
        Ok(plan)
    }

    fn traffic(&self, _: ServiceId, backend: SocketAddr) -> Traffic {
        let active_connections = self.lock().active.get(&backend).copied().unwrap_or_default();
        Traffic { active_connections, connections_total: 7 * active_connections, ..Traffic::default() }
    }

    fn connect_time(&self, _: ServiceId, _: SocketAddr) -> Option<ConnectTime> {
        None
    }

    /// One flow a page: so a list of two has a seam.
    fn flows(&self, service: Option<ServiceId>, FlowCursor(from): FlowCursor) -> FlowPage<FlowInfo> {
        let flows = self.lock().flows.clone();
        let of_service =
            |flow: &FlowInfo| service.is_none_or(|id| (id.vip, id.protocol) == (flow.vip, flow.protocol));
        let next = (from + 1 < flows.len()).then_some(FlowCursor(from + 1));
        FlowPage { flows: flows.into_iter().skip(from).take(1).filter(of_service).collect(), next }
    }

    fn explain(&self, protocol: Protocol, _: SocketAddr, vip: SocketAddr) -> Explanation {
        let applied = &self.lock().applied;
        let service =
            applied.services.iter().find(|service| (service.vip, service.protocol) == (vip, protocol));
        let backend = service.and_then(|service| service.backends.iter().find(|backend| backend.weight > 0));
        let reason = match (service, backend) {
            (None, _) => "no-service",
            (_, None) => "no-backend",
            _ => "slot",
        };
        let slot = backend.map(|_| 42);
        let backend = backend.map(|backend| backend.address);
        Explanation { backend, source: None, reason: reason.to_owned(), slot, candidates: Vec::new() }
    }

    fn interfaces(&self) -> Vec<InterfaceStatus> {
        let problem = self.lock().interface_problem.clone();
        vec![InterfaceStatus { name: "eth0".to_owned(), mode: "native".to_owned(), problem }]
    }

    fn source_addresses(&self) -> Vec<SourceAddress> {
        Vec::new()
    }

    fn flow_load(&self) -> FlowLoad {
        FlowLoad { active: self.lock().active.values().sum(), capacity: 1000, sweep_cpu_microseconds: 5 }
    }

    fn reasons(&self) -> Vec<ReasonCount> {
        ["request_forwarded", "drop_malformed"]
            .into_iter()
            .zip([9, 0])
            .map(|(reason, packets)| ReasonCount { reason: reason.to_owned(), packets })
            .collect()
    }

    fn events(&self) -> Vec<EventCount> {
        let (event, count) = ("flow_evicted".to_owned(), self.lock().evicted);
        vec![EventCount { event, count }]
    }

    fn follow_network(&mut self) -> Vec<InterfaceStatus> {
        self.interfaces()
    }

    fn unattended(&self) -> Option<Duration> {
        None
    }

    fn tick(&mut self) {}
}
