//! `least-connections` where one backend is ten times slower than the others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lb_tests::address::Family;
use lb_tests::agent::Settings;
use lb_tests::http_client::HttpClient;
use lb_tests::server::Server;
use lb_tests::setup::{Setup, web, web_vip};
use lb_tests::topology::Shape;
use lb_tests::{needs_root, wait};

/// Milliseconds of work that a request is to a healthy backend, and to the slow one.
const WORK: u64 = 400;
const SLOW: u64 = 10 * WORK;
/// Connections that are open at a time, per backend.
const EACH: usize = 40;
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Looks at the counts, one after each two answers of the slow backend: more than it has at a time.
const LOOKS: usize = 30;

/// As many clients as there shall be connections: each asks, waits for its answer, and connects anew.
struct Clients {
    stop: Arc<AtomicBool>,
    failures: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    fn start(setup: &Setup, target: SocketAddr, count: usize) -> Self {
        let mut clients = Self { stop: Arc::default(), failures: Arc::default(), threads: Vec::new() };
        for _ in 0..count {
            let (stop, failures) = (Arc::clone(&clients.stop), Arc::clone(&clients.failures));
            let work = move || {
                while !stop.load(Ordering::Relaxed) {
                    let ask = || HttpClient::connect(target, TIMEOUT)?.get_and_close();
                    failures.fetch_add(ask().is_err().into(), Ordering::Relaxed);
                }
            };
            clients.threads.push(setup.lab.client.handle().spawn("client", work).unwrap());
        }
        clients
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn await_answers(server: &Server, count: u64) {
    let last = server.requests() + count;
    let what = format!("{count} more requests are answered");
    wait::until_true(TIMEOUT, &what, || server.requests() >= last).unwrap();
}

/// The slow backend's active connections against the others' mean, over many looks.
fn slow_against_others(family: Family, strategy: &str, backends: u8) -> f64 {
    let setup = Setup::bare(Shape::TwoArmed, backends, Settings::default()).unwrap();
    setup.add_service(&web(family), web_vip(family), "tcp", "none").unwrap();
    setup.agent.must(["service", "set", &web(family), "--strategy", strategy]).unwrap();
    for backend in 0..usize::from(backends) {
        setup.agent.must(["backend", "add", &web(family), &setup.http(backend, family)]).unwrap();
        setup.servers[backend][0].slow_down(if backend == 0 { SLOW } else { WORK });
    }
    let clients = Clients::start(&setup, web_vip(family), EACH * usize::from(backends));
    // The first connections come all at once. When the slow backend has answered twice as many as it has at a time, none
    // of them is left.
    await_answers(&setup.servers[0][0], 2 * EACH as u64);

    let (mut slow, mut others) = (0.0, 0.0);
    for _ in 0..LOOKS {
        await_answers(&setup.servers[0][0], 2);
        let list = setup.agent.json(["backend", "list", &web(family)]).unwrap();
        for row in list.as_array().unwrap() {
            let active = row["active_connections"].as_f64().unwrap();
            let sum = if row["address"] == setup.http(0, family) { &mut slow } else { &mut others };
            *sum += active;
        }
    }
    assert_eq!(clients.failures.load(Ordering::Relaxed), 0, "requests failed");
    setup.servers.iter().for_each(|server| server[0].slow_down(0));
    slow / (others / f64::from(backends - 1))
}

fn keeps_the_slow_one_within_15_percent(family: Family, backends: u8) {
    let ratio = slow_against_others(family, "least-connections", backends);
    assert!(
        (0.85..=1.15).contains(&ratio),
        "the slow one of {backends} backends has {ratio:.2} times as many active connections as the others"
    );
}

#[test]
fn least_connections_evens_out_three_backends_of_which_one_is_slow() {
    needs_root!();
    keeps_the_slow_one_within_15_percent(Family::V4, 3);
}

#[test]
fn least_connections_evens_out_five_backends_of_which_one_is_slow() {
    needs_root!();
    keeps_the_slow_one_within_15_percent(Family::V6, 5);
}

#[test]
fn least_connections_evens_out_ten_backends_of_which_one_is_slow() {
    needs_root!();
    keeps_the_slow_one_within_15_percent(Family::V4, 10);
}

/// What the tests above measure is not so by itself: a strategy that does not look piles connections up at the slow one.
#[test]
fn random_piles_up_connections_at_the_slow_one() {
    needs_root!();
    let ratio = slow_against_others(Family::V4, "random", 3);
    assert!(ratio > 1.5, "the slow one has {ratio:.2} times as many active connections as the others");
}
