//! What goes on: events, status, flows, explanations.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use super::{Server, outcome};
use crate::api::types::FlowView;
use crate::datapath::FlowInfo;
use crate::model::Protocol;

#[test]
fn events_are_told_as_they_happen_and_the_last_of_them_later() {
    let server = Server::with_web("events");
    let of = |event: &str| serde_json::from_str::<Value>(event).unwrap();
    let mut kept = Vec::new();
    let call = server.client.call(Method::GET, &["events"]).parameter("follow", Some(false));
    call.listen(|data| {
        kept.push(of(data));
        Ok(())
    })
    .unwrap();
    let revisions: Vec<_> = kept.iter().filter(|event| event["type"] == "state-changed").collect();
    assert_eq!((&revisions[0]["revision"], &revisions[1]["revision"]), (&json!(1), &json!(2)));
    assert_eq!(revisions[0]["changes"].as_array().unwrap().len(), 1);
    assert!(kept.windows(2).all(|pair| pair[0]["id"].as_u64() < pair[1]["id"].as_u64()));

    // From the second last on, so that what is there already tells that the listener listens.
    let (client, after) = (server.client.clone(), kept[kept.len() - 2]["id"].as_u64());
    let (heard, hearing) = std::sync::mpsc::channel();
    let listener = std::thread::spawn(move || {
        let call = client.call(Method::GET, &["events"]).parameter("after", after);
        call.listen(|data| Ok(heard.send(of(data))?))
    });
    let next = || hearing.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(next()["id"], kept[kept.len() - 1]["id"]);
    server.client.call(Method::DELETE, &["services", "web"]).send().unwrap();
    let changed = std::iter::repeat_with(next).find(|event| event["type"] == "state-changed").unwrap();
    assert_eq!(changed["changes"], json!(["remove service web with its backends (1)"]));
    server.handle.events().close();
    listener.join().unwrap().unwrap();
}

#[test]
fn status_flows_and_explain_have_the_fields_of_the_contract() {
    let server = Server::with_web("observe");
    let status = server.get(&["status"]);
    assert_eq!(status["interfaces"], json!([{"name": "eth0", "mode": "native", "problem": null}]));
    assert_eq!((&status["services"], &status["backends"]), (&json!(1), &json!(1)));
    assert_eq!(status["flows"], json!({"active": 0, "capacity": 1000, "sweep_cpu_microseconds": 5}));
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert!(status["uptime_seconds"].is_u64());
    let expected = json!({"reason": "request_forwarded", "packets": 9, "packets_per_second": 0.0});
    assert_eq!(status["reasons"][0], expected);
    assert_eq!(status["events"], json!([{"event": "flow_evicted", "count": 0, "per_second": 0.0}]));
    assert_eq!(status["service_rates"][0]["name"], "web");

    let explain = |vip: &str| -> Value {
        let call = server.client.call(Method::GET, &["explain"]).parameter("protocol", Some("tcp"));
        call.parameter("client", Some("192.0.2.1:40000")).parameter("vip", Some(vip)).read().unwrap()
    };
    assert_eq!(
        explain("10.0.0.100:80"),
        json!({"service": "web", "backend": "10.0.1.11:8080", "reason": "slot", "slot": 42, "candidates": []})
    );
    assert_eq!(explain("10.0.0.100:81")["reason"], "no-service");

    server.world.lock().flows.push(FlowInfo {
        vip: "10.0.0.100:80".parse().unwrap(),
        protocol: Protocol::Tcp,
        client: "192.0.2.1:40000".parse().unwrap(),
        backend: "10.0.1.11:8080".parse().unwrap(),
        source: None,
        state: "established".to_owned(),
        idle_seconds: 2,
    });
    let expected = json!([{
        "service": "web", "protocol": "tcp", "client": "192.0.2.1:40000", "vip": "10.0.0.100:80",
        "backend": "10.0.1.11:8080", "state": "established", "idle_seconds": 2,
    }]);
    assert_eq!(server.get(&["flows"]), expected);
}

#[test]
fn a_list_of_flows_is_whole_however_many_pages_it_has() {
    let server = Server::with_web("pages");
    server.ask(Method::POST, &["services"], json!({"name": "dns", "vip": "10.0.0.100:53"})).unwrap();
    let clients = |service: Option<&str>, limit: Option<usize>| -> Vec<u64> {
        let call = server.client.call(Method::GET, &["flows"]).parameter("service", service);
        let flows: Vec<FlowView> = call.parameter("limit", limit).read().unwrap();
        flows.iter().map(|flow| flow.client.port().into()).collect()
    };
    assert!(clients(None, None).is_empty());
    for (port, service_port) in [(1, 53), (2, 80), (3, 53), (4, 53), (5, 80), (6, 53)] {
        server.world.lock().flows.push(FlowInfo {
            vip: ([10, 0, 0, 100], service_port).into(),
            protocol: Protocol::Tcp,
            client: ([192, 0, 2, 1], port).into(),
            backend: ([10, 0, 1, 11], 8080).into(),
            source: None,
            state: "established".to_owned(),
            idle_seconds: 2,
        });
    }
    assert_eq!(clients(None, None), [1, 2, 3, 4, 5, 6]);
    assert_eq!(clients(Some("web"), None), [2, 5], "the first page and the last have none of these");
    assert_eq!(clients(None, Some(4)), [1, 2, 3, 4]);
    assert_eq!(clients(Some("web"), Some(1)), [2]);
    assert!(clients(None, Some(0)).is_empty());
    let nobody = server.client.call(Method::GET, &["flows"]).parameter("service", Some("mail"));
    assert_eq!(outcome(nobody.send()).unwrap_err().0, 404);
}
