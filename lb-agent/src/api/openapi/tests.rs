//! The description against what is served.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};

use super::*;
use crate::control::fake::World;

const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];

struct Server(TowerToHyperService<axum::Router>);

impl Server {
    /// With a service and a backend.
    async fn start() -> Self {
        let api = Api { control: World::default().run(), gate: Default::default() };
        let server = Self(TowerToHyperService::new(super::super::router(api)));
        let web = json!({"name": "web", "vip": "10.0.0.1:80", "backend": [{"address": "10.0.1.1:80"}]});
        assert_eq!(server.ask("post", "/v1/services", Some(web)).await.0, StatusCode::CREATED);
        server
    }

    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let request = Request::builder().method(method.to_uppercase().as_str()).uri(path);
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let response = self.0.call(request.body(body).unwrap()).await.unwrap();
        let status = response.status();
        let is_json = response
            .headers()
            .get("content-type")
            .is_some_and(|kind| kind.to_str().unwrap().contains("json"));
        // An endless answer is not waited for.
        let bytes = if is_json {
            response.into_body().collect().await.unwrap().to_bytes()
        } else {
            Default::default()
        };
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }
}

fn operations(document: &Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().unwrap();
    let each = |(path, item): (&String, &Value)| -> Vec<_> {
        item.as_object().unwrap().keys().map(|method| (method.clone(), path.clone())).collect()
    };
    paths.iter().flat_map(each).collect()
}

fn filled(path: &str) -> String {
    path.replace("{name}", "web").replace("{address}", "10.0.1.1:80").replace("{revision}", "1")
}

#[tokio::test]
async fn every_described_operation_is_served_and_no_other() {
    let (server, document) =
        (Server::start().await, Server::start().await.ask("get", "/v1/openapi.json", None).await.1);
    let described = operations(&document);
    assert!(described.len() > 20, "{described:?}");
    let paths: BTreeSet<_> = described.iter().map(|(_, path)| path.clone()).collect();
    for path in paths {
        for method in METHODS {
            let is_described = described.contains(&(method.to_owned(), path.clone()));
            let (status, answer) = server.ask(method, &filled(&path), None).await;
            let is_unknown = status == StatusCode::NOT_FOUND
                && answer["detail"].as_str().is_some_and(|detail| detail.starts_with("no such path"));
            let is_served = status != StatusCode::METHOD_NOT_ALLOWED && !is_unknown;
            assert_eq!(is_served, is_described, "{method} {path}: {status} {answer}");
        }
    }
}

#[tokio::test]
async fn the_handbook_has_the_same_operations() {
    let document = Server::start().await.ask("get", "/v1/openapi.json", None).await.1;
    let handbook = include_str!("../../../../docs/api.md");
    let rows = handbook.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(|line| line.split('|').nth(1));
    let words = cells.flat_map(|cell| cell.split('`').filter(|word| word.contains(" /")));
    let written: BTreeSet<_> = words
        .filter_map(|word| word.split_once(' '))
        .map(|(method, path)| (method.to_lowercase(), path.to_owned()))
        .collect();
    assert_eq!(operations(&document), written);
}

/// Whether a value is what a schema describes, with every key that has to be there and none that is not described.
fn assert_fits(document: &Value, schema: &Value, value: &Value, at: &str) {
    let resolved = resolve(document, schema);
    if let Some(any) = resolved["oneOf"].as_array() {
        let fits = any.iter().any(|each| is_type(document, &resolve(document, each), value));
        assert!(fits, "{at}: {value} is none of {any:?}");
        return;
    }
    assert!(is_type(document, &resolved, value), "{at}: {value} is no {resolved}");
    match value {
        Value::Array(items) => {
            items.iter().for_each(|item| assert_fits(document, &resolved["items"], item, &format!("{at}[]")));
        }
        Value::Object(object) => {
            let (properties, required) = properties(document, &resolved);
            for (key, value) in object {
                let schema = properties.get(key).unwrap_or_else(|| panic!("{at}: {key} is not described"));
                assert_fits(document, schema, value, &format!("{at}.{key}"));
            }
            let missing: Vec<_> = required.iter().filter(|key| !object.contains_key(*key)).collect();
            assert!(missing.is_empty(), "{at}: {missing:?} not there");
        }
        _ => {}
    }
}

fn resolve(document: &Value, schema: &Value) -> Value {
    match schema["$ref"].as_str() {
        Some(path) => document.pointer(path.trim_start_matches('#')).unwrap().clone(),
        None => schema.clone(),
    }
}

fn is_type(document: &Value, schema: &Value, value: &Value) -> bool {
    if schema["allOf"].is_array() {
        return value.is_object();
    }
    if let Some(any) = schema["oneOf"].as_array() {
        return any.iter().any(|each| is_type(document, &resolve(document, each), value));
    }
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        _ => false,
    };
    match &schema["type"] {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().any(|name| is(name.as_str().unwrap())),
        _ => false,
    }
}

/// The properties of an object and of what is flattened into it, and which of them have to be there.
fn properties(document: &Value, schema: &Value) -> (serde_json::Map<String, Value>, BTreeSet<String>) {
    let mut all = schema["properties"].as_object().cloned().unwrap_or_default();
    let names = schema["required"].as_array().cloned().unwrap_or_default();
    let mut required: BTreeSet<_> = names.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    for part in schema["allOf"].as_array().into_iter().flatten() {
        let (more, needed) = properties(document, &resolve(document, part));
        all.extend(more);
        required.extend(needed);
    }
    (all, required)
}

#[tokio::test]
async fn answers_are_what_is_described() {
    let server = Server::start().await;
    let document = server.ask("get", "/v1/openapi.json", None).await.1;
    let cases = [
        ("get", "/v1/services", "", 200),
        ("get", "/v1/services/{name}", "", 200),
        ("get", "/v1/services/{name}/backends", "", 200),
        ("get", "/v1/services/{name}/backends/{address}", "", 200),
        ("get", "/v1/backends", "", 200),
        ("get", "/v1/state", "", 200),
        ("get", "/v1/revisions", "", 200),
        ("get", "/v1/status", "", 200),
        ("get", "/v1/explain", "?protocol=tcp&client=192.0.2.1:1&vip=10.0.0.1:80", 200),
        ("get", "/v1/explain", "?protocol=tcp&client=192.0.2.1:1&vip=10.0.0.9:80", 200),
        ("put", "/v1/state", "?dry_run=true", 200),
        ("put", "/v1/services/{name}/backends/{address}/load", "", 200),
        ("get", "/v1/services/{name}/backends/{address}", "", 200),
        ("get", "/v1/services/{name}", "?", 200),
    ];
    for (method, path, query, status) in cases {
        let body =
            (method == "put").then(|| if path.ends_with("load") { json!({"load": 0.5}) } else { json!({}) });
        let (answered, value) = server.ask(method, &(filled(path) + query), body).await;
        assert_eq!(answered.as_u16(), status, "{method} {path}: {value}");
        let content = &document["paths"][path][method]["responses"][status.to_string()]["content"];
        assert_fits(&document, &content["application/json"]["schema"], &value, path);
    }
    let (_, problem) = server.ask("get", "/v1/services/no", None).await;
    let content = &document["paths"]["/v1/services/{name}"]["get"]["responses"]["default"]["content"];
    assert_fits(&document, &content["application/problem+json"]["schema"], &problem, "problem");
}
