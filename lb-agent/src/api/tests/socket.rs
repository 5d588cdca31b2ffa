//! Who reaches the socket, and how serving begins and ends.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use hyper::Method;
use serde_json::json;
use tokio::runtime::Runtime;

use super::super::*;
use super::Server;
use crate::client::Client;
use crate::control::fake::World;

#[test]
fn the_socket_is_roots_alone() {
    let server = Server::start("mode");
    let mode = std::fs::metadata(server.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_live_agents_socket_is_left_alone_and_a_dead_ones_replaced() {
    let server = Server::start("stale");
    let _inside = server.runtime.enter();
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
    server.world.lock().interface_problem = Some("it has no link".to_owned());
    assert!(get("/readyz").starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
    assert!(get("/readyz").ends_with("\r\nnot ready: interface eth0: it has no link\n"));
    server.world.lock().interface_problem = None;
    server.world.lock().refusals = vec!["broken"; 1000];
    let add = server.ask(Method::POST, &["services"], json!({"name": "web", "vip": "10.0.0.100:80"}));
    assert_eq!(add.unwrap_err().0, 500);
    assert!(get("/readyz").starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
    assert!(get("/readyz").ends_with("\r\nnot ready: out of step: `lb-agent events` says why\n"));
    assert!(get("/healthz").starts_with("HTTP/1.1 200 OK\r\n"));
}
