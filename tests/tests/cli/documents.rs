//! What the command line prints for programs: JSON with its promised fields, and a state that `apply` takes back.

use std::time::Duration;

use lb_tests::address::Family;
use lb_tests::agent::Settings;
use lb_tests::http_client::HttpClient;
use lb_tests::setup::{Setup, web, web_vip};
use lb_tests::topology::Shape;
use lb_tests::{needs_root, wait};
use serde_json::Value;

/// Long enough for anything that should happen at once.
const SOON: Duration = Duration::from_secs(5);

const SERVICE_FIELDS: &[&str] = &[
    "name",
    "vip",
    "protocol",
    "strategy",
    "mode",
    "backends",
    "healthy_backends",
    "active_connections",
    "connections_total",
];
const BACKEND_FIELDS: &[&str] = &[
    "service",
    "address",
    "weight",
    "effective_weight",
    "admin",
    "health",
    "active_connections",
    "connections_total",
    "rx_packets_total",
    "tx_packets_total",
    "rx_bytes_total",
    "tx_bytes_total",
];
const STATUS_FIELDS: &[&str] = &["interfaces", "services", "backends", "flows", "uptime_seconds", "version"];

fn assert_fields(value: &Value, fields: &[&str]) {
    for field in fields {
        assert!(value.get(field).is_some_and(|value| !value.is_null()), "no {field} in {value}");
    }
}

#[test]
fn json_has_the_promised_fields() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 2).unwrap();
    let services = setup.agent.json(["service", "list"]).unwrap();
    assert_eq!(services.as_array().unwrap().len(), 4);
    services.as_array().unwrap().iter().for_each(|row| assert_fields(row, SERVICE_FIELDS));
    assert_fields(&setup.agent.json(["service", "show", "web4"]).unwrap(), SERVICE_FIELDS);

    let backends = setup.agent.json(["backend", "list"]).unwrap();
    assert_eq!(backends.as_array().unwrap().len(), 8);
    backends.as_array().unwrap().iter().for_each(|row| assert_fields(row, BACKEND_FIELDS));
    assert_eq!(setup.agent.json(["backend", "list", "web6"]).unwrap().as_array().unwrap().len(), 2);

    let status = setup.agent.json(["status"]).unwrap();
    assert_fields(&status, STATUS_FIELDS);
    assert_fields(&status["flows"], &["active", "capacity"]);
    let interfaces = status["interfaces"].as_array().unwrap();
    let names: Vec<_> = interfaces.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, setup.lab.balancer_interfaces());
    assert!(interfaces.iter().all(|row| row["mode"] == "native"), "{status}");
}

#[test]
fn counters_count_what_passed() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 1).unwrap();
    for family in Family::BOTH {
        let row = || setup.agent.backend(&web(family), &setup.http(0, family)).unwrap().unwrap();
        let number =
            |row: &Value, field: &str| row[field].as_u64().unwrap_or_else(|| panic!("{field} in {row}"));
        let before = row();
        setup.lab.client.run(|| {
            for _ in 0..10 {
                HttpClient::connect(web_vip(family), SOON).unwrap().get_and_close().unwrap();
            }
            let mut http = HttpClient::connect(web_vip(family), SOON).unwrap();
            http.download(1 << 20).unwrap();
            // The connections are over for the client before the agent has read the counters.
            let what = "every packet and connection is counted";
            let counted = wait::until(SOON, what, || {
                let after = row();
                let grown = |field| number(&after, field) - number(&before, field);
                let connections =
                    grown("connections_total") == 11 && number(&after, "active_connections") >= 1;
                let to_client = grown("tx_bytes_total") > 1 << 20 && grown("tx_packets_total") > 700;
                let from_client = grown("rx_bytes_total") > 1000 && grown("rx_packets_total") > 50;
                Ok((connections && to_client && from_client).then_some(()))
            });
            counted.unwrap_or_else(|error| panic!("{family:?}: {error}: {before} became {}", row()));
        });
    }
}

#[test]
fn defaults_are_those_of_the_documentation() {
    needs_root!();
    let setup = Setup::bare(Shape::TwoArmed, 1, Settings::default()).unwrap();
    setup.agent.must(["service", "add", "web", "--vip", "10.0.0.100:80"]).unwrap();
    setup.agent.must(["backend", "add", "web", &setup.http(0, Family::V4)]).unwrap();
    let service = setup.service("web").unwrap();
    let expected = [("protocol", "tcp"), ("strategy", "maglev"), ("mode", "dnat"), ("vip", "10.0.0.100:80")];
    for (field, value) in expected {
        assert_eq!(service[field], value, "{service}");
    }
    let backend = setup.agent.backend("web", &setup.http(0, Family::V4)).unwrap().unwrap();
    assert_eq!((&backend["weight"], &backend["admin"]), (&1.into(), &"enabled".into()), "{backend}");
}

#[test]
fn an_export_is_canonical_and_applies_without_a_change() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 3).unwrap();
    setup.agent.must(["backend", "drain", "web4", &setup.http(1, Family::V4)]).unwrap();
    setup.agent.must(["backend", "set", "web6", &setup.http(2, Family::V6), "--weight", "7"]).unwrap();
    let state = setup.agent.must(["export"]).unwrap();
    assert_eq!(setup.agent.must(["export"]).unwrap(), state);
    let file = setup.agent.directory().join("state.toml");
    std::fs::write(&file, &state).unwrap();
    let apply = |options: &[&str]| {
        let words = ["apply".into(), "-f".into(), file.clone().into_os_string()];
        setup.agent.must(words.into_iter().chain(options.iter().map(|&option| option.into()))).unwrap()
    };
    apply(&["--prune"]);
    assert_eq!(setup.agent.must(["export"]).unwrap(), state);

    // From nothing back to the same bytes, whatever the order of the verbs was.
    std::fs::write(&file, "").unwrap();
    apply(&["--prune"]);
    assert_eq!(setup.agent.json(["service", "list"]).unwrap(), Value::Array(Vec::new()));
    std::fs::write(&file, &state).unwrap();
    apply(&[]);
    assert_eq!(setup.agent.must(["export"]).unwrap(), state);
}

#[test]
fn a_dry_run_prints_the_plan_and_changes_nothing() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 1).unwrap();
    let state = setup.agent.must(["export"]).unwrap();
    let file = setup.agent.directory().join("state.toml");
    std::fs::write(&file, "[[service]]\nname = \"fresh\"\nvip = \"10.0.0.105:80\"\nprotocol = \"tcp\"\n")
        .unwrap();
    let words = ["apply".as_ref(), "-f".as_ref(), file.as_os_str(), "--prune".as_ref(), "--dry-run".as_ref()];
    let plan = setup.agent.must(words).unwrap();
    assert!(plan.contains("fresh") && plan.contains("web4"), "{plan}");
    assert_eq!(setup.agent.must(["export"]).unwrap(), state);
}

#[test]
fn flows_lists_a_living_flow() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 2).unwrap();
    for family in Family::BOTH {
        setup.lab.client.run(|| {
            let mut http = HttpClient::connect(web_vip(family), SOON).unwrap();
            http.get().unwrap();
            let client = http.local_addr().unwrap().to_string();
            let flows = setup.agent.json(["flows", &web(family)]).unwrap();
            let flows = flows.as_array().expect("an array");
            assert!(flows.iter().any(|flow| flow.to_string().contains(&client)), "no {client} in {flows:?}");
        });
    }
}

#[test]
fn flags_may_stand_before_and_after_the_verb() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 1).unwrap();
    let before = setup.agent.json(["service", "show", "web4"]).unwrap();
    let after = setup.agent.must(["service", "show", "web4", "-o", "json"]).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&after).unwrap()["name"], before["name"]);
}
