//! The API over a real Unix socket, above a world in memory.

mod conditions;
mod observe;
mod refusals;
mod resources;
mod socket;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use hyper::Method;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::*;
use crate::client::{Client, ClientError};
use crate::control::fake::World;

/// A server for as long as it lives, in a directory of its own.
struct Server {
    world: World,
    client: Client,
    directory: PathBuf,
    handle: Handle,
    runtime: Runtime,
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
        Self { world, client, directory, handle, runtime }
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
