//! The API over a real Unix socket, above a world in memory.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use hyper::Method;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::*;
use crate::client::{Client, ClientError};
use crate::control::fake::World;
use crate::datapath::FlowInfo;
use crate::model::{Protocol, file};

/// A server for as long as it lives, in a directory of its own.
struct Server {
    world: World,
    client: Client,
    directory: PathBuf,
    handle: Handle,
    _runtime: Runtime,
}

impl Server {
    fn start(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("lb-agent-api-{name}-{}", std::process::id()));
        let socket = directory.join("run/agent.sock");
        let (world, runtime) = (World::default(), Runtime::new().unwrap());
        let _inside = runtime.enter();
        let listener = bind(&socket).unwrap();
        let handle = world.run();
        let api = Api { control: handle.clone(), gate: Arc::default() };
        runtime.spawn(serve(listener, None, api, std::future::pending()));
        let client = Client::new(&socket, false);
        drop(_inside);
        Self { world, client, directory, handle, _runtime: runtime }
    }

    /// With one service, `web`, and one backend.
    fn with_web(name: &str) -> Self {
        let server = Self::start(name);
        server.ask(Method::POST, &["services"], json!({"name": "web", "vip": "10.0.0.100:80"})).unwrap();
        let backend = json!({"address": "10.0.1.11:8080", "weight": 5});
        server.ask(Method::POST, &["services", "web", "backends"], backend).unwrap();
        server
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("run/agent.sock")
    }

    fn get(&self, segments: &[&str]) -> Value {
        self.client.call(Method::GET, segments).read().unwrap()
    }

    /// The answer to bytes, up to where the server closes. It may close before it has read them all.
    fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    /// The answer, or status and detail of the problem.
    fn ask(&self, method: Method, segments: &[&str], body: Value) -> Result<String, (u16, String)> {
        outcome(self.client.call(method, segments).json(&body).send())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn outcome(answer: Result<String, ClientError>) -> Result<String, (u16, String)> {
    answer.map_err(|error| match error {
        ClientError::Refused(problem) => (problem.status, problem.detail),
        other => panic!("{other}"),
    })
}

#[test]
fn the_socket_is_roots_alone() {
    let server = Server::start("mode");
    let mode = std::fs::metadata(server.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_live_agents_socket_is_left_alone_and_a_dead_ones_replaced() {
    let server = Server::start("stale");
    let _inside = server._runtime.enter();
    let error = bind(&server.socket()).unwrap_err().to_string();
    let socket = server.socket();
    assert_eq!(
        error,
        format!(
            "an agent is running already: it answers at {}; stop it first, or give this one another `socket`",
            socket.display()
        )
    );
    let stale = server.directory.join("stale.sock");
    drop(bind(&stale).unwrap());
    assert!(stale.exists());
    drop(bind(&stale).unwrap());
    let file = server.directory.join("file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(
        bind(&file).unwrap_err().to_string(),
        format!("{} is there and is no socket: move it away, or set another `socket`", file.display())
    );
}

#[test]
fn a_service_is_listed_with_the_fields_of_the_contract() {
    let server = Server::with_web("list");
    let expected = json!([{
        "name": "web", "vip": "10.0.0.100:80", "protocol": "tcp", "strategy": "maglev", "mode": "dnat",
        "track": "full", "on_no_backend": "reset", "on_backend_down": "rebalance",
        "health": ["tcp,interval=2s,timeout=1s,rise=2,fall=3"],
        "revision": 2,
        "backends": 1, "active_connections": 3, "connections_total": 21,
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
    let expected = json!([{
        "service": "web", "address": "10.0.1.11:8080", "weight": 5, "effective_weight": 5, "admin": "enabled",
        "removing": false, "active_connections": 0, "connections_total": 0, "rx_packets_total": 0,
        "tx_packets_total": 0, "rx_bytes_total": 0, "tx_bytes_total": 0,
    }]);
    assert_eq!(listed, expected);
    assert_eq!(server.get(&["backends"]).as_array().unwrap().len(), 1);
    assert_eq!(server.get(&["services", "web"])["backend_list"].as_array().unwrap().len(), 1);
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
    assert_eq!(status["interfaces"], json!([{"name": "eth0", "mode": "native"}]));
    assert_eq!((&status["services"], &status["backends"]), (&json!(1), &json!(1)));
    assert_eq!(status["flows"], json!({"active": 0, "capacity": 1000}));
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
            "unknown field `color`, expected one of `name`, `vip`, `protocol`, `strategy`, `mode`, `track`, `on-no-backend`, `on-backend-down`, `health`, `backend`",
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
            "unknown strategy `fastest`: valid are maglev, consistent-hash, source-hash, round-robin, random, least-connections",
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

#[test]
fn an_agent_that_stops_finishes_and_goes_even_if_somebody_listens() {
    let directory = std::env::temp_dir().join(format!("lb-agent-api-stop-{}", std::process::id()));
    let socket: &Path = &directory.join("agent.sock");
    let runtime = Runtime::new().unwrap();
    let (stop, stopping) = tokio::sync::oneshot::channel::<()>();
    let served = {
        let _inside = runtime.enter();
        let (listener, control) = (bind(socket).unwrap(), World::default().run());
        let stopped = async { drop(stopping.await) };
        runtime.spawn(serve(listener, None, Api { control, gate: Arc::default() }, stopped))
    };
    let client = Client::new(socket, false);
    let (heard, hearing) = std::sync::mpsc::channel();
    let listener = std::thread::spawn(move || {
        client
            .call(Method::GET, &["events"])
            .parameter("after", Some(0))
            .listen(|data| Ok(heard.send(data.to_owned())?))
    });
    hearing.recv_timeout(Duration::from_secs(10)).unwrap();
    let since = std::time::Instant::now();
    drop(stop);
    let served = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), served).await });
    let _ = std::fs::remove_dir_all(&directory);
    assert!(matches!(served, Ok(Ok(Ok(())))), "{served:?}");
    assert!(since.elapsed() < LAST_REQUESTS, "it waited for the listener: {:?}", since.elapsed());
    listener.join().unwrap().unwrap();
}

#[test]
fn health_and_readiness_are_told_in_a_word() {
    let server = Server::start("wellness");
    let get =
        |path: &str| server.raw(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    assert!(get("/healthz").starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(get("/healthz").ends_with("\r\nalive\n"));
    assert!(get("/readyz").ends_with("\r\nready\n"));
    server.world.lock().refusals = vec!["broken"; 1000];
    let add = server.ask(Method::POST, &["services"], json!({"name": "web", "vip": "10.0.0.100:80"}));
    assert_eq!(add.unwrap_err().0, 500);
    assert!(get("/readyz").starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
    assert!(get("/readyz").ends_with("\r\nnot ready: out of step: `lb-agent events` says why\n"));
    assert!(get("/healthz").starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn another_user_of_the_machine_is_kept_out_by_the_sockets_mode() {
    const NOBODY: u32 = 65_534;
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    let server = Server::with_web("other-user");
    let socket = server.socket();
    // A thread's own user: the rest of the process stays root.
    let refused = std::thread::spawn(move || {
        let nobody = rustix::thread::Uid::from_raw(NOBODY);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        Client::new(&socket, false).call(Method::GET, &["status"]).send().unwrap_err().to_string()
    });
    let socket = server.socket();
    assert_eq!(
        refused.join().unwrap(),
        format!("no permission for the agent's socket {}: run this as root", socket.display())
    );
}
