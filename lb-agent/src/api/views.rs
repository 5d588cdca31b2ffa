//! From what the control task tells to what the API answers. Pure.

use std::time::Duration;

use super::tcp::HttpCounts;
use super::types::{
    AttentionView, BackendView, ChangedView, EventView, ExplainView, FlowView, ReasonView, ServiceDetail,
    ServiceRates, ServiceView, StatusView,
};
use crate::control::{BackendNow, Changed, Condition, Explained, FlowRow, Snapshot};
use crate::datapath::{EventCount, Explanation, FlowInfo, ReasonCount};
use crate::health::Health;
use crate::model::{Endpoint, FitnessPolicy, Guard, Refusal, Service, ServiceName};

impl Snapshot {
    /// The revision that changed a service last; of one that is not there, the latest.
    pub(super) fn revision_of(&self, name: &ServiceName) -> u64 {
        self.modified.get(name).copied().unwrap_or(self.revision)
    }

    /// Every service, by name.
    pub(super) fn services(&self) -> Vec<ServiceView> {
        self.desired.services.values().map(|service| self.view(service)).collect()
    }

    /// One service with its backends.
    pub(super) fn service(&self, name: &ServiceName) -> Result<ServiceDetail, Refusal> {
        let wanted = self.desired.service(name)?;
        let Guard { limit_new_flows, limit_source, allow, deny } = Guard::clone(&wanted.guard);
        let (service, backend_list) = (self.view(wanted), self.backends_of(name)?);
        let FitnessPolicy { panic_threshold, slow_start, damping } = wanted.fitness;
        Ok(ServiceDetail {
            service,
            limit_new_flows,
            limit_source,
            allow,
            deny,
            panic_threshold,
            slow_start,
            damping,
            backend_list,
        })
    }

    /// Every backend of every service.
    pub(super) fn backends(&self) -> Vec<BackendView> {
        self.backends.iter().map(|((service, address), now)| backend_view(service, *address, now)).collect()
    }

    /// The backends of a service.
    pub(super) fn backends_of(&self, name: &ServiceName) -> Result<Vec<BackendView>, Refusal> {
        let service = self.desired.service(name)?;
        Ok(self.of(service).map(|(address, now)| backend_view(name, address, now)).collect())
    }

    /// One backend.
    pub(super) fn backend(&self, name: &ServiceName, address: Endpoint) -> Result<BackendView, Refusal> {
        let all = self.backends_of(name)?;
        let found = all.into_iter().find(|backend| backend.address == address);
        found.ok_or_else(|| Refusal::UnknownBackend(name.clone(), address))
    }

    /// The whole.
    pub(super) fn status(self, http: HttpCounts) -> StatusView {
        let rate = |name: &String| self.counter_rates.get(name).copied().unwrap_or_default();
        let reason = |ReasonCount { reason, packets }: &ReasonCount| ReasonView {
            packets_per_second: rate(reason),
            reason: reason.clone(),
            packets: *packets,
        };
        let event = |EventCount { event, count }: &EventCount| EventView {
            per_second: rate(event),
            event: event.clone(),
            count: *count,
        };
        StatusView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: self.revision,
            in_step: self.in_step,
            http,
            uptime_seconds: self.uptime.as_secs(),
            unattended_seconds: self.unattended.map(|time| time.as_secs()),
            services: self.desired.services.len(),
            backends: self.desired.backend_count(),
            service_rates: self.desired.services.values().map(|service| self.rates(service)).collect(),
            attention: self.attention(),
            reasons: self.reasons.iter().map(reason).collect(),
            events: self.events.iter().map(event).collect(),
            interfaces: self.interfaces,
            flows: self.flows,
            source_addresses: self.source_addresses,
        }
    }

    fn attention(&self) -> Vec<AttentionView> {
        let view = |((service, backend), now): (&(ServiceName, Endpoint), &BackendNow)| AttentionView {
            service: service.clone(),
            backend: *backend,
            condition: now.condition,
            reason: now.condition_reason.clone(),
        };
        let mut all: Vec<_> =
            self.backends.iter().filter(|(_, now)| now.condition != Condition::Ok).map(view).collect();
        all.sort_by_key(|each| each.condition);
        all
    }

    fn rates(&self, service: &Service) -> ServiceRates {
        ServiceRates {
            service: self.view(service),
            active_backends: self.of(service).filter(|(_, now)| now.effective_weight.is_some()).count(),
            rates: self.rates.get(&service.name).copied().unwrap_or_default(),
        }
    }

    fn view(&self, service: &Service) -> ServiceView {
        let is_fit = |now: &BackendNow| service.health.is_empty() || now.health == Health::Healthy;
        ServiceView {
            name: service.name.clone(),
            vip: service.vip,
            protocol: service.protocol,
            strategy: service.strategy,
            mode: service.mode,
            source_pool: service.source_pool.clone(),
            track: service.track,
            on_no_backend: service.on_no_backend,
            on_backend_down: service.on_backend_down,
            retry: service.retry,
            affinity: service.affinity,
            health: service.health.clone(),
            revision: self.revision_of(&service.name),
            backends: self.of(service).count(),
            healthy_backends: self.of(service).filter(|(_, now)| is_fit(now)).count(),
            panicking: self.panicking.contains(&service.name),
            active_connections: self.of(service).map(|(_, now)| now.traffic.active_connections).sum(),
            connections_total: self.of(service).map(|(_, now)| now.traffic.connections_total).sum(),
        }
    }

    fn of<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = (Endpoint, &'a BackendNow)> {
        let mut addresses: Vec<_> = service.endpoints().collect();
        addresses.sort();
        addresses.into_iter().filter_map(|at| Some((at, self.backends.get(&(service.name.clone(), at))?)))
    }
}

fn backend_view(service: &ServiceName, address: Endpoint, now: &BackendNow) -> BackendView {
    BackendView {
        service: service.clone(),
        address,
        weight: now.backend.weight,
        effective_weight: now.effective_weight,
        load: now.load,
        admin: now.backend.admin,
        backup: now.backend.backup,
        lease: now.backend.lease,
        health: now.health,
        check: now.check.clone(),
        condition: now.condition,
        condition_reason: now.condition_reason.clone(),
        removing: now.removing,
        traffic: now.traffic,
        rates: now.rates,
        connect_time: now.connect_time.clone(),
        connections_stay_microseconds: now.connections_stay.map(micros),
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}

impl ChangedView {
    /// What was done, or would be.
    pub(super) fn new(changed: Changed, dry_run: bool) -> Self {
        let Changed { changes, plan, revision } = changed;
        Self { dry_run, revision, changes, steps: plan.steps, moves: plan.moves }
    }
}

impl From<FlowRow> for FlowView {
    fn from(FlowRow { service, flow }: FlowRow) -> Self {
        let FlowInfo { vip, protocol, client, backend, source, state, idle_seconds } = flow;
        Self { service, protocol, client, vip, backend, source, state, idle_seconds }
    }
}

impl From<Explained> for ExplainView {
    fn from(Explained { service, explanation }: Explained) -> Self {
        let Explanation { backend, source, reason, slot, candidates } = explanation;
        Self { service, backend, source, reason, slot, candidates }
    }
}
