//! Long-lived connections: opened once, used again and again, never expected to move.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::http_client::{HttpClient, reason};
use crate::netns::Namespace;
use crate::stop::Stop;

/// How long an answer may take on a connection that stands.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Every connection is used once in this time.
const ROUND: Duration = Duration::from_millis(100);

/// Held connections; dropping closes them.
#[derive(Debug)]
pub struct Held {
    shared: Arc<Shared>,
    checker: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: Stop,
    board: Mutex<Board>,
}

#[derive(Debug)]
struct Board {
    connections: Vec<Connection>,
    lost: Vec<Lost>,
    rounds: u64,
}

#[derive(Debug)]
struct Connection {
    client: HttpClient,
    backend: String,
}

/// A connection that broke, or was answered by another backend than before.
#[derive(Debug, Clone)]
pub struct Lost {
    /// The backend it was with.
    pub backend: String,
    /// When it was noticed.
    pub at: Instant,
    /// What the client saw.
    pub reason: String,
}

impl Held {
    /// Opens `count` connections from the namespace and asks each for its backend; from then on a thread uses all of
    /// them, several times a second.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub fn open(client: &Namespace, target: SocketAddr, count: usize) -> Result<Self> {
        let connections =
            client.run(|| (0..count).map(|_| Connection::open(target)).collect::<Result<Vec<_>>>())?;
        let board = Mutex::new(Board { connections, lost: Vec::new(), rounds: 0 });
        let shared = Arc::new(Shared { stop: Stop::default(), board });
        let theirs = Arc::clone(&shared);
        let checker = client.handle().spawn("held", move || theirs.check_until_stopped())?;
        Ok(Self { shared, checker: Some(checker) })
    }

    /// Standing connections by backend.
    #[must_use]
    pub fn spread(&self) -> BTreeMap<String, usize> {
        let mut spread = BTreeMap::new();
        for connection in &self.shared.board().connections {
            *spread.entry(connection.backend.clone()).or_default() += 1;
        }
        spread
    }

    /// Those that broke or moved, up to now. Also looks at every connection once more, so what is lost is known to be.
    ///
    /// # Errors
    /// On Ctrl-C.
    pub fn lost(&self) -> Result<Vec<Lost>> {
        let begun = self.shared.board().rounds;
        // The round under way may have passed the connection before it broke: see the end of the next one.
        let limit = ANSWER_TIMEOUT * 10;
        crate::wait::until_true(limit, "every held connection has been used", || {
            self.shared.board().rounds >= begun + 2
        })?;
        Ok(self.shared.board().lost.clone())
    }

    /// Closes the connections to one backend, as clients do that are done.
    pub fn hang_up(&self, backend: &str) {
        self.shared.board().connections.retain(|connection| connection.backend != backend);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.stop.request();
        let _ = self.checker.take().map(JoinHandle::join);
    }
}

impl Connection {
    fn open(target: SocketAddr) -> Result<Self> {
        let open = || {
            let mut client = HttpClient::connect(target, ANSWER_TIMEOUT)?;
            let backend = client.get()?;
            Ok::<_, std::io::Error>(Self { client, backend })
        };
        open().with_context(|| format!("cannot open a long-lived connection to {target}"))
    }

    /// Uses the connection once.
    fn use_once(&mut self) -> Result<(), String> {
        match self.client.get() {
            Ok(backend) if backend == self.backend => Ok(()),
            Ok(other) => Err(format!("moved to {other}")),
            Err(error) => Err(reason(&error)),
        }
    }
}

impl Shared {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_until_stopped(&self) {
        let mut next = Instant::now();
        while self.stop.pause_until(next) {
            next = Instant::now() + ROUND;
            self.board().check();
        }
    }
}

impl Board {
    fn check(&mut self) {
        let lost = &mut self.lost;
        self.connections.retain_mut(|connection| match connection.use_once() {
            Ok(()) => true,
            Err(reason) => {
                lost.push(Lost { backend: connection.backend.clone(), at: Instant::now(), reason });
                false
            }
        });
        self.rounds += 1;
    }
}
