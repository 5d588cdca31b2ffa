//! Tags, and changes that were decided on something older.

use hyper::Method;
use serde_json::{Value, json};

use super::{Server, outcome};

#[test]
fn every_resource_has_its_revision_as_tag() {
    let server = Server::with_web("tags");
    server.ask(Method::POST, &["services"], json!({"name": "dns", "vip": "10.0.0.100:53"})).unwrap();
    let tag = |path: &str| {
        let answer = server.raw(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        let line = answer.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap_or_default();
        line.trim().to_owned()
    };
    for (path, expected) in [
        ("/v1/services", "\"3\""),
        ("/v1/services/web", "\"2\""),
        ("/v1/services/dns", "\"3\""),
        ("/v1/services/web/backends", "\"2\""),
        ("/v1/services/web/backends/10.0.1.11:8080", "\"2\""),
        ("/v1/backends", "\"3\""),
        ("/v1/state", "\"3\""),
        ("/v1/revisions/1", "\"1\""),
    ] {
        assert_eq!(tag(path), expected, "{path}");
    }
}

#[test]
fn a_change_that_was_decided_on_something_older_is_refused_with_412() {
    let server = Server::with_web("if-match");
    let before = server.get(&["state"]);
    let backend = ["services", "web", "backends", "10.0.1.11:8080"];
    let backends = ["services", "web", "backends"];
    let service = ["services", "web"];
    let new = json!({"name": "dns", "vip": "10.0.0.100:53"});
    let cases: [(Method, &[&str], Value, &str); 8] = [
        (Method::POST, &["services"], new, "the state"),
        (Method::PATCH, &service, json!({"on-no-backend": "drop"}), "service `web`"),
        (Method::DELETE, &service, json!(null), "service `web`"),
        (Method::POST, &backends, json!({"address": "10.0.1.12:80"}), "service `web`"),
        (Method::PATCH, &backend, json!({"weight": 1}), "service `web`"),
        (Method::DELETE, &backend, json!(null), "service `web`"),
        (Method::PUT, &["state"], json!({}), "the state"),
        (Method::POST, &["revisions", "1", "rollback"], json!(null), "the state"),
    ];
    for (method, segments, body, object) in &cases {
        let call = || server.client.call(method.clone(), segments).json(body);
        let detail = format!("{object} is at revision 2 by now: look at it again before you change it");
        assert_eq!(outcome(call().if_revision(Some(1)).send()), Err((412, detail)), "{method} {segments:?}");
        assert_eq!(server.get(&["state"]), before, "{method} {segments:?}");
    }
    let answer = server.raw(
        "PATCH /v1/services/web HTTP/1.1\r\nHost: a\r\nIf-Match: 2\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    );
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    // The right revision, one change after the other, each with the tag that the one before answered.
    for revision in 2..4 {
        let call = server.client.call(Method::PATCH, &backend).json(&json!({"weight": revision}));
        call.if_revision(Some(revision)).send().unwrap();
    }
    let unknown = server.client.call(Method::DELETE, &["services", "no"]).if_revision(Some(4)).send();
    assert_eq!(outcome(unknown).unwrap_err().0, 404);
}
