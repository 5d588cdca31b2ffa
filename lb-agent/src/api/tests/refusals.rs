//! Requests that are refused, each with its status and message.

use hyper::Method;
use serde_json::{Value, json};

use super::{Server, outcome};

#[test]
fn each_refused_request_has_its_status_and_message_and_changes_nothing() {
    let server = Server::with_web("refused");
    let before = server.get(&["state"]);
    let cases: [(Method, &[&str], Value, u16, &str); 15] = [
        (Method::GET, &["nothing"], json!(null), 404, "no such path: `/v1/nothing`"),
        (Method::PUT, &["services"], json!(null), 405, "`PUT` is not for `/v1/services`"),
        (
            Method::GET,
            &["services", "no"],
            json!(null),
            404,
            "unknown service `no`: `lb-agent service list` shows those that there are",
        ),
        (
            Method::GET,
            &["services", "a b"],
            json!(null),
            404,
            "invalid service name `a b`: use 1 to 63 of the characters A-Z a-z 0-9 . _ -",
        ),
        (
            Method::DELETE,
            &["services", "web", "backends", "10.0.1.99:80"],
            json!(null),
            404,
            "service `web` has no backend 10.0.1.99:80: `lb-agent backend list web` shows those that it has",
        ),
        (
            Method::POST,
            &["services"],
            json!({"name": "web", "vip": "10.0.0.1:1"}),
            409,
            "service `web` exists already: change it with `lb-agent service set`, or choose another name",
        ),
        (
            Method::POST,
            &["services"],
            json!({"name": "two", "vip": "10.0.0.100:80"}),
            409,
            "services `two` and `web` cannot both have 10.0.0.100:80/tcp: choose another address, port or protocol for one",
        ),
        (Method::POST, &["services"], json!({"name": "two"}), 422, "missing field `vip`"),
        (
            Method::POST,
            &["services"],
            json!({"name": "two", "vip": "10.0.0.1:80", "color": 1}),
            422,
            "unknown field `color`, expected one of `name`, `vip`, `protocol`, `strategy`, `mode`, `source_pool`, `track`, `on-no-backend`, `on-backend-down`, `retry`, `affinity`, `limit-new-flows`, `limit-source`, `allow`, `deny`, `panic-threshold`, `slow-start`, `damping`, `health`, `backend`",
        ),
        (
            Method::POST,
            &["services", "web", "backends"],
            json!({"address": "10.0.1.12:0"}),
            422,
            "invalid address `10.0.1.12:0`: the port must be a number from 1 to 65535",
        ),
        (
            Method::POST,
            &["services", "web", "backends"],
            json!({"address": "10.0.1.12:80", "weight": 65536}),
            422,
            "invalid weight `65536`: it is a whole number from 0 to 65535",
        ),
        (
            Method::POST,
            &["services", "web", "backends"],
            json!({"address": "[fd00::1]:80"}),
            422,
            "service `web`: backend [fd00::1]:80 is IPv6, its VIP 10.0.0.100:80 is IPv4: both must be of one family",
        ),
        (
            Method::POST,
            &["services", "web", "backends"],
            json!({"address": "10.0.0.100:8080"}),
            422,
            "service `web`: backend 10.0.0.100:8080 is a VIP, that of service `web`: name a server's own address",
        ),
        (
            Method::PATCH,
            &["services", "web"],
            json!({"strategy": "fastest"}),
            422,
            "unknown strategy `fastest`: valid are maglev, consistent-hash, source-hash, round-robin, random, least-connections, least-latency, resource-based",
        ),
        (
            Method::PUT,
            &["state"],
            json!({"service": [{"name": "a", "vip": "10.0.0.1:80"}, {"name": "a", "vip": "10.0.0.1:81"}]}),
            422,
            "service `a` is declared twice",
        ),
    ];
    for (method, segments, body, status, detail) in cases {
        let answer = server.ask(method, segments, body);
        assert_eq!(answer, Err((status, detail.to_owned())));
    }
    assert_eq!(server.get(&["state"]), before);
}

#[test]
fn bodies_and_parameters_that_cannot_be_read_are_problems() {
    let server = Server::with_web("malformed");
    let call = || server.client.call(Method::POST, &["services"]);
    let not_json = outcome(call().toml("{".to_owned()).send());
    assert_eq!(
        not_json,
        Err((400, "the body is not JSON: EOF while parsing an object at line 1 column 1".to_owned()))
    );
    let body = "x".repeat(3 << 20);
    let answer = server.raw(&format!(
        "POST /v1/services HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert!(answer.starts_with("HTTP/1.1 413 Payload Too Large\r\n"), "{answer}");
    assert!(answer.contains("the body is larger than this route takes"), "{answer}");
    let (status, detail) = outcome(call().json(&json!({"name": "x".repeat(100_000)})).send()).unwrap_err();
    assert_eq!(status, 422);
    assert!(detail.len() < 700, "{detail}");
    let flows = server.client.call(Method::GET, &["flows"]).parameter("limit", Some("many"));
    assert_eq!(outcome(flows.send()).unwrap_err().0, 400);
    let toml = outcome(
        server.client.call(Method::PUT, &["state"]).toml("[[service]]\nname = 1\n".to_owned()).send(),
    );
    assert_eq!(
        toml,
        Err((422, "state line 2, `name = 1`: invalid type: integer `1`, expected a string".to_owned()))
    );
}

#[test]
fn problems_are_problem_json() {
    let server = Server::start("problem");
    let answer = server.raw("GET /v1/none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
    assert!(answer.contains("content-type: application/problem+json\r\n"), "{answer}");
    let body = r#"{"type":"urn:lb-agent:not-found","title":"Not found","status":404,"detail":"no such path: `/v1/none`"}"#;
    assert!(answer.ends_with(body), "{answer}");
}
