//! The state as a file: what `apply` takes and `export` prints.
//!
//! The printed form is canonical: every key in a fixed order, defaults written out, services and backends sorted.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Deserialize;

use super::affinity::Affinity;
use super::desired::Desired;
use super::endpoint::Endpoint;
use super::fitness::{Damping, FitnessPolicy, Lease, PanicThreshold, SlowStart};
use super::flow_limit::FlowLimit;
use super::guard::Guard;
use super::health::{Checks, HealthSpec, OptionValue};
use super::keyword::{Admin, Mode, OnBackendDown, OnNoBackend, Protocol, Retry, Strategy, Track};
use super::name::ServiceName;
use super::prefix::Prefix;
use super::quote::{Quoted, shorten};
use super::refusal::Refusal;
use super::service::{Backend, Service};
use super::source_pool::SourcePool;
use super::weight::Weight;

/// A file that cannot be read: one line that names the file, the line and the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FileError(String);

/// A state as typed, in TOML or JSON.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RawState {
    #[serde(default, rename = "service")]
    services: Vec<RawService>,
}

/// A service as typed: what is absent takes its default.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RawService {
    name: ServiceName,
    vip: Endpoint,
    #[serde(default)]
    protocol: Protocol,
    #[serde(default)]
    strategy: Strategy,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    source_pool: SourcePool,
    #[serde(default)]
    track: Track,
    #[serde(default, rename = "on-no-backend")]
    on_no_backend: OnNoBackend,
    #[serde(default, rename = "on-backend-down")]
    on_backend_down: OnBackendDown,
    #[serde(default)]
    retry: Retry,
    #[serde(default)]
    affinity: Affinity,
    #[serde(default, rename = "limit-new-flows")]
    limit_new_flows: FlowLimit,
    #[serde(default, rename = "limit-source")]
    limit_source: FlowLimit,
    #[serde(default)]
    allow: BTreeSet<Prefix>,
    #[serde(default)]
    deny: BTreeSet<Prefix>,
    #[serde(default, rename = "panic-threshold")]
    panic_threshold: PanicThreshold,
    #[serde(default, rename = "slow-start")]
    slow_start: SlowStart,
    #[serde(default)]
    damping: Damping,
    health: Option<Checks>,
    #[serde(default, rename = "backend")]
    backends: Vec<RawBackend>,
}

/// A backend as typed.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RawBackend {
    /// Where requests go.
    pub address: Endpoint,
    #[serde(default)]
    weight: Weight,
    #[serde(default)]
    admin: Admin,
    #[serde(default)]
    backup: bool,
    #[serde(default)]
    lease: Lease,
}

/// Reads a state file. `origin` names it in errors.
///
/// # Errors
/// Where it is not TOML, has an unknown key or a bad value, or names a service or backend twice.
pub fn parse(text: &str, origin: &str) -> Result<Desired, FileError> {
    let raw: RawState = read_toml(text, origin)?;
    raw.desired().map_err(|refusal| FileError(format!("{origin}: {refusal}")))
}

/// Reads any TOML file, with an error that names the file, the line and what stands there.
pub fn read_toml<'de, T: Deserialize<'de>>(text: &'de str, origin: &str) -> Result<T, FileError> {
    toml::from_str(text).map_err(|error: toml::de::Error| FileError(describe(&error, text, origin)))
}

fn describe(error: &toml::de::Error, text: &str, origin: &str) -> String {
    let reason = shorten(error.message(), 400);
    let reason = reason.replace("unknown field", "unknown key").replace("missing field", "missing key");
    match error.span() {
        Some(span) => at(text, origin, span.start, &reason),
        None => format!("{origin}: {reason}"),
    }
}

/// A reason with the file, the line and what stands there.
fn at(text: &str, origin: &str, offset: usize, reason: &str) -> String {
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    let number = before.iter().filter(|&&byte| byte == b'\n').count();
    match text.lines().nth(number).unwrap_or_default().trim() {
        "" => format!("{origin} line {}: {reason}", number + 1),
        line => format!("{origin} line {}, {}: {reason}", number + 1, Quoted(line)),
    }
}

impl From<Vec<RawService>> for RawState {
    fn from(services: Vec<RawService>) -> Self {
        Self { services }
    }
}

impl RawState {
    /// The state it describes.
    ///
    /// # Errors
    /// Where a name or an address stands there twice.
    pub fn desired(self) -> Result<Desired, Refusal> {
        let mut desired = Desired::default();
        for raw in self.services {
            let service = raw.service()?;
            let name = service.name.clone();
            if desired.services.insert(name.clone(), service).is_some() {
                return Err(Refusal::RepeatedService(name));
            }
        }
        Ok(desired)
    }
}

impl RawService {
    /// The service it describes.
    ///
    /// # Errors
    /// Where a backend stands there twice.
    pub fn service(self) -> Result<Service, Refusal> {
        let Self { limit_new_flows, limit_source, allow, deny, .. } = self;
        let guard = Guard { limit_new_flows, limit_source, allow, deny };
        let Self { panic_threshold, slow_start, damping, .. } = self;
        let mut service = Service {
            fitness: FitnessPolicy { panic_threshold, slow_start, damping },
            guard: Arc::new(guard.for_vip(self.vip)),
            strategy: self.strategy,
            mode: self.mode,
            source_pool: self.source_pool,
            track: self.track,
            on_no_backend: self.on_no_backend,
            on_backend_down: self.on_backend_down,
            retry: self.retry,
            affinity: self.affinity,
            ..Service::new(self.name, self.vip, self.protocol)
        };
        if let Some(health) = self.health {
            service.health = health;
        }
        for raw in self.backends {
            if service.backends.insert(raw.address, raw.backend()).is_some() {
                return Err(Refusal::RepeatedBackend(service.name, raw.address));
            }
        }
        Ok(service)
    }
}

impl RawBackend {
    /// The backend it describes, without its address.
    pub fn backend(&self) -> Backend {
        Backend { weight: self.weight, admin: self.admin, backup: self.backup, lease: self.lease }
    }
}

/// Prints a state. Backends that are being removed are no longer part of what is wanted, and left out.
pub fn print(desired: &Desired) -> String {
    let mut text = String::new();
    for service in desired.services.values() {
        if !text.is_empty() {
            text.push('\n');
        }
        // Writing to a string cannot fail.
        let _ = print_service(&mut text, service);
    }
    text
}

// No value but those of a check's options needs escaping: names, addresses and words are plain by construction.
fn print_service(text: &mut String, service: &Service) -> std::fmt::Result {
    writeln!(text, "[[service]]")?;
    writeln!(text, "name = \"{}\"", service.name)?;
    writeln!(text, "vip = \"{}\"", service.vip)?;
    writeln!(text, "protocol = \"{}\"", service.protocol)?;
    writeln!(text, "strategy = \"{}\"", service.strategy)?;
    writeln!(text, "mode = \"{}\"", service.mode)?;
    if !service.source_pool.is_empty() {
        writeln!(text, "source_pool = {}", service.source_pool)?;
    }
    writeln!(text, "track = \"{}\"", service.track)?;
    writeln!(text, "on-no-backend = \"{}\"", service.on_no_backend)?;
    writeln!(text, "on-backend-down = \"{}\"", service.on_backend_down)?;
    writeln!(text, "retry = \"{}\"", service.retry)?;
    writeln!(text, "affinity = \"{}\"", service.affinity)?;
    writeln!(text, "limit-new-flows = \"{}\"", service.guard.limit_new_flows)?;
    writeln!(text, "limit-source = \"{}\"", service.guard.limit_source)?;
    print_prefixes(text, "allow", &service.guard.allow)?;
    print_prefixes(text, "deny", &service.guard.deny)?;
    writeln!(text, "panic-threshold = \"{}\"", service.fitness.panic_threshold)?;
    writeln!(text, "slow-start = \"{}\"", service.fitness.slow_start)?;
    writeln!(text, "damping = \"{}\"", service.fitness.damping)?;
    if service.health.is_empty() {
        writeln!(text, "\n[service.health]\ntype = \"none\"")?;
    }
    for check in service.health.iter() {
        let header = if service.health.len() == 1 { "[service.health]" } else { "[[service.health]]" };
        writeln!(text, "\n{header}")?;
        print_check(text, check)?;
    }
    for (address, backend) in &service.backends {
        writeln!(text, "\n[[service.backend]]")?;
        writeln!(text, "address = \"{address}\"")?;
        writeln!(text, "weight = {}", backend.weight)?;
        writeln!(text, "admin = \"{}\"", backend.admin)?;
        if backend.backup {
            writeln!(text, "backup = true")?;
        }
        if backend.lease != Lease::default() {
            writeln!(text, "lease = \"{}\"", backend.lease)?;
        }
    }
    Ok(())
}

/// One prefix a line where there are several, so that versions of a long list can be compared.
fn print_prefixes(text: &mut String, key: &str, prefixes: &BTreeSet<Prefix>) -> std::fmt::Result {
    if prefixes.len() < 2 {
        let one = prefixes.first().map(|prefix| format!("\"{prefix}\"")).unwrap_or_default();
        return writeln!(text, "{key} = [{one}]");
    }
    writeln!(text, "{key} = [")?;
    prefixes.iter().try_for_each(|prefix| writeln!(text, "    \"{prefix}\","))?;
    writeln!(text, "]")
}

fn print_check(text: &mut String, check: &HealthSpec) -> std::fmt::Result {
    writeln!(text, "type = \"{}\"", check.kind())?;
    writeln!(text, "interval = \"{}\"", check.interval)?;
    writeln!(text, "timeout = \"{}\"", check.timeout)?;
    if !check.jitter.duration().is_zero() {
        writeln!(text, "jitter = \"{}\"", check.jitter)?;
    }
    writeln!(text, "rise = {}", check.rise)?;
    writeln!(text, "fall = {}", check.fall)?;
    check.port.map_or(Ok(()), |port| writeln!(text, "port = {port}"))?;
    check.action.options().iter().try_for_each(|(key, value)| match value {
        OptionValue::Flag(flag) => writeln!(text, "{key} = {flag}"),
        OptionValue::Text(value) => writeln!(text, "{key} = {}", quote(value)),
    })
}

/// A text without control characters as a TOML string.
pub fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
#[path = "file_tests.rs"]
pub(crate) mod tests;
