//! What is set for a service besides its table: its options, written at once, and what they lead packets to.

use std::sync::Arc;

use lb_common::limit::Limit;
use lb_common::service::Options;
use lb_common::settings::Settings;

use super::Action;
use super::diff::{Differ, Target};
use crate::datapath::WantedService;
use crate::datapath::prefixes::list;
use crate::model::{FlowLimit, OnBackendDown, Retry, Track};

impl Differ<'_> {
    /// Gives services in use the options that they shall have. Before backends go, whose flows meet them.
    pub(super) fn set_options(&mut self, targets: &[Target<'_>]) {
        for target in targets.iter().filter(|target| target.table.is_some()) {
            let options = self.options(target);
            self.set_limits(target);
            let Some(service) = self.now.services.get_mut(&target.vip) else { continue };
            // Full NAT or not is said when the row is written: flows mean something else then.
            debug_assert_eq!(service.options.has(Options::FULL_NAT), options.has(Options::FULL_NAT));
            if service.options != options {
                service.options = options;
                self.act(Action::SetOptions { service: target.id, options });
            }
        }
    }

    /// The options of a service, whose prefix lists are written first.
    pub(super) fn options(&mut self, target: &Target<'_>) -> Options {
        let options = flags(target.service, self.arrays.settings());
        let wanted = Arc::new(list(&target.service.guard));
        if wanted.is_empty() {
            return options;
        }
        let current = self.now.services.get(&target.vip).map(|service| service.options);
        let current = current.filter(|options| options.has(Options::PREFIX_LISTS));
        let is_there = |generation: &u16| self.now.lists.get(&(target.id, *generation)) == Some(&wanted);
        if let Some(generation) = current.map(Options::list_generation).filter(is_there) {
            return options.with_list(generation);
        }
        let is_free = |generation: &u16| !self.now.lists.contains_key(&(target.id, *generation));
        let generation = (0..=u16::MAX).find(is_free).unwrap_or_default();
        let (allowed, denied) = (target.service.guard.allow.len(), target.service.guard.deny.len());
        self.say(format!(
            "service {}: prefix lists with {allowed} allowed and {denied} denied",
            target.service.name
        ));
        self.now.lists.insert((target.id, generation), Arc::clone(&wanted));
        self.act(Action::WriteList { service: target.id, generation, list: wanted });
        options.with_list(generation)
    }

    /// Tells the limits of a service in use. Before the options that switch them on, and without them they are not asked for.
    pub(super) fn set_limits(&mut self, target: &Target<'_>) {
        let limits = limits(target.service, self.arrays.settings().jiffies_per_second);
        let Some(service) = self.now.services.get_mut(&target.vip) else { return };
        if service.limits != limits {
            service.limits = limits;
            self.act(Action::SetLimits { service: target.id, limits });
        }
    }

    /// Erases the lists that no service's options name, once no packet can be asking for them.
    pub(super) fn erase_lists(&mut self) {
        let named = |at: &(u16, u16)| {
            self.now.services.values().any(|service| {
                service.options.has(Options::PREFIX_LISTS)
                    && *at == (service.id, service.options.list_generation())
            })
        };
        let stale: Vec<_> = self.now.lists.keys().copied().filter(|at| !named(at)).collect();
        if stale.is_empty() {
            return;
        }
        self.grace_period();
        for (service, generation) in stale {
            self.now.lists.remove(&(service, generation));
            self.act(Action::EraseList { service, generation });
        }
    }
}

/// The options of a service, but for the generation of its prefix lists.
pub(super) fn flags(service: &WantedService, settings: &Settings) -> Options {
    let guard = &service.guard;
    let options = service.affinity.period().map_or(Options::default(), |period| {
        Options::default().with_affinity(settings.ticks(period.duration().as_millis() as u64))
    });
    [
        (Options::RESET_ON_BACKEND_DOWN, service.on_backend_down == OnBackendDown::Reset),
        (Options::RETRY, service.retry == Retry::On),
        (Options::EXCEPTIONS, service.track == Track::Exceptions),
        (Options::FULL_NAT, !service.source_pool.is_empty()),
        (Options::PREFIX_LISTS, guard.prefixes() > 0),
        (Options::DENY_UNLISTED, !guard.allow.is_empty()),
        (Options::LIMIT_SERVICE, guard.limit_new_flows.0.is_some()),
        (Options::LIMIT_SOURCE, guard.limit_source.0.is_some()),
    ]
    .into_iter()
    .filter(|(_, is_set)| *is_set)
    .fold(options, |options, (flag, _)| options.with(flag))
}

/// The limits of a service: of all its new flows, and of each source's.
pub(super) fn limits(service: &WantedService, jiffies_per_second: u32) -> [Limit; 2] {
    let before = if service.vip.is_ipv4() { 96 } else { 0 };
    let limit = |FlowLimit(rate): FlowLimit| {
        rate.map_or(Limit::default(), |rate| {
            let bits = rate.prefix.map_or(0, |prefix| before + prefix);
            Limit::new(rate.flows, rate.burst, bits, jiffies_per_second)
        })
    };
    [limit(service.guard.limit_new_flows), limit(service.guard.limit_source)]
}
