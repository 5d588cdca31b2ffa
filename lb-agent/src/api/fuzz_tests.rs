//! Requests as nobody means them: each gets a clear answer, and what is refused changes nothing.

use axum::body::Body;
use axum::http::{Request, Response, header};
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::{BoxedStrategy, Strategy as Generator, ValueTree as _};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::*;
use crate::control::fake::World;
use crate::fuzz;
use crate::model::{Change, Desired, Removal};

/// A request in parts.
#[derive(Clone, Debug)]
struct Asked {
    method: &'static str,
    path: String,
    kind: &'static str,
    if_match: Option<String>,
    body: Vec<u8>,
}

const METHODS: [&str; 6] = ["GET", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"];

const PATHS: [&str; 14] = [
    "/v1/services",
    "/v1/services/NAME",
    "/v1/services/NAME/backends",
    "/v1/services/NAME/backends/ADDRESS",
    "/v1/backends",
    "/v1/state",
    "/v1/revisions",
    "/v1/revisions/NUMBER",
    "/v1/revisions/NUMBER/rollback",
    "/v1/status",
    "/v1/flows",
    "/v1/explain",
    "/v1/events",
    "/healthz",
];

const QUERIES: [&str; 14] = [
    "",
    "",
    "",
    "?dry_run=true",
    "?prune=false",
    "?prune=perhaps",
    "?drain_timeout=5s",
    "?drain_timeout=5",
    "?force=true",
    "?limit=-1",
    "?service=web&limit=3",
    "?protocol=tcp&client=192.0.2.1:1&vip=10.0.0.1:80",
    "?follow=false&after=18446744073709551616",
    "?%ff=%00",
];

const KEYS: [&str; 20] = [
    "name",
    "vip",
    "protocol",
    "strategy",
    "mode",
    "track",
    "on-no-backend",
    "on-backend-down",
    "health",
    "backend",
    "service",
    "address",
    "weight",
    "admin",
    "type",
    "interval",
    "timeout",
    "rise",
    "fall",
    "port",
];

fn any_value() -> BoxedStrategy<Value> {
    let word = select(
        &[
            "web",
            "x",
            "10.0.0.1:80",
            "10.0.1.1:80",
            "[fd00::1]:53",
            "tcp",
            "udp",
            "maglev",
            "dnat",
            "full",
            "none",
            "5s",
            "tcp,interval=1s",
            "enabled",
            "draining",
            "reset",
            "",
            "0",
            "\u{0}",
            "ü",
        ][..],
    );
    let leaf = prop_oneof![
        word.prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..200_u32).prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
        ".{0,20}".prop_map(Value::from),
    ];
    let tree = leaf.prop_recursive(4, 24, 6, |inner| {
        let object = btree_map(select(&KEYS[..]).prop_map(str::to_owned), inner.clone(), 0..6);
        prop_oneof![
            vec(inner, 0..4).prop_map(Value::from),
            object.prop_map(|object| Value::Object(object.into_iter().collect())),
        ]
    });
    tree.boxed()
}

const DOCUMENTS: [&str; 7] = [
    r#"{"name": "web", "vip": "10.0.0.1:80", "health": "tcp,interval=1s", "backend": [{"address": "10.0.1.1:80", "weight": 3}]}"#,
    r#"{"address": "10.0.1.2:80", "weight": 7, "admin": "draining"}"#,
    r#"{"strategy": "consistent-hash", "on-no-backend": "drop", "health": [{"type": "tcp", "port": 81}]}"#,
    r#"{"service": [{"name": "a", "vip": "[fd00::1]:80"}, {"name": "web", "vip": "10.0.0.1:80", "protocol": "udp"}]}"#,
    "[[service]]\nname = \"web\"\nvip = \"10.0.0.1:80\"\n\n[[service.backend]]\naddress = \"10.0.1.1:80\"\n",
    "{}",
    r#"{"weight": 5}"#,
];

/// Requests that make sense, each with a document that fits it.
const SOUND: [(&str, &str, &str, &str); 9] = [
    ("POST", "/v1/services", "application/json", DOCUMENTS[0]),
    ("POST", "/v1/services/web/backends", "application/json", DOCUMENTS[1]),
    ("PATCH", "/v1/services/web", "application/json", DOCUMENTS[2]),
    ("PATCH", "/v1/services/web/backends/10.0.1.1:80", "application/json", DOCUMENTS[6]),
    ("DELETE", "/v1/services/web/backends/10.0.1.2:80?force=true", "application/json", ""),
    ("DELETE", "/v1/services/web", "application/json", ""),
    ("PUT", "/v1/state", "application/json", DOCUMENTS[3]),
    ("PUT", "/v1/state?prune=false", "application/toml", DOCUMENTS[4]),
    ("POST", "/v1/revisions/3/rollback", "application/json", ""),
];

fn any_request() -> impl Generator<Value = Asked> {
    let (sound, near) = (select(&SOUND[..]), select(&SOUND[..]));
    let sound = sound.prop_map(|(method, path, kind, body)| Asked {
        method,
        path: path.to_owned(),
        kind,
        if_match: None,
        body: body.as_bytes().to_vec(),
    });
    let near = (near, fuzz::mutated(&DOCUMENTS)).prop_map(|((method, path, kind, _), body)| Asked {
        method,
        path: path.to_owned(),
        kind,
        if_match: None,
        body,
    });
    prop_oneof![1 => sound, 2 => near, 7 => any_mixture()]
}

fn any_mixture() -> impl Generator<Value = Asked> {
    let name = prop_oneof![4 => Just("web".to_owned()), 1 => Just("a".to_owned()), 1 => "[%a-z0-9.]{0,8}"];
    let address = prop_oneof![
        3 => select(&["10.0.1.1:80", "10.0.1.2:80", "%5Bfd00::2%5D:80"][..]).prop_map(str::to_owned),
        1 => "[%a-f0-9.:]{0,12}"
    ];
    let number = prop_oneof![(0..9_u32).prop_map(|number| number.to_string()), "[0-9a-z]{0,22}"];
    let path = (select(&PATHS[..]), name, address, number, select(&QUERIES[..])).prop_map(
        |(path, name, address, number, query)| {
            path.replace("NAME", &name).replace("ADDRESS", &address).replace("NUMBER", &number) + query
        },
    );
    let body = prop_oneof![
        3 => fuzz::mutated(&DOCUMENTS),
        2 => any_value().prop_map(|value| value.to_string().into_bytes()),
        1 => vec(any::<u8>(), 0..40),
        1 => select(&DOCUMENTS[..]).prop_map(|text| text.as_bytes().to_vec()),
    ];
    let if_match = proptest::option::weighted(0.1, "(W/)?\"?[0-9*,\" ]{0,6}\"?");
    let kind = select(&["application/json", "application/toml", "text/plain"][..]);
    (select(&METHODS[..]), path, kind, if_match, body)
        .prop_map(|(method, path, kind, if_match, body)| Asked { method, path, kind, if_match, body })
}

impl Asked {
    /// What HTTP itself does not take is not for the routes to refuse.
    fn request(self) -> Option<Request<Body>> {
        let mut request =
            Request::builder().method(self.method).uri(&self.path).header(header::CONTENT_TYPE, self.kind);
        if let Some(tags) = self.if_match {
            request = request.header(header::IF_MATCH, tags);
        }
        request.body(Body::from(self.body)).ok()
    }
}

/// A refusal is one line of a bounded length, of the right type.
async fn assert_clear(asked: &Asked, response: Response<Body>) {
    let status = response.status();
    assert!(!status.is_server_error(), "{status}: {asked:?}");
    if !status.is_client_error() {
        return;
    }
    let kind = response.headers().get(header::CONTENT_TYPE).cloned();
    assert_eq!(kind.unwrap(), "application/problem+json", "{asked:?}");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let problem: Problem = serde_json::from_slice(&bytes).unwrap();
    let detail = &problem.detail;
    assert!(!detail.trim().is_empty() && detail.chars().count() <= 610, "{detail}: {asked:?}");
    assert!(!detail.contains('\n'), "{detail}: {asked:?}");
    assert_eq!(problem.status, status.as_u16(), "{asked:?}");
}

/// A state without what the agent removes by itself when it has drained.
fn staying(desired: &Desired) -> Desired {
    let mut staying = desired.clone();
    staying.services.values_mut().for_each(|service| service.removing.clear());
    staying
}

#[test]
fn no_request_makes_it_panic_or_fail_and_a_refused_one_changes_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let control = World::default().run();
        let service =
            TowerToHyperService::new(router(Api { control: control.clone(), gate: Arc::default() }));
        let (mut runner, generator) = (TestRunner::deterministic(), any_request());
        let (mut refused, mut changed) = (0, 0);
        for _ in 0..fuzz::cases() {
            let asked: Asked = generator.new_tree(&mut runner).unwrap().current();
            let Some(request) = asked.clone().request() else { continue };
            let before = control.snapshot().await.unwrap();
            let response = service.call(request).await.unwrap();
            let status = response.status();
            assert_clear(&asked, response).await;
            let after = control.snapshot().await.unwrap();
            match status.is_success() && before.revision != after.revision {
                true => changed += 1,
                false => assert_eq!(staying(&before.desired), staying(&after.desired), "{status}: {asked:?}"),
            }
            refused += usize::from(status.is_client_error());
            if after.desired.services.len() > 20 {
                let nothing = Change::Declare { desired: Desired::default(), prune: Some(Removal::Now) };
                control.change(nothing, false).await.unwrap();
            }
        }
        // The requests were neither all nonsense nor all sound.
        let cases = fuzz::cases();
        assert!(
            refused > cases / 10 && changed > cases / 200,
            "{refused} refused, {changed} changed of {cases}"
        );
    });
}
