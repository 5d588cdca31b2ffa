//! Active connections: what the balancer counts, beside what the backends' kernels know.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use lb_tests::address::Family;
use lb_tests::setup::{HTTP_PORT, Setup, web, web_vip};
use lb_tests::topology::{Host, Shape};
use lb_tests::{needs_program, needs_root, wait};

use crate::traffic::SOON;

/// Connections of each family that stand at a time.
const STANDING: usize = 600;
/// Of which one is closed and another opened in this time.
const TURN: Duration = Duration::from_millis(4);
/// How often both counts are compared, each time after so many more connections have come and gone.
const COMPARISONS: usize = 10;
const BETWEEN: u64 = 100;

/// Connections that come and go; dropping it closes all of them.
struct Churn {
    stop: Option<Sender<()>>,
    turned: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Churn {
    fn start(setup: &Setup, family: Family) -> Self {
        let (stop, stopped) = mpsc::channel();
        let turned = Arc::new(AtomicU64::new(0));
        let turns = Arc::clone(&turned);
        let work = move || {
            let connect = || TcpStream::connect_timeout(&web_vip(family), SOON).expect("a connection");
            let mut connections: VecDeque<_> = (0..STANDING).map(|_| connect()).collect();
            while stopped.recv_timeout(TURN) == Err(RecvTimeoutError::Timeout) {
                connections.pop_front();
                connections.push_back(connect());
                turns.fetch_add(1, Ordering::Relaxed);
            }
        };
        let thread = setup.lab.client.handle().spawn("churn", work).unwrap();
        Self { stop: Some(stop), turned, thread: Some(thread) }
    }

    fn turned(&self) -> u64 {
        self.turned.load(Ordering::Relaxed)
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Connections to the HTTP server that the backend's kernel has open, of both families, as `ss` lists them.
fn truth(host: &Host) -> u64 {
    let filter = format!("sport = :{HTTP_PORT}");
    let list = host.namespace.must(&["ss", "-H", "-t", "-n", "state", "established", &filter], SOON).unwrap();
    list.lines().count() as u64
}

/// What the balancer says of the same backend.
fn counted(setup: &Setup, backend: usize) -> u64 {
    let active = |family| {
        let row = setup.agent.backend(&web(family), &setup.http(backend, family)).unwrap().unwrap();
        row["active_connections"].as_u64().unwrap()
    };
    Family::BOTH.into_iter().map(active).sum()
}

#[test]
fn active_connections_are_those_of_the_backends_and_none_after_the_last_close() {
    needs_root!();
    needs_program!("ss");
    let setup = Setup::bare(Shape::TwoArmed, 3, lb_tests::agent::Settings::default()).unwrap();
    for family in Family::BOTH {
        // No checks: their connections are the backends' own.
        setup.add_service(&web(family), web_vip(family), "tcp", "none").unwrap();
        for backend in 0..3 {
            setup.agent.must(["backend", "add", &web(family), &setup.http(backend, family)]).unwrap();
        }
    }
    let churns = Family::BOTH.map(|family| Churn::start(&setup, family));
    let turned = || churns.iter().map(Churn::turned).min().unwrap_or(0);
    for comparison in 0..COMPARISONS {
        let next = turned() + BETWEEN;
        wait::until_true(6 * SOON, "more connections have come and gone", || turned() >= next).unwrap();
        for (backend, host) in setup.lab.backends.iter().enumerate() {
            assert!(truth(host) > 100, "{}: {} connections only", host.name, truth(host));
            // The counts are read one after the other while connections come and go: the balancer's may be anywhere
            // between what `ss` says before and after it, and now and then a burst is over in between.
            let mut seen = (0, 0, 0);
            let agreed = wait::until(SOON, "the balancer counts what the backend's kernel knows", || {
                seen = (truth(host), counted(&setup, backend), truth(host));
                let (before, active, after) = seen;
                let (low, high) = (before.min(after) as f64 * 0.99, before.max(after) as f64 * 1.01);
                Ok((low..=high).contains(&(active as f64)).then_some(()))
            });
            agreed.unwrap_or_else(|error| {
                panic!("{error:#}; comparison {comparison}, {}: true, counted, true are {seen:?}", host.name)
            });
        }
    }
    drop(churns);
    let open = || -> (Vec<u64>, Vec<u64>) {
        let hosts = setup.lab.backends.iter().enumerate();
        hosts.map(|(backend, host)| (counted(&setup, backend), truth(host))).unzip()
    };
    let none = wait::until(3 * SOON, "no connection is counted any more", || {
        Ok(open().0.iter().all(|&active| active == 0).then_some(()))
    });
    none.unwrap_or_else(|error| panic!("{error:#}: counted and true {:?}", open()));
    assert_eq!(open(), (vec![0; 3], vec![0; 3]), "counted, and true");
}
