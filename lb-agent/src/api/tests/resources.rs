//! Services, backends, the state and its revisions: read, changed, brought back.

use hyper::Method;
use serde_json::{Value, json};

use super::Server;
use crate::model::file;

#[test]
fn a_service_is_listed_with_the_fields_of_the_contract() {
    let server = Server::with_web("list");
    let expected = json!([{
        "name": "web", "vip": "10.0.0.100:80", "protocol": "tcp", "strategy": "maglev", "mode": "dnat",
        "track": "full", "on_no_backend": "reset", "on_backend_down": "rebalance", "retry": "off", "affinity": "off",
        "health": ["tcp,interval=2s,timeout=1s,rise=2,fall=3"],
        "revision": 2,
        "backends": 1, "panicking": false, "active_connections": 3, "connections_total": 21,
    }]);
    server.world.lock().active.insert("10.0.1.11:8080".parse().unwrap(), 3);
    let mut listed = server.get(&["services"]);
    assert!(listed[0].as_object_mut().unwrap().remove("healthy_backends").unwrap().is_u64());
    assert_eq!(listed, expected);
}

#[test]
fn a_backend_is_listed_with_the_fields_of_the_contract() {
    let server = Server::with_web("backends");
    let mut listed = server.get(&["services", "web", "backends"]);
    let health = listed[0].as_object_mut().unwrap().remove("health").unwrap();
    assert!(health == "unknown" || health == "healthy", "{health}");
    // Its first check may have ended.
    listed[0].as_object_mut().unwrap().remove("check").unwrap();
    let expected = json!([{
        "service": "web", "address": "10.0.1.11:8080", "weight": 5, "effective_weight": 5, "admin": "enabled", "backup": false, "lease": "off",
        "load": null, "connect_time": null, "removing": false, "active_connections": 0, "connections_total": 0, "rx_packets_total": 0,
        "tx_packets_total": 0, "rx_bytes_total": 0, "tx_bytes_total": 0, "connections_per_second": 0.0, "rx_packets_per_second": 0.0,
        "tx_packets_per_second": 0.0, "rx_bytes_per_second": 0.0, "tx_bytes_per_second": 0.0, "connections_stay_microseconds": null,
        "condition": "ok", "condition_reason": null,
    }]);
    assert_eq!(listed, expected);
    assert_eq!(server.get(&["backends"]).as_array().unwrap().len(), 1);
    assert_eq!(server.get(&["services", "web"])["backend_list"].as_array().unwrap().len(), 1);
}

#[test]
fn what_a_backend_reports_of_its_load_is_its_weight() {
    let server = Server::with_web("load");
    let backend = ["services", "web", "backends", "10.0.1.11:8080"];
    let load = ["services", "web", "backends", "10.0.1.11:8080", "load"];
    server.ask(Method::PATCH, &["services", "web"], json!({"strategy": "resource-based"})).unwrap();
    let answer = server.ask(Method::PUT, &load, json!({"load": 0.65, "ttl": "1h"})).unwrap();
    assert!(answer.contains(r#""reported":0.65"#), "{answer}");
    let effective = || server.get(&backend)["effective_weight"].clone();
    crate::wait::until("the weight follows the load", || effective() == 1.75);
    assert_eq!(server.get(&backend)["load"]["headroom"], 0.35);
    server.ask(Method::PATCH, &["services", "web"], json!({"strategy": "random"})).unwrap();
    assert_eq!(effective(), 5, "which no other strategy heeds");

    let refusal = |path: &[&str], body| server.ask(Method::PUT, path, body).unwrap_err().1;
    let load_error = "invalid load `-0.5`: it is a number from 0, idle, to 1, full";
    assert!(refusal(&load, json!({"load": -0.5})).contains(load_error));
    let ttl_error = "invalid ttl 2h: a report holds for 1s to 1h";
    assert!(refusal(&load, json!({"load": 0, "ttl": "2h"})).contains(ttl_error));
    let nowhere = ["services", "web", "backends", "10.0.1.99:8080", "load"];
    assert!(refusal(&nowhere, json!({"load": 0})).contains("has no backend 10.0.1.99:8080"));
}

#[test]
fn services_and_backends_are_changed_and_removed() {
    let server = Server::with_web("change");
    let backend = ["services", "web", "backends", "10.0.1.11:8080"];
    server
        .ask(Method::PATCH, &["services", "web"], json!({"strategy": "consistent-hash", "health": "none"}))
        .unwrap();
    assert_eq!(server.get(&["services", "web"])["strategy"], "consistent-hash");
    assert_eq!(server.get(&["services", "web"])["health"], json!([]));
    server.ask(Method::PATCH, &backend, json!({"admin": "draining"})).unwrap();
    assert_eq!(server.get(&backend)["effective_weight"], 0);
    server.ask(Method::PATCH, &backend, json!({"admin": "enabled", "weight": 7})).unwrap();
    assert_eq!(server.get(&backend)["effective_weight"], 7);

    let draining: Value = server.client.call(Method::DELETE, &backend).read().unwrap();
    assert_eq!((&draining["removing"], &draining["admin"]), (&json!(true), &json!("draining")));
    server.client.call(Method::DELETE, &backend).parameter("force", Some(true)).send().unwrap();
    assert_eq!(server.get(&["backends"]), json!([]));
    server.client.call(Method::DELETE, &["services", "web"]).send().unwrap();
    assert_eq!(server.get(&["services"]), json!([]));
}

#[test]
fn the_state_is_the_same_in_toml_and_in_json() {
    let server = Server::with_web("state");
    let toml = server.client.call(Method::GET, &["state"]).text("application/toml").unwrap();
    let json = server.get(&["state"]);
    let empty = server.client.call(Method::PUT, &["state"]).toml(String::new());
    let changed: Value = empty.parameter("prune", Some(true)).read().unwrap();
    assert_eq!(changed["changes"], json!(["remove service web with its backends (1)"]));
    assert_eq!(server.get(&["services"]), json!([]));

    server.client.call(Method::PUT, &["state"]).json(&json).send().unwrap();
    assert_eq!(server.client.call(Method::GET, &["state"]).text("application/toml").unwrap(), toml);
    let again: Value = server.client.call(Method::PUT, &["state"]).toml(toml.clone()).read().unwrap();
    assert_eq!(again, json!({"dry_run": false, "revision": 4, "changes": [], "steps": [], "moves": []}));
    assert_eq!(file::print(&server.world.lock().saved), toml);
}

#[test]
fn a_dry_run_tells_and_does_nothing() {
    let server = Server::with_web("dry");
    let call =
        server.client.call(Method::PUT, &["state"]).toml(String::new()).parameter("dry_run", Some(true));
    let changed: Value = call.read().unwrap();
    assert_eq!(
        changed,
        json!({
            "dry_run": true, "revision": 2, "changes": ["remove service web with its backends (1)"], "steps": ["serve 0 services"],
            "moves": [],
        })
    );
    assert_eq!(server.get(&["services"]).as_array().unwrap().len(), 1);
}

#[test]
fn revisions_are_listed_shown_and_brought_back() {
    let server = Server::with_web("revisions");
    let toml = server.client.call(Method::GET, &["state"]).text("application/toml").unwrap();
    server.client.call(Method::DELETE, &["services", "web"]).send().unwrap();
    let listed = server.get(&["revisions"]);
    let of = |key: &str| listed.as_array().unwrap().iter().map(|each| each[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("revision"), [3, 2, 1]);
    assert_eq!(of("changes")[0], json!(["remove service web with its backends (1)"]));
    assert!(of("time").iter().all(|time| time.as_str().unwrap().ends_with('Z')));
    let shown = server.client.call(Method::GET, &["revisions", "2"]).text("application/toml").unwrap();
    assert_eq!(shown, toml);

    let rollback = || server.client.call(Method::POST, &["revisions", "2", "rollback"]);
    let previewed: Value = rollback().parameter("dry_run", Some(true)).read().unwrap();
    assert_eq!((&previewed["dry_run"], &previewed["revision"]), (&json!(true), &json!(3)));
    assert_eq!(server.get(&["services"]), json!([]));
    let changed: Value = rollback().read().unwrap();
    assert_eq!((&changed["changes"], &changed["revision"]), (&previewed["changes"], &json!(4)));
    assert_eq!(server.client.call(Method::GET, &["state"]).text("application/toml").unwrap(), toml);
    assert_eq!(server.get(&["revisions"])[0]["changes"][0], "rollback to revision 2");

    let missing = server.ask(Method::POST, &["revisions", "9", "rollback"], json!(null));
    let detail = "revision 9 is not kept: `lb-agent history` shows those that are";
    assert_eq!(missing, Err((404, detail.to_owned())));
    let no_number = server.ask(Method::GET, &["revisions", "x"], json!(null));
    assert_eq!(no_number, Err((404, "no revision `x`: it is a number".to_owned())));
}
