//! The seam between the control plane and the kernel.
//!
//! The control plane says what it wants ([`Wanted`]); a [`Datapath`] compares that with what it holds,
//! answers with a [`Plan`] that can be printed, and carries the plan out in an order in which every prefix
//! is safe. Nothing above this seam knows of maps, identifiers or slots.

mod announce;
mod arrays;
mod attach;
mod attachments;
mod attendance;
pub mod check;
mod clock;
mod detach;
mod diagnostics;
mod ethtool;
mod exceptions;
mod execute;
mod footprint;
mod generation;
mod grace;
mod host;
mod identity;
pub mod kernel;
mod links;
mod load;
mod netlink;
mod network;
mod next_hops;
mod observed;
mod pins;
mod plan;
mod prefixes;
mod rows;
mod sources;
mod start;
mod sweep;
mod sysctl;
mod tables;
mod view;
mod vip;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{Affinity, Guard, OnBackendDown, OnNoBackend, Protocol, Retry, Strategy, Track};
pub use footprint::footprint;
pub use network::Network;

/// Everything the data plane shall do: the desired state with the verdicts of health and drain applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// In the order of their names.
    pub services: Vec<WantedService>,
}

/// One service as the data plane shall serve it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedService {
    /// Only for what people read; the data plane knows a service by `vip` and `protocol`.
    pub name: String,
    /// Virtual address and port that clients send to.
    pub vip: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The addresses that stand for clients; none where the backends see the clients' own.
    pub source_pool: Vec<IpAddr>,
    /// Which table is built, and how a packet is mapped to its slot.
    pub strategy: Strategy,
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
    /// Who gets in, and how often.
    pub guard: Arc<Guard>,
    /// In the order of their addresses. Those that are gone for good are absent.
    pub backends: Vec<WantedBackend>,
}

/// One backend of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedBackend {
    /// Address and port that requests are rewritten to.
    pub address: SocketAddr,
    /// Share of new flows relative to the others; 0 takes none (draining, maintenance, unhealthy).
    pub weight: u32,
    /// The same in the measure of its service, where something else than the weight counts too: what its table is built by.
    pub shares: u32,
    /// Whether flows that are on this backend stay there. False for a dead one: its flows are re-balanced or reset.
    pub serving: bool,
}

/// What one backend of one service has carried since it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Traffic {
    /// Flows open now.
    pub active_connections: u64,
    /// Flows opened since the backend was added.
    pub connections_total: u64,
    /// Packets from clients.
    pub rx_packets_total: u64,
    /// Packets to clients.
    pub tx_packets_total: u64,
    /// Bytes from clients, as IP packets: the link layer is not counted.
    pub rx_bytes_total: u64,
    /// Bytes to clients, counted alike.
    pub tx_bytes_total: u64,
}

/// How long connecting to a backend took: from a client's SYN to the backend's SYN-ACK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ConnectTime {
    /// Smoothed, as it was at the last handshake.
    pub smoothed_microseconds: u64,
    /// Of all handshakes that were measured.
    pub sum_microseconds_total: u64,
    /// How many those were.
    pub count_total: u64,
    /// The same by how long they took.
    pub histogram: Vec<ConnectTimeBucket>,
}

/// Handshakes that took about the same time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ConnectTimeBucket {
    /// Less than this, and no less than the bucket before says; nothing for the last.
    pub below_microseconds: Option<u64>,
    /// How many took that long.
    pub count_total: u64,
}

/// A service as the data plane identifies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId {
    /// Virtual address and port.
    pub vip: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// One live flow, as `lb-agent flows` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowInfo {
    /// Virtual address and port.
    pub vip: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The client's address and port.
    pub client: SocketAddr,
    /// The backend that serves it.
    pub backend: SocketAddr,
    /// The address and port that the backend sees instead of the client's, with full NAT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SocketAddr>,
    /// `half-open`, `established`, `closing`, ...
    pub state: String,
    /// Whole seconds since its last packet, within the resolution of the flow's stamp.
    pub idle_seconds: u64,
}

/// Where a list of flows goes on: a bucket of the flow tables, the IPv6 table's after the IPv4 table's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCursor(pub usize);

/// A part of the list of flows. Flows that come and go meanwhile may be listed or not; none is listed twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowPage<F> {
    /// Any number of them, none included.
    pub flows: Vec<F>,
    /// Where the next part begins; nothing after the last one.
    pub next: Option<FlowCursor>,
}

/// Which backend a packet would go to, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The backend, if one takes it.
    pub backend: Option<SocketAddr>,
    /// The address and port that the backend sees instead of the client's: of a flow that is known, with full NAT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SocketAddr>,
    /// `flow`, `half-open`, `affinity`, `slot`, `candidates`, `no-service`, `no-backend` or `contradiction`.
    pub reason: String,
    /// Index into the service's slot table, where one was asked.
    pub slot: Option<u32>,
    /// Where chance, a counter or load decides: who may win, with the share of the slots.
    pub candidates: Vec<Candidate>,
}

/// One possible choice, where more than the packet decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Candidate {
    /// The backend.
    #[schema(value_type = String)]
    pub backend: SocketAddr,
    /// Its slots over all slots, in percent times 100.
    pub share_basis_points: u32,
}

/// One interface that the program is configured for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct InterfaceStatus {
    /// The interface's name.
    pub name: String,
    /// How the program runs on it: `native` or `generic`; `none` where it does not.
    pub mode: String,
    /// Why no packets are balanced there, if so: the interface is not there, refuses the program, or has no link.
    pub problem: Option<String>,
}

impl Default for InterfaceStatus {
    fn default() -> Self {
        Self { name: String::new(), mode: "none".to_owned(), problem: None }
    }
}

/// How full the flow table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FlowLoad {
    /// Live entries at the last sweep.
    pub active: u64,
    /// Flows that `[limits] flows` provides for.
    pub capacity: u64,
    /// CPU time of the last whole sweep, which looks at every entry.
    pub sweep_cpu_microseconds: u64,
}

/// How much of a source address is in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SourceAddress {
    /// The address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Its ports that flows can have.
    pub ports: u64,
    /// Those that flows have.
    pub used: u64,
    /// Those that no flow has, but that rest from the one that had it.
    pub resting: u64,
}

/// A counter of packet outcomes, as the kernel counted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonCount {
    /// Stable name, as in the documentation and the metrics.
    pub reason: String,
    /// Packets since the program was loaded.
    pub packets: u64,
}

/// A counter of what happened to packets on their way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventCount {
    /// Stable name, as in the documentation and the metrics.
    pub event: String,
    /// How often since the program was loaded.
    pub count: u64,
}

/// What has to be done, in order, to get from what is there to what is wanted. Data, not code: it can be printed and tested.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// One line each, as `apply --dry-run` prints it.
    pub steps: Vec<String>,
    /// What that moves, for each service from which something moves.
    pub moves: Vec<Move>,
}

/// What a plan moves of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Move {
    /// Its name, or its virtual address where it goes.
    pub service: String,
    /// Slots that go to another backend.
    pub slots: u64,
    /// Slots that it has.
    pub slots_total: u64,
    /// Live flows that came by one of those slots, by estimate. They stay with their backend.
    pub flows_on_slots: u64,
    /// Live flows of backends that go, or are down: they are given to others, or reset.
    pub flows_leaving: u64,
    /// Live flows that it has.
    pub flows_total: u64,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

/// What carries packets. Two implementations: the kernel's, and one in memory for the control plane's tests.
///
/// Owned by one task; there is no second writer.
pub trait Datapath: Send {
    /// What [`apply`](Self::apply) would do. Changes nothing.
    fn plan(&self, wanted: &Wanted) -> anyhow::Result<Plan>;

    /// Makes the data plane do what is wanted.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses or a limit is reached; what was done until then is a safe state, and calling
    /// again goes on from there.
    fn apply(&mut self, wanted: &Wanted) -> anyhow::Result<Plan>;

    /// What a backend has carried; zeros for one that is not there.
    fn traffic(&self, service: ServiceId, backend: SocketAddr) -> Traffic;

    /// How long connecting to a backend took; nothing where that was not measured.
    fn connect_time(&self, service: ServiceId, backend: SocketAddr) -> Option<ConnectTime>;

    /// A part of the list of live flows, of one service or of all.
    fn flows(&self, service: Option<ServiceId>, from: FlowCursor) -> FlowPage<FlowInfo>;

    /// Where a packet from `client` to `vip` would go. No side effects.
    fn explain(&self, protocol: Protocol, client: SocketAddr, vip: SocketAddr) -> Explanation;

    /// The interfaces that the program is configured for.
    fn interfaces(&self) -> Vec<InterfaceStatus>;

    /// How full the flow table is.
    fn flow_load(&self) -> FlowLoad;

    /// The source addresses of full NAT, and how much of each is in use.
    fn source_addresses(&self) -> Vec<SourceAddress>;

    /// Every packet outcome with its count, in the order of the documentation.
    fn reasons(&self) -> Vec<ReasonCount>;

    /// Everything that is counted besides, in the order of the documentation.
    fn events(&self) -> Vec<EventCount>;

    /// Acts on what has changed in the network around, to be called when [`Network::changed`] says so. The interfaces
    /// that are other than before; addresses may be.
    fn follow_network(&mut self) -> Vec<InterfaceStatus>;

    /// For how long nobody had seen to the data plane when this was opened: packets were balanced, but health, expiry and drain stood
    /// still. Nothing where the data plane is new.
    fn unattended(&self) -> Option<Duration>;

    /// Housekeeping: expires idle flows, frees identifiers. To be called about once a second.
    fn tick(&mut self);
}
