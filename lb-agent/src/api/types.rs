//! What the API answers with. Field names are a contract: scripts and the command line read them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::tcp::HttpCounts;
use crate::control::{CheckNow, Condition, EffectiveWeight, LoadNow, Rates};
use crate::datapath::{Candidate, ConnectTime, FlowLoad, InterfaceStatus, Move, SourceAddress, Traffic};
use crate::health::Health;
use crate::model::{
    Admin, Affinity, Checks, Damping, Endpoint, Lease, Mode, OnBackendDown, OnNoBackend, PanicThreshold,
    Protocol, Retry, ServiceName, SlowStart, SourcePool, Strategy, Track, Weight,
};
use crate::model::{FlowLimit, Prefix};

/// A service in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServiceView {
    /// Its name.
    pub name: ServiceName,
    /// Virtual address and port.
    pub vip: Endpoint,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// How new flows are spread.
    pub strategy: Strategy,
    /// How packets get to the backends.
    pub mode: Mode,
    /// The addresses that stand for clients, with full NAT.
    #[serde(default, skip_serializing_if = "SourcePool::is_empty")]
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
    /// What decides whether a backend is fit.
    pub health: Checks,
    /// The revision that changed it, or a backend of it, last.
    pub revision: u64,
    /// How many backends it has, those included that are being removed.
    pub backends: usize,
    /// How many of them are known to be fit; where nothing is checked, all.
    pub healthy_backends: usize,
    /// Whether so few are left that all of them take traffic, fit or not.
    #[serde(default)]
    pub panicking: bool,
    /// Flows open now, over its backends.
    pub active_connections: u64,
    /// Flows opened, over the backends that it has now.
    pub connections_total: u64,
}

/// A service with its backends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServiceDetail {
    /// The service.
    #[serde(flatten)]
    pub service: ServiceView,
    /// Limit of its new flows.
    pub limit_new_flows: FlowLimit,
    /// Limit of each source's.
    pub limit_source: FlowLimit,
    /// Clients that get in; if there are any, nobody else does.
    pub allow: BTreeSet<Prefix>,
    /// Clients that do not.
    pub deny: BTreeSet<Prefix>,
    /// Below which share of fit backends all are used.
    #[serde(default)]
    pub panic_threshold: PanicThreshold,
    /// How long a backend takes to grow into its weight.
    #[serde(default)]
    pub slow_start: SlowStart,
    /// How long a backend that does not stay is held out at most.
    #[serde(default)]
    pub damping: Damping,
    /// Its backends.
    pub backend_list: Vec<BackendView>,
}

/// A backend of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BackendView {
    /// The service's name.
    pub service: ServiceName,
    /// Where requests go.
    pub address: Endpoint,
    /// Share of new flows that is wanted.
    pub weight: Weight,
    /// The share it gets: 0 while it drains or is unfit; with `resource-based`, the weight times its headroom.
    pub effective_weight: EffectiveWeight,
    /// What it reported of its load; nothing where it has not.
    pub load: Option<LoadNow>,
    /// What the operator wants of it.
    pub admin: Admin,
    /// Whether it takes traffic only while no other is fit.
    #[serde(default)]
    pub backup: bool,
    /// How long it is fit after it was last heard of; `off` where nothing is to be heard.
    #[serde(default)]
    pub lease: Lease,
    /// Whether it is fit.
    pub health: Health,
    /// What its checks found last; nothing where none has ended.
    pub check: Option<CheckNow>,
    /// What is the matter with it, in one word.
    pub condition: Condition,
    /// Why, or how far that is.
    pub condition_reason: Option<String>,
    /// Whether it goes when it has drained.
    pub removing: bool,
    /// What it carries.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// What it carries a second.
    #[serde(flatten)]
    pub rates: Rates,
    /// How long connecting to it took; with other strategies than `least-latency`, of one flow in eight. Nothing where none
    /// was measured.
    pub connect_time: Option<ConnectTime>,
    /// How long its connections stay, by how many there are and how many are opened; nothing where few are opened.
    pub connections_stay_microseconds: Option<u64>,
}

/// The whole on one screen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StatusView {
    /// The agent's version.
    pub version: String,
    /// The revision of the state.
    pub revision: u64,
    /// Whether disk and data plane are what they shall be; if not, it is tried again every second.
    pub in_step: bool,
    /// What became of requests over TCP.
    pub http: HttpCounts,
    /// Since the agent started.
    pub uptime_seconds: u64,
    /// For how long no agent had run when this one started: packets were balanced, but health checks, drain and the expiry of idle flows stood
    /// still. Nothing where the data plane was new.
    pub unattended_seconds: Option<u64>,
    /// Where the program is attached, and how.
    pub interfaces: Vec<InterfaceStatus>,
    /// How many services there are.
    pub services: usize,
    /// How many backends there are, over all services.
    pub backends: usize,
    /// How full the flow table is.
    pub flows: FlowLoad,
    /// How much of the source addresses of full NAT is in use.
    #[serde(default)]
    pub source_addresses: Vec<SourceAddress>,
    /// Every service with its rates.
    pub service_rates: Vec<ServiceRates>,
    /// The backends that something is the matter with, the worst first.
    pub attention: Vec<AttentionView>,
    /// How packets ended, every way with its count.
    pub reasons: Vec<ReasonView>,
    /// What happened to packets on their way, every kind with its count.
    pub events: Vec<EventView>,
}

/// A backend that something is the matter with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AttentionView {
    /// The service's name.
    pub service: ServiceName,
    /// The backend.
    pub backend: Endpoint,
    /// What it is.
    pub condition: Condition,
    /// Why, or how far that is.
    pub reason: Option<String>,
}

/// A way in which packets ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReasonView {
    /// Stable name, as `docs/counters.md` explains it.
    pub reason: String,
    /// Packets since the program was first attached.
    pub packets: u64,
    /// Packets a second, over the last second or so.
    pub packets_per_second: f64,
}

/// Something that happened to packets on their way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EventView {
    /// Stable name, as `docs/counters.md` explains it.
    pub event: String,
    /// How often since the program was first attached.
    pub count: u64,
    /// How often a second, over the last second or so.
    pub per_second: f64,
}

/// A service as the status shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServiceRates {
    /// The service.
    #[serde(flatten)]
    pub service: ServiceView,
    /// Backends that new flows go to.
    pub active_backends: usize,
    /// What it carries a second.
    #[serde(flatten)]
    pub rates: Rates,
}

/// A live flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FlowView {
    /// The service's name; nothing where it is gone by now.
    pub service: Option<ServiceName>,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where it comes from.
    #[schema(value_type = String)]
    pub client: std::net::SocketAddr,
    /// Where the client sends to.
    #[schema(value_type = String)]
    pub vip: std::net::SocketAddr,
    /// Where it goes.
    #[schema(value_type = String)]
    pub backend: std::net::SocketAddr,
    /// What the backend sees instead of the client, with full NAT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub source: Option<std::net::SocketAddr>,
    /// `half-open`, `established`, `closing`, ...
    pub state: String,
    /// Since its last packet.
    pub idle_seconds: u64,
}

/// Where a packet would go, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExplainView {
    /// The service that it is for.
    pub service: Option<ServiceName>,
    /// The backend that takes it.
    #[schema(value_type = Option<String>)]
    pub backend: Option<std::net::SocketAddr>,
    /// What the backend sees instead of the client: of a flow that is known, with full NAT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub source: Option<std::net::SocketAddr>,
    /// `flow`, `half-open`, `affinity`, `slot`, `candidates`, `no-service`, `no-backend` or `contradiction`.
    pub reason: String,
    /// The slot that was asked, if one was.
    pub slot: Option<u32>,
    /// Who may take it, where chance or load decides.
    pub candidates: Vec<Candidate>,
}

/// What a declared state changed, or would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ChangedView {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// The revision that holds the change; for a dry run, the one that it was tried on.
    pub revision: u64,
    /// What differs in the desired state.
    pub changes: Vec<String>,
    /// What the data plane does for it, in order.
    pub steps: Vec<String>,
    /// What that moves, for each service from which something moves.
    pub moves: Vec<Move>,
}
