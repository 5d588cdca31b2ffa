//! The desired state: what the operator asked for, validated.
//!
//! Every value type here can only be made by parsing, so whoever holds one holds a valid one. What concerns several
//! objects at once (duplicates, families, limits) is checked by [`Desired::validate`], on whatever way a change came.

mod affinity;
mod change;
mod desired;
mod diff;
mod endpoint;
pub mod file;
mod fitness;
mod flow_limit;
mod guard;
mod health;
mod keyword;
mod load;
mod name;
mod period;
mod prefix;
mod quote;
mod refusal;
mod service;
mod source_pool;
mod span;
mod text;
mod timestamp;
mod weight;

pub use affinity::Affinity;
pub use change::{BackendChange, Change, Removal, ServiceChange};
pub use desired::Desired;
pub use diff::{differences, listed};
pub use endpoint::Endpoint;
pub use fitness::{Damping, FitnessPolicy, Lease, PanicThreshold, SlowStart};
pub use flow_limit::FlowLimit;
pub use guard::Guard;
pub use health::{CheckAction, Checks, Datagram, HealthArgument, HealthSpec, HttpRequest, TlsPolicy};
pub use keyword::{Admin, HealthType, Mode, OnBackendDown, OnNoBackend, Protocol, Retry, Strategy, Track};
pub use load::Load;
pub use name::ServiceName;
pub use period::Period;
pub use prefix::Prefix;
pub use quote::{Quoted, shorten};
pub use refusal::Refusal;
pub use service::{Backend, Removing, Service};
pub use source_pool::{PoolAddress, SourcePool};
pub use timestamp::Timestamp;
pub use weight::Weight;
