//! Load: a steady stream of requests, each a new flow, none tried twice.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::http_client::{HttpClient, reason};
use crate::netns::Namespace;
use crate::stop::Stop;
use crate::tally::{Failure, Tally};
use crate::udp_client::UdpClient;
use crate::wait;

/// How long a TCP request may take. A lost SYN is sent again by the client's kernel after one second; that is no failure
/// but shows in [`Load::slowest`].
const TCP_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the answer to a datagram may take: nobody sends a lost one again, so waiting longer changes nothing.
const UDP_TIMEOUT: Duration = Duration::from_secs(1);

/// The ports that UDP requests come from. As many as there can be: see [`Ledger::new_udp_flow`].
const FIRST_UDP_PORT: u16 = 10_000;
const UDP_PORTS: u16 = 50_000;

/// Payload of a UDP request.
const UDP_BYTES: usize = 64;

/// What each request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A TCP connection with one HTTP request, closed by the server.
    Tcp,
    /// One datagram from a new port and its answer.
    Udp,
}

/// What to send.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// TCP or UDP.
    pub transport: Transport,
    /// The service.
    pub target: SocketAddr,
    /// Requests that may be under way at a time.
    pub workers: u32,
    /// Requests per second over all workers; each worker also waits for its answers, so less if those are slow.
    pub per_second: u32,
}

/// Running load; dropping it stops it.
#[derive(Debug)]
pub struct Load {
    ledger: Arc<Ledger>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Ledger {
    stop: Stop,
    /// UDP flows begun so far.
    udp_flows: AtomicU16,
    /// Requests that have ended, by worker.
    ended: Vec<AtomicU64>,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    tally: Tally,
    failures: Vec<Failure>,
    slowest: Duration,
}

impl Load {
    /// Starts sending from the namespace.
    ///
    /// # Errors
    /// When no threads can be made.
    pub fn start(client: &Namespace, plan: Plan) -> Result<Self> {
        let ended = (0..plan.workers).map(|_| AtomicU64::new(0)).collect();
        let ledger = Arc::new(Ledger { ended, ..Ledger::default() });
        let mut load = Self { ledger, workers: Vec::new() };
        let interval = Duration::from_secs(1) * plan.workers / plan.per_second.max(1);
        for worker in 0..plan.workers {
            // Spread over the interval, so that the workers do not send in bursts.
            let first = Instant::now() + interval * worker / plan.workers;
            let ledger = Arc::clone(&load.ledger);
            let work = move || ledger.send_until_stopped(worker as usize, plan, first, interval);
            load.workers.push(client.handle().spawn("load", work)?);
        }
        Ok(load)
    }

    /// The counts up to now.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.ledger.book().tally.clone()
    }

    /// The failures from the n-th on.
    #[must_use]
    pub fn failures_from(&self, first: usize) -> Vec<Failure> {
        self.ledger.book().failures.get(first..).unwrap_or_default().to_vec()
    }

    /// The longest that a request took that was answered.
    #[must_use]
    pub fn slowest(&self) -> Duration {
        self.ledger.book().slowest
    }

    /// Waits until every request that is under way has ended: what ends later was begun after the call.
    ///
    /// # Errors
    /// On Ctrl-C.
    pub fn settle(&self) -> Result<()> {
        let before = self.ledger.ended();
        let is_settled = || self.ledger.ended().iter().zip(&before).all(|(now, before)| now > before);
        wait::until_true(3 * TCP_TIMEOUT, "the requests under way have ended", is_settled)
    }

    /// Lets the requests that are under way end, and returns the final counts.
    #[must_use]
    pub fn stop(mut self) -> Tally {
        self.join();
        self.tally()
    }

    fn join(&mut self) {
        self.ledger.stop.request();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.join();
    }
}

impl Ledger {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_until_stopped(&self, worker: usize, plan: Plan, first: Instant, interval: Duration) {
        let mut next = first;
        while self.stop.pause_until(next) {
            let started = Instant::now();
            self.record(started, plan.target, self.request(plan));
            self.ended[worker].fetch_add(1, Ordering::Relaxed);
            // A worker that fell behind does not catch up in a burst: the load would then be heaviest just after
            // trouble.
            next = (next + interval).max(Instant::now());
        }
    }

    fn ended(&self) -> Vec<u64> {
        self.ended.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    fn request(&self, plan: Plan) -> Outcome {
        let mut client = None;
        let mut attempt = || match plan.transport {
            Transport::Tcp => {
                let http = HttpClient::connect(plan.target, TCP_TIMEOUT)?;
                client = Some(http.local_addr()?);
                http.get_and_close()
            }
            Transport::Udp => {
                let mut udp = self.new_udp_flow(plan.target)?;
                client = Some(udp.local_addr()?);
                udp.ask(UDP_BYTES)
            }
        };
        let answer = attempt();
        Outcome { client, answer }
    }

    /// Takes the ports one after the other. The kernel would choose at random and soon one that was used a moment ago,
    /// which to the balancer is the old flow: UDP has no end that it could see.
    fn new_udp_flow(&self, target: SocketAddr) -> io::Result<UdpClient> {
        loop {
            let port = FIRST_UDP_PORT + self.udp_flows.fetch_add(1, Ordering::Relaxed) % UDP_PORTS;
            match UdpClient::connect_from(port, target, UDP_TIMEOUT) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                result => return result,
            }
        }
    }

    fn record(&self, started: Instant, target: SocketAddr, outcome: Outcome) {
        let ended = Instant::now();
        let mut book = self.book();
        match outcome.answer {
            Ok(backend) => {
                book.tally.answered(&backend);
                book.slowest = book.slowest.max(ended - started);
            }
            Err(error) => {
                book.tally.failed();
                let reason = reason(&error);
                book.failures.push(Failure { started, ended, client: outcome.client, target, reason });
            }
        }
    }
}

struct Outcome {
    client: Option<SocketAddr>,
    answer: io::Result<String>,
}
