//! VIP addresses: added with the first service, removed with the last, and never someone else's.

use std::net::SocketAddr;

use lb_tests::address::Family;
use lb_tests::agent::Settings;
use lb_tests::needs_root;
use lb_tests::setup::Setup;
use lb_tests::topology::Shape;
use serde_json::Value;

use crate::traffic::SOON;

/// Prefix length and interface of an address on the balancer; none when it has no such address.
fn find(setup: &Setup, family: Family) -> Option<(String, u64)> {
    let links = setup.lab.balancer.must(&["ip", "-j", "addr"], SOON).unwrap();
    let links: Value = serde_json::from_str(&links).unwrap();
    let vip = family.vip().to_string();
    links.as_array().unwrap().iter().find_map(|link| {
        let address = link["addr_info"].as_array()?.iter().find(|row| row["local"] == *vip)?;
        Some((link["ifname"].as_str()?.to_owned(), address["prefixlen"].as_u64()?))
    })
}

fn host_prefix(family: Family) -> u64 {
    match family {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}

fn bare(settings: Settings) -> Setup {
    Setup::bare(Shape::TwoArmed, 1, settings).unwrap()
}

fn add(setup: &Setup, name: &str, family: Family, port: u16) {
    setup.add_service(name, SocketAddr::new(family.vip(), port), "tcp", "none").unwrap();
}

#[test]
fn a_vip_lives_from_its_first_service_to_its_last() {
    needs_root!();
    let setup = bare(Settings::default());
    for family in Family::BOTH {
        assert_eq!(find(&setup, family), None);
        add(&setup, "first", family, 80);
        assert_eq!(find(&setup, family), Some(("wan".to_owned(), host_prefix(family))));
        add(&setup, "second", family, 81);
        setup.agent.must(["service", "remove", "first"]).unwrap();
        assert!(find(&setup, family).is_some(), "{family:?}: the second service still needs it");
        setup.agent.must(["service", "remove", "second"]).unwrap();
        assert_eq!(find(&setup, family), None);
    }
}

#[test]
fn stopping_the_agent_keeps_the_vips_and_a_new_one_still_owns_them() {
    needs_root!();
    let mut setup = bare(Settings::default());
    Family::BOTH.into_iter().for_each(|family| add(&setup, &format!("s{}", family.number()), family, 80));
    setup.agent.terminate().unwrap();
    assert!(Family::BOTH.into_iter().all(|family| find(&setup, family).is_some()));
    setup.agent.run().unwrap();
    for family in Family::BOTH {
        setup.agent.must(["service", "remove", &format!("s{}", family.number())]).unwrap();
        assert_eq!(find(&setup, family), None);
    }
}

#[test]
fn an_address_that_was_there_before_is_never_removed() {
    needs_root!();
    let setup = bare(Settings::default());
    for family in Family::BOTH {
        let prefix = host_prefix(family);
        setup.lab.balancer.ip(&format!("addr add {}/{prefix} dev wan", family.vip())).unwrap();
        add(&setup, "web", family, 80);
        setup.agent.must(["service", "remove", "web"]).unwrap();
        assert_eq!(find(&setup, family), Some(("wan".to_owned(), prefix)));
    }
}

#[test]
fn addresses_are_left_to_others_where_that_is_set() {
    needs_root!();
    let setup = bare(Settings { manage_vips: false, ..Settings::default() });
    for family in Family::BOTH {
        add(&setup, "web", family, 80);
        assert_eq!(find(&setup, family), None);
        setup.agent.must(["service", "remove", "web"]).unwrap();
    }
}
