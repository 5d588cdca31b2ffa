//! What the control task tells: plain data, true at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::health::checks_of;
use super::rates::{Rates, Sample};
use super::reports::{EffectiveWeight, LoadNow};
use super::wanted::{Known, Pool};
use super::{BackendKey, CheckNow, Condition, Control, ControlError, Timings, condition};
use crate::datapath::{
    ConnectTime, EventCount, Explanation, FlowCursor, FlowInfo, FlowLoad, FlowPage, InterfaceStatus,
    ReasonCount, ServiceId, SourceAddress, Traffic,
};
use crate::health::Health;
use crate::model::{Backend, Desired, Endpoint, Protocol, Service, ServiceName};

/// Everything that can be shown, but for single flows.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What is desired.
    pub desired: Arc<Desired>,
    /// The revision that holds it.
    pub revision: u64,
    /// For each service, the revision that changed it last.
    pub modified: Arc<BTreeMap<ServiceName, u64>>,
    /// Every backend, those on their way out included.
    pub backends: BTreeMap<BackendKey, BackendNow>,
    /// Services of which so few backends are fit that all take traffic.
    pub panicking: BTreeSet<ServiceName>,
    /// What each service carries a second.
    pub rates: BTreeMap<ServiceName, Rates>,
    /// Where the program is attached.
    pub interfaces: Vec<InterfaceStatus>,
    /// How full the flow table is.
    pub flows: FlowLoad,
    /// How much of the source addresses is in use.
    pub source_addresses: Vec<SourceAddress>,
    /// Whether disk and data plane are what they shall be.
    pub in_step: bool,
    /// How packets ended.
    pub reasons: Vec<ReasonCount>,
    /// What happened to them on their way.
    pub events: Vec<EventCount>,
    /// By how much each of these counters rises a second, by its name.
    pub counter_rates: BTreeMap<String, f64>,
    /// How long the agent's own work takes.
    pub timings: Timings,
    /// Since the agent started.
    pub uptime: Duration,
    /// For how long nobody had seen to the data plane when it did.
    pub unattended: Option<Duration>,
}

/// A backend as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendNow {
    /// What is wanted of it.
    pub backend: Backend,
    /// Whether it goes when it has drained.
    pub removing: bool,
    /// Whether it is fit.
    pub health: Health,
    /// Why it is held out, if it is.
    pub held: Option<String>,
    /// What they found last, if one has ended.
    pub check: Option<CheckNow>,
    /// The weight that the data plane uses.
    pub effective_weight: EffectiveWeight,
    /// What it reported of its load, if it did.
    pub load: Option<LoadNow>,
    /// What it carries.
    pub traffic: Traffic,
    /// What it carries a second.
    pub rates: Rates,
    /// How long connecting to it took, where that is measured.
    pub connect_time: Option<ConnectTime>,
    /// How long its connections stay, where there are enough of them to tell.
    pub connections_stay: Option<Duration>,
    /// What is the matter with it.
    pub condition: Condition,
    /// Why, or how far that is.
    pub condition_reason: Option<String>,
}

/// A flow with the service that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRow {
    /// Nothing where the service is gone by now.
    pub service: Option<ServiceName>,
    /// The flow.
    pub flow: FlowInfo,
}

/// Where a packet would go, with the service that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Nothing where there is none.
    pub service: Option<ServiceName>,
    /// The data plane's answer.
    pub explanation: Explanation,
}

impl Control {
    pub(super) fn snapshot(&self) -> Snapshot {
        let services = self.desired.services.values();
        Snapshot {
            desired: Arc::clone(&self.desired),
            revision: self.revision,
            modified: Arc::clone(&self.modified),
            backends: services.clone().flat_map(|service| self.backends_of(service)).collect(),
            panicking: self.panicking.clone(),
            rates: services
                .map(|service| (service.name.clone(), self.sampler.service(&service.name)))
                .collect(),
            interfaces: self.datapath.interfaces(),
            flows: self.datapath.flow_load(),
            source_addresses: self.datapath.source_addresses(),
            in_step: !self.out_of_step,
            reasons: self.datapath.reasons(),
            events: self.datapath.events(),
            counter_rates: self.sampler.counters().clone(),
            timings: self.timings.clone(),
            uptime: super::now().duration_since(self.started),
            unattended: self.datapath.unattended(),
        }
    }

    fn backends_of(&self, service: &Service) -> Vec<(BackendKey, BackendNow)> {
        let kept = service.backends.iter().map(|(address, backend)| (*address, *backend, false));
        let leaving = service.removing.iter().map(|(address, removing)| (*address, removing.backend(), true));
        let pool = Pool::of(service, |address| self.health(service, address));
        let backends = kept.chain(leaving).map(|(address, backend, removing)| {
            let key = (service.name.clone(), address);
            let known @ Known { health, .. } = self.known(service, address);
            let now = BackendNow {
                backend,
                removing,
                health,
                check: self.checked.worst(checks_of(service, address)),
                held: self.fitness.held(service, address, super::now()),
                effective_weight: pool.weight(service, backend, known),
                load: self.reports.last(&key, super::now()),
                traffic: self.traffic(service, address),
                rates: self.sampler.backend(&key),
                connect_time: self.datapath.connect_time(id_of(service), address.socket()),
                connections_stay: self.sampler.connections_stay(&key),
                condition: Condition::Ok,
                condition_reason: None,
            };
            (key, now)
        });
        let mut backends: Vec<_> = backends.collect();
        condition::judge(&mut backends.iter_mut().map(|(_, now)| now).collect::<Vec<_>>());
        backends
    }

    pub(super) fn traffic(&self, service: &Service, address: Endpoint) -> Traffic {
        self.datapath.traffic(id_of(service), address.socket())
    }

    /// Everything that has a rate.
    pub(super) fn sample(&self) -> Sample {
        let reasons = self.datapath.reasons().into_iter().map(|count| (count.reason, count.packets));
        let events = self.datapath.events().into_iter().map(|count| (count.event, count.count));
        let backends = self.desired.services.values().flat_map(|service| {
            service
                .endpoints()
                .map(|address| ((service.name.clone(), address), self.traffic(service, address)))
        });
        Sample { backends: backends.collect(), counters: reasons.chain(events).collect() }
    }

    pub(super) fn flows(
        &self,
        service: Option<&ServiceName>,
        from: FlowCursor,
    ) -> Result<FlowPage<FlowRow>, ControlError> {
        let id = service.map(|name| self.desired.service(name).map(id_of)).transpose()?;
        let names = self.names();
        let row = |flow: FlowInfo| {
            let id = ServiceId { vip: flow.vip, protocol: flow.protocol };
            FlowRow { service: names.get(&id).map(|name| (*name).clone()), flow }
        };
        let FlowPage { flows, next } = self.datapath.flows(id, from);
        Ok(FlowPage { flows: flows.into_iter().map(row).collect(), next })
    }

    pub(super) fn explain(&self, protocol: Protocol, client: SocketAddr, vip: SocketAddr) -> Explained {
        let service = self.names().get(&ServiceId { vip, protocol }).map(|name| (*name).clone());
        Explained { service, explanation: self.datapath.explain(protocol, client, vip) }
    }

    fn names(&self) -> BTreeMap<ServiceId, &ServiceName> {
        self.desired.services.values().map(|service| (id_of(service), &service.name)).collect()
    }
}

fn id_of(service: &Service) -> ServiceId {
    ServiceId { vip: service.vip.socket(), protocol: service.protocol }
}
