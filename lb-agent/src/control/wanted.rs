//! From what is desired and what is known of fitness to what the data plane shall do. Pure.

use std::sync::Arc;

use super::fitness::Grown;
use super::reports::{EffectiveWeight, Headroom};
use crate::datapath::{Wanted, WantedBackend, WantedService};
use crate::health::Health;
use crate::model::{Admin, Backend, Desired, Endpoint, Service, Strategy};

/// What is known of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Whether it is fit.
    pub(super) health: Health,
    /// How much of it is unused.
    pub(super) headroom: Headroom,
    /// How far it has grown into its weight.
    pub(super) grown: Grown,
}

/// Which of a service's enabled backends take traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    /// The fit ones that are no backups.
    Primaries,
    /// The fit backups: no other is.
    Backups,
    /// All, backups included, fit or not: too few primaries are fit.
    Everyone,
}

impl Pool {
    /// The one for a service, of whose backends this is known.
    pub(super) fn of(service: &Service, health: impl Fn(Endpoint) -> Health) -> Self {
        let fit = |backup: bool| {
            let enabled = service.backends.iter().filter(move |(_, backend)| {
                backend.backup == backup && backend.admin == Admin::Enabled && backend.weight.get() > 0
            });
            let fit = enabled.clone().filter(|(address, _)| is_fit(health(**address))).count();
            (fit, enabled.count())
        };
        let ((fit, primaries), (backups, spare)) = (fit(false), fit(true));
        let threshold = service.fitness.panic_threshold;
        match fit {
            0 if backups > 0 => Self::Backups,
            0 if threshold.is_crossed(0, primaries + spare) => Self::Everyone,
            fit if threshold.is_crossed(fit, primaries) => Self::Everyone,
            _ => Self::Primaries,
        }
    }

    fn takes(self, backend: Backend, health: Health) -> bool {
        match (backend.admin, self) {
            (Admin::Draining | Admin::Maintenance, _) => false,
            (Admin::Enabled, Self::Primaries) => !backend.backup && is_fit(health),
            (Admin::Enabled, Self::Backups) => backend.backup && is_fit(health),
            (Admin::Enabled, Self::Everyone) => true,
        }
    }

    /// What counts of a backend's weight.
    pub(super) fn weight(self, service: &Service, backend: Backend, known: Known) -> EffectiveWeight {
        let weight = if self.takes(backend, known.health) { backend.weight.get() } else { 0 };
        let headroom = match service.strategy {
            Strategy::ResourceBased => known.headroom,
            _ => Headroom::FULL,
        };
        EffectiveWeight::new(weight, headroom, known.grown)
    }

    /// Whether flows that are on a backend stay. Whoever puts one into maintenance knows that it may be down; and where
    /// unfit ones are used, they are given the benefit of the doubt.
    fn is_serving(self, admin: Admin, health: Health) -> bool {
        admin == Admin::Maintenance || self == Self::Everyone || health != Health::Unhealthy
    }
}

/// One that nothing is known of takes traffic.
pub(super) const fn is_fit(health: Health) -> bool {
    matches!(health, Health::Healthy | Health::Unknown)
}

/// What the data plane shall do.
pub(super) fn wanted(desired: &Desired, known: impl Fn(&Service, Endpoint) -> Known) -> Wanted {
    let services = desired.services.values();
    Wanted { services: services.map(|service| wanted_service(service, &known)).collect() }
}

fn wanted_service(service: &Service, known: &impl Fn(&Service, Endpoint) -> Known) -> WantedService {
    WantedService {
        name: service.name.to_string(),
        vip: service.vip.socket(),
        protocol: service.protocol,
        source_pool: service.source_pool.iter().collect(),
        strategy: service.strategy,
        track: service.track,
        on_no_backend: service.on_no_backend,
        on_backend_down: service.on_backend_down,
        retry: service.retry,
        affinity: service.affinity,
        guard: Arc::clone(&service.guard),
        backends: wanted_backends(service, known),
    }
}

fn wanted_backends(service: &Service, known: &impl Fn(&Service, Endpoint) -> Known) -> Vec<WantedBackend> {
    let kept = service.backends.iter().map(|(address, backend)| (*address, *backend));
    let leaving = service.removing.iter().map(|(address, removing)| (*address, removing.backend()));
    let pool = Pool::of(service, |address| known(service, address).health);
    let all: Vec<_> = kept
        .chain(leaving)
        .map(|(address, backend)| {
            let known = known(service, address);
            (address, backend, known, pool.weight(service, backend, known))
        })
        .collect();
    let is_growing = all.iter().any(|(_, _, known, weight)| weight.is_some() && known.grown != Grown::FULL);
    let heaviest = all.iter().map(|(_, backend, ..)| backend.weight.get()).max().unwrap_or_default();
    let mut backends: Vec<_> = all
        .into_iter()
        .map(|(address, backend, known, weight)| WantedBackend {
            address: address.socket(),
            weight: compared_weight(weight, backend, known.grown, is_growing, heaviest),
            shares: weight.shares(service.strategy == Strategy::ResourceBased, is_growing),
            serving: pool.is_serving(backend.admin, known.health),
        })
        .collect();
    backends.sort_by_key(|backend| backend.address);
    backends
}

/// The weight by which flows are compared, which is 16 bits: in parts while a backend of the service grows, so that the
/// one with the fewest flows does not get all that come.
fn compared_weight(
    weight: EffectiveWeight,
    backend: Backend,
    grown: Grown,
    is_growing: bool,
    heaviest: u32,
) -> u32 {
    match (weight.is_some(), is_growing) {
        (false, _) => 0,
        (true, false) => backend.weight.get(),
        (true, true) => {
            let parts = Grown::WHOLE.min(u32::from(u16::MAX) / heaviest.max(1)).max(1);
            (backend.weight.get() * parts * grown.parts() / Grown::WHOLE).max(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::file;

    const FIT: Known = Known { health: Health::Healthy, headroom: Headroom::FULL, grown: Grown::FULL };

    #[test]
    fn weight_and_serving_follow_admin_and_health() {
        use Admin::{Draining, Enabled, Maintenance};
        use Health::{Ejected, Healthy, Unhealthy, Unknown};
        let cases = [
            (Enabled, Healthy, 5, true),
            (Enabled, Unknown, 5, true),
            (Enabled, Unhealthy, 0, false),
            (Enabled, Ejected, 0, true),
            (Draining, Healthy, 0, true),
            (Draining, Unknown, 0, true),
            (Draining, Unhealthy, 0, false),
            (Maintenance, Healthy, 0, true),
            (Maintenance, Unknown, 0, true),
            (Maintenance, Unhealthy, 0, true),
        ];
        for (admin, health, weight, serving) in cases {
            let state = format!(
                "[[service]]\nname = \"a\"\nvip = \"10.0.0.1:80\"\n[[service.backend]]\naddress = \"10.0.1.1:80\"\nweight = 5\nadmin = \"{admin}\"\n"
            );
            let wanted = of(&state, |_| Known { health, ..FIT });
            assert_eq!((wanted[0].weight, wanted[0].serving), (weight, serving), "{admin} {health}");
        }
    }

    fn of(state: &str, known: impl Fn(Endpoint) -> Known) -> Vec<WantedBackend> {
        let desired = file::parse(state, "state").unwrap();
        wanted(&desired, |_, address| known(address)).services.remove(0).backends
    }

    /// Four primaries and two backups, of which those named are unhealthy: who takes traffic?
    fn takers(threshold: &str, dead: &[u16]) -> Vec<u16> {
        let backends: String = (1..=6)
            .map(|port| {
                let backup = port > 4;
                format!("[[service.backend]]\naddress = \"10.0.1.1:{port}\"\nbackup = {backup}\n")
            })
            .collect();
        let state = format!(
            "[[service]]\nname = \"a\"\nvip = \"10.0.0.1:80\"\npanic-threshold = \"{threshold}\"\n{backends}"
        );
        let known = |address: Endpoint| match dead.contains(&address.socket().port()) {
            true => Known { health: Health::Unhealthy, ..FIT },
            false => FIT,
        };
        let wanted = of(&state, known);
        wanted.iter().filter(|each| each.shares > 0).map(|each| each.address.port()).collect()
    }

    #[test]
    fn backups_take_traffic_only_while_no_primary_is_fit() {
        assert_eq!(takers("off", &[]), [1, 2, 3, 4]);
        assert_eq!(takers("off", &[1, 2, 3]), [4]);
        assert_eq!(takers("off", &[1, 2, 3, 4]), [5, 6]);
        assert_eq!(takers("off", &[1, 2, 3, 4, 5]), [6]);
        assert!(takers("off", &[1, 2, 3, 4, 5, 6]).is_empty());
    }

    #[test]
    fn where_too_few_are_fit_all_take_traffic_but_fit_backups_come_first() {
        assert_eq!(takers("50%", &[1, 2]), [3, 4], "half of them are enough");
        assert_eq!(takers("50%", &[1, 2, 3]), [1, 2, 3, 4, 5, 6]);
        assert_eq!(takers("50%", &[1, 2, 3, 4]), [5, 6]);
        assert_eq!(takers("50%", &[1, 2, 3, 4, 5, 6]), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_backend_that_grows_has_a_part_of_its_weight_and_the_others_all_of_theirs() {
        let state = "[[service]]\nname = \"a\"\nvip = \"10.0.0.1:80\"\n[[service.backend]]\naddress = \"10.0.1.1:1\"\nweight = 2\n[[service.backend]]\naddress = \"10.0.1.1:2\"\n";
        let steady = of(state, |_| FIT);
        assert_eq!(
            steady.iter().map(|each| (each.weight, each.shares)).collect::<Vec<_>>(),
            [(2, 2), (1, 1)]
        );
        let growing = of(state, |address| Known {
            grown: if address.socket().port() == 2 { Grown::FIRST } else { Grown::FULL },
            ..FIT
        });
        assert_eq!(
            growing.iter().map(|each| (each.weight, each.shares)).collect::<Vec<_>>(),
            [(64, 64), (1, 1)]
        );
    }
}
