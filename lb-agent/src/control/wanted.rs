//! From what is desired and what is known of health to what the data plane shall do. Pure.

use std::sync::Arc;

use super::reports::{EffectiveWeight, Headroom};
use crate::datapath::{Wanted, WantedBackend, WantedService};
use crate::health::Health;
use crate::model::{Admin, Backend, Desired, Endpoint, Service, Strategy};

/// What the data plane shall do.
pub(super) fn wanted(
    desired: &Desired,
    health: impl Fn(&Service, Endpoint) -> Health,
    headroom: impl Fn(&Service, Endpoint) -> Headroom,
) -> Wanted {
    let services = desired.services.values();
    Wanted { services: services.map(|service| wanted_service(service, &health, &headroom)).collect() }
}

fn wanted_service(
    service: &Service,
    health: &impl Fn(&Service, Endpoint) -> Health,
    headroom: &impl Fn(&Service, Endpoint) -> Headroom,
) -> WantedService {
    let kept = service.backends.iter().map(|(address, backend)| (*address, *backend));
    let leaving = service
        .removing
        .iter()
        .map(|(address, removing)| (*address, Backend { weight: removing.weight, admin: Admin::Draining }));
    let mut backends: Vec<_> = kept
        .chain(leaving)
        .map(|(address, backend)| {
            let health = health(service, address);
            let weight = usable_weight(backend, health);
            WantedBackend {
                address: address.socket(),
                weight,
                shares: match service.strategy {
                    Strategy::ResourceBased => {
                        EffectiveWeight::new(weight, headroom(service, address)).shares()
                    }
                    _ => weight,
                },
                serving: is_serving(backend.admin, health),
            }
        })
        .collect();
    backends.sort_by_key(|backend| backend.address);
    WantedService {
        name: service.name.to_string(),
        vip: service.vip.socket(),
        protocol: service.protocol,
        source_pool: service.source_pool.iter().collect(),
        strategy: service.strategy,
        track: service.track,
        on_no_backend: service.on_no_backend,
        on_backend_down: service.on_backend_down,
        affinity: service.affinity,
        guard: Arc::clone(&service.guard),
        backends,
    }
}

/// The share of new flows that a backend gets.
pub(super) fn effective_weight(
    service: &Service,
    backend: Backend,
    health: Health,
    headroom: Headroom,
) -> EffectiveWeight {
    let headroom = if service.strategy == Strategy::ResourceBased { headroom } else { Headroom::FULL };
    EffectiveWeight::new(usable_weight(backend, health), headroom)
}

/// What counts of a backend's weight. One that nothing is known of takes traffic.
fn usable_weight(backend: Backend, health: Health) -> u32 {
    match (backend.admin, health) {
        (Admin::Enabled, Health::Healthy | Health::Unknown) => backend.weight.get(),
        (Admin::Enabled, Health::Unhealthy) | (Admin::Draining | Admin::Maintenance, _) => 0,
    }
}

/// Whether flows that are on it stay. Whoever puts a backend into maintenance knows that it may be down.
fn is_serving(admin: Admin, health: Health) -> bool {
    admin == Admin::Maintenance || health != Health::Unhealthy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_and_serving_follow_admin_and_health() {
        use Admin::{Draining, Enabled, Maintenance};
        use Health::{Healthy, Unhealthy, Unknown};
        let cases = [
            (Enabled, Healthy, 5, true),
            (Enabled, Unknown, 5, true),
            (Enabled, Unhealthy, 0, false),
            (Draining, Healthy, 0, true),
            (Draining, Unknown, 0, true),
            (Draining, Unhealthy, 0, false),
            (Maintenance, Healthy, 0, true),
            (Maintenance, Unknown, 0, true),
            (Maintenance, Unhealthy, 0, true),
        ];
        for (admin, health, weight, serving) in cases {
            let backend = Backend { weight: 5.into(), admin };
            assert_eq!((usable_weight(backend, health), is_serving(admin, health)), (weight, serving));
        }
    }
}
