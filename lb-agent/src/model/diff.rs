//! What differs between two states, for people: the upper half of what `apply` prints.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::desired::Desired;
use super::endpoint::Endpoint;
use super::prefix::Prefix;
use super::service::{Backend, Service};

/// One line for each object that comes, goes or changes, in the order of their names.
pub fn differences(before: &Desired, after: &Desired) -> Vec<String> {
    let names: BTreeSet<_> = before.services.keys().chain(after.services.keys()).collect();
    names
        .into_iter()
        .flat_map(|name| match (before.services.get(name), after.services.get(name)) {
            (None, Some(service)) => added(service),
            (Some(service), None) => {
                vec![format!("remove service {name} with its backends ({})", service.endpoints().count())]
            }
            (Some(before), Some(after)) => properties(before, after).chain(backends(before, after)).collect(),
            (None, None) => Vec::new(),
        })
        .collect()
}

fn added(service: &Service) -> Vec<String> {
    let Service { name, vip, protocol, strategy, health, .. } = service;
    let line = format!("add service {name}: {protocol} {vip}, {strategy}, health {health}");
    let empty = Service::new(name.clone(), *vip, *protocol);
    [line].into_iter().chain(backends(&empty, service)).collect()
}

fn properties(before: &Service, after: &Service) -> impl Iterator<Item = String> {
    let name = after.name.clone();
    described(before)
        .into_iter()
        .zip(described(after))
        .filter(|(old, new)| old != new)
        .map(move |((property, old), (_, new))| format!("set service {name}: {property} {old} -> {new}"))
}

/// Every property that can differ between two services of one name, as text.
fn described(service: &Service) -> [(&'static str, String); 18] {
    [
        ("vip", service.vip.to_string()),
        ("protocol", service.protocol.to_string()),
        ("strategy", service.strategy.to_string()),
        ("mode", service.mode.to_string()),
        ("source_pool", service.source_pool.to_string()),
        ("track", service.track.to_string()),
        ("on-no-backend", service.on_no_backend.to_string()),
        ("on-backend-down", service.on_backend_down.to_string()),
        ("retry", service.retry.to_string()),
        ("affinity", service.affinity.to_string()),
        ("limit-new-flows", service.guard.limit_new_flows.to_string()),
        ("limit-source", service.guard.limit_source.to_string()),
        ("allow", listed(&service.guard.allow)),
        ("deny", listed(&service.guard.deny)),
        ("panic-threshold", service.fitness.panic_threshold.to_string()),
        ("slow-start", service.fitness.slow_start.to_string()),
        ("damping", service.fitness.damping.to_string()),
        ("health", service.health.to_string()),
    ]
}

/// A list of prefixes in a line: all of a short one, the beginning of a long one and a hash that tells it from others.
pub fn listed(prefixes: &BTreeSet<Prefix>) -> String {
    const SHOWN: usize = 4;
    let mut words: Vec<_> = prefixes.iter().take(SHOWN).map(Prefix::to_string).collect();
    if prefixes.len() > SHOWN {
        let mut hasher = DefaultHasher::new();
        prefixes.hash(&mut hasher);
        words.push(format!("{} more (#{:08x})", prefixes.len() - SHOWN, hasher.finish() as u32));
    }
    if words.is_empty() { "none".to_owned() } else { words.join(" ") }
}

fn backends(before: &Service, after: &Service) -> Vec<String> {
    let addresses: BTreeSet<_> = before.endpoints().chain(after.endpoints()).collect();
    addresses.into_iter().filter_map(|address| backend(before, after, address)).collect()
}

fn backend(before: &Service, after: &Service, address: Endpoint) -> Option<String> {
    let name = &after.name;
    let (was_there, is_leaving) = (before.backends.get(&address), after.removing.get(&address));
    match (was_there, after.backends.get(&address)) {
        (None, Some(new)) if before.removing.contains_key(&address) => {
            Some(format!("keep backend {name} {address}: {}", wanted(*new)))
        }
        (None, Some(new)) => Some(format!("add backend {name} {address}: {}", wanted(*new))),
        (Some(_), None) if is_leaving.is_some() => Some(format!("drain and remove backend {name} {address}")),
        (None, None) if is_leaving.is_some() => None,
        (_, None) => Some(format!("remove backend {name} {address}")),
        (Some(old), Some(new)) if old != new => {
            Some(format!("set backend {name} {address}: {} -> {}", wanted(*old), wanted(*new)))
        }
        (Some(_), Some(_)) => None,
    }
}

fn wanted(Backend { weight, admin, backup, lease }: Backend) -> String {
    let backup = if backup { ", backup" } else { "" };
    let lease = lease.period().map(|period| format!(", lease {period}")).unwrap_or_default();
    format!("weight {weight}, {admin}{backup}{lease}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::file::tests::any_state;
    use crate::model::{Change, Removal, file};

    const BEFORE: &str = r#"
        [[service]]
        name = "gone"
        vip = "10.0.0.100:81"
        [[service]]
        name = "web"
        vip = "10.0.0.100:80"
        [[service.backend]]
        address = "10.0.1.11:80"
        [[service.backend]]
        address = "10.0.1.12:80"
    "#;
    const AFTER: &str = r#"
        [[service]]
        name = "dns"
        vip = "10.0.0.100:53"
        protocol = "udp"
        [[service]]
        name = "web"
        vip = "10.0.0.100:80"
        strategy = "consistent-hash"
        [[service.backend]]
        address = "10.0.1.12:80"
        weight = 5
        [[service.backend]]
        address = "10.0.1.13:80"
    "#;

    #[test]
    fn every_difference_is_a_line() {
        let before = file::parse(BEFORE, "before").unwrap();
        let prune = Some(Removal::Drain(std::time::SystemTime::UNIX_EPOCH));
        let change = Change::Declare { desired: file::parse(AFTER, "after").unwrap(), prune };
        assert_eq!(
            differences(&before, &change.apply(&before).unwrap()),
            [
                "add service dns: udp 10.0.0.100:53, maglev, health none",
                "remove service gone with its backends (0)",
                "set service web: strategy maglev -> consistent-hash",
                "drain and remove backend web 10.0.1.11:80",
                "set backend web 10.0.1.12:80: weight 1, enabled -> weight 5, enabled",
                "add backend web 10.0.1.13:80: weight 1, enabled",
            ]
        );
    }

    proptest! {
        #[test]
        fn only_equal_states_have_no_difference(a in any_state(), b in any_state()) {
            prop_assert_eq!(differences(&a, &b).is_empty(), a == b);
            prop_assert_eq!(differences(&a, &a), Vec::<String>::new());
        }
    }
}
