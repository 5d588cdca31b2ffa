//! A service and its backends, as the operator wants them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::affinity::Affinity;
use super::endpoint::Endpoint;
use super::fitness::{FitnessPolicy, Lease};
use super::guard::Guard;
use super::health::Checks;
use super::keyword::{Admin, Mode, OnBackendDown, OnNoBackend, Protocol, Retry, Strategy, Track};
use super::name::ServiceName;
use super::source_pool::SourcePool;
use super::weight::Weight;

/// A virtual address, port and protocol, and the backends that its flows are spread over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Names it, uniquely.
    pub name: ServiceName,
    /// What clients send to. Unique together with the protocol.
    pub vip: Endpoint,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// How new flows are spread.
    pub strategy: Strategy,
    /// How packets get to the backends.
    pub mode: Mode,
    /// The addresses that stand for clients; for [`Mode::FullNat`] alone.
    pub source_pool: SourcePool,
    /// Which flows are remembered.
    pub track: Track,
    /// What a new flow meets while no backend takes traffic.
    pub on_no_backend: OnNoBackend,
    /// What a flow meets whose backend is dead or removed.
    pub on_backend_down: OnBackendDown,
    /// Whether a connection that its backend refuses or does not answer is given another.
    pub retry: Retry,
    /// For how long a client's flows follow those before them.
    pub affinity: Affinity,
    /// Who gets in, and how often. Shared: a list can be long.
    pub guard: Arc<Guard>,
    /// What of its backends takes new flows, and how fast they come back.
    pub fitness: FitnessPolicy,
    /// What decides whether a backend is fit.
    pub health: Checks,
    /// Those that belong to it.
    pub backends: BTreeMap<Endpoint, Backend>,
    /// Those that were taken out and still have flows. None of them is in `backends` too.
    pub removing: BTreeMap<Endpoint, Removing>,
}

/// One server behind one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// Share of new flows.
    pub weight: Weight,
    /// What the operator wants of it.
    pub admin: Admin,
    /// Whether it takes traffic only while no other is fit.
    pub backup: bool,
    /// How long it is fit after it was last heard of.
    pub lease: Lease,
}

/// A backend that drains and goes with its last flow, or when its time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removing {
    /// The weight it had, for the case that it is kept after all.
    pub weight: Weight,
    /// Whether it was a backup, for the same.
    pub backup: bool,
    /// When it goes, flows or not. Wall-clock time: it outlives the agent.
    pub deadline: SystemTime,
}

impl Removing {
    /// A backend that goes.
    pub fn new(Backend { weight, backup, .. }: Backend, deadline: SystemTime) -> Self {
        Self { weight, backup, deadline }
    }

    /// The backend while it is on its way out.
    pub fn backend(self) -> Backend {
        Backend { weight: self.weight, backup: self.backup, admin: Admin::Draining, lease: Lease::default() }
    }
}

impl Service {
    /// A service with nothing but defaults, and no backends.
    pub fn new(name: ServiceName, vip: Endpoint, protocol: Protocol) -> Self {
        Self {
            name,
            vip,
            protocol,
            strategy: Strategy::default(),
            mode: Mode::default(),
            source_pool: SourcePool::default(),
            track: Track::default(),
            on_no_backend: OnNoBackend::default(),
            on_backend_down: OnBackendDown::default(),
            retry: Retry::default(),
            affinity: Affinity::default(),
            guard: Arc::default(),
            fitness: FitnessPolicy::default(),
            health: Checks::default_of(protocol),
            backends: BTreeMap::new(),
            removing: BTreeMap::new(),
        }
    }

    /// The addresses of all backends that packets may still go to, in order of neither.
    pub fn endpoints(&self) -> impl Iterator<Item = Endpoint> {
        self.backends.keys().chain(self.removing.keys()).copied()
    }
}
