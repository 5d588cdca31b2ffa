//! The backends' servers: small, in this process, on threads inside the backend's namespace.
//!
//! They can die as a process dies ([`Server::kill`]: the port closed, every connection reset) and come back
//! ([`Server::revive`]). Each answers with its backend's name, which is how the clients know where they ended up.

mod http;
mod pollable;
mod tcp_echo;
mod udp;

use std::collections::HashMap;
use std::io::{self, PipeWriter};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Scope};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketFlags, SocketType, bind, listen, socket_with, sockopt,
};

use crate::netns::Handle;
use crate::topology::Host;
use pollable::{Connection, Stop, stop_pair};

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, see the module `http` for the resources.
    Http,
    /// Sends back what it gets, after one line with the backend's name.
    TcpEcho,
    /// Answers each datagram with the backend's name, a space, and the datagram.
    UdpEcho,
}

/// A server on one port of a backend, reached at all its addresses of both families; dropping it kills it.
#[derive(Debug)]
pub struct Server {
    site: Arc<Site>,
    running: Option<Running>,
}

/// What stays the same while a server dies and comes back.
#[derive(Debug)]
struct Site {
    namespace: Handle,
    backend: String,
    protocol: Protocol,
    port: u16,
    requests: AtomicU64,
    /// Milliseconds of work that an HTTP request is.
    work: AtomicU64,
    /// When each client endpoint was heard of.
    seen: Mutex<Sightings>,
}

type Sightings = HashMap<SocketAddr, Vec<Instant>>;

#[derive(Debug)]
struct Running {
    /// Closing this end tells every thread of the server to end; none of them blocks on anything else.
    stop: PipeWriter,
    thread: JoinHandle<()>,
}

/// Clients that may be waiting to be accepted: more than any suite opens at a time.
const BACKLOG: i32 = 4096;

/// A connection's thread needs little stack, and there may be thousands.
const STACK_BYTES: usize = 256 << 10;

impl Server {
    /// Starts a server on the backend; it listens when this returns.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(host: &Host, protocol: Protocol, port: u16) -> Result<Self> {
        let site = Site {
            namespace: host.namespace.handle(),
            backend: host.name.clone(),
            protocol,
            port,
            requests: AtomicU64::new(0),
            work: AtomicU64::new(0),
            seen: Mutex::default(),
        };
        let mut server = Self { site: Arc::new(site), running: None };
        server.revive()?;
        Ok(server)
    }

    /// Closes the port and resets every connection, as the kernel does for a process that is killed.
    pub fn kill(&mut self) {
        if let Some(Running { stop, thread }) = self.running.take() {
            drop(stop);
            // A panic in a server is the end of the server, and of nothing else.
            let _ = thread.join();
        }
    }

    /// Opens the port again; nothing happens if it is open.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn revive(&mut self) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let (stop, stopped) = stop_pair()?;
        let site = Arc::clone(&self.site);
        let name = format!("{}:{}", site.backend, site.port);
        // The socket belongs to the namespace in which it was made, so it must be made on that thread; the channel
        // brings back whether that worked.
        let (ready, opened) = std::sync::mpsc::channel();
        let thread = self.site.namespace.spawn(&name, move || match Socket::open(&site) {
            Ok(socket) => {
                let _ = ready.send(Ok(()));
                socket.serve(&site, &stopped);
            }
            Err(error) => drop(ready.send(Err(error))),
        })?;
        opened
            .recv()
            .context("the server's thread died")?
            .with_context(|| format!("cannot listen on {name}"))?;
        self.running = Some(Running { stop, thread });
        Ok(())
    }

    /// Whether the port is open.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.running.is_some()
    }

    /// Requests answered (HTTP, UDP) or connections accepted (TCP echo) since the first start.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.site.requests.load(Ordering::Relaxed)
    }

    /// Makes HTTP requests take so long from now on, half as long to half as long again, as a slow machine does.
    pub fn slow_down(&self, milliseconds: u64) {
        self.site.work.store(milliseconds, Ordering::Relaxed);
    }

    /// Whether this client endpoint has reached the server in that time: tells where a failed request went.
    #[must_use]
    pub fn has_seen(&self, client: SocketAddr, during: RangeInclusive<Instant>) -> bool {
        self.site.seen().get(&client).is_some_and(|times| times.iter().any(|time| during.contains(time)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Site {
    fn seen(&self) -> MutexGuard<'_, Sightings> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_client(&self, client: SocketAddr) {
        self.seen().entry(client).or_default().push(Instant::now());
    }

    /// Takes the time that a request is to take.
    fn work(&self) {
        let mean = self.work.load(Ordering::Relaxed);
        if mean > 0 {
            // Of unequal length, or clients that began together would go on in step.
            let draw = lb_common::hash::mix(self.requests.load(Ordering::Relaxed), mean);
            let length = mean / 2 + lb_common::hash::scale(draw, mean as u32) as u64;
            // Not a wait for something: the time is what is asked for.
            std::thread::sleep(Duration::from_millis(length));
        }
    }

    fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
}

/// The open port.
enum Socket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Socket {
    fn open(site: &Site) -> io::Result<Self> {
        let kind = if site.protocol == Protocol::UdpEcho { SocketType::DGRAM } else { SocketType::STREAM };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket: OwnedFd = socket_with(AddressFamily::INET6, kind, flags, None)?;
        // One socket for both families; clients over IPv4 appear as ::ffff:a.b.c.d.
        sockopt::set_ipv6_v6only(&socket, false)?;
        let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), site.port);
        if kind == SocketType::DGRAM {
            bind(&socket, &SocketAddrAny::from(any))?;
            return Ok(Self::Udp(socket.into()));
        }
        // Connections of a server that was killed may linger in TIME_WAIT.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &SocketAddrAny::from(any))?;
        listen(&socket, BACKLOG)?;
        Ok(Self::Tcp(socket.into()))
    }

    /// Serves until `stopped`; when it returns, every thread has ended and every connection is closed.
    fn serve(self, site: &Site, stopped: &Stop) {
        match self {
            Self::Udp(socket) => udp::serve(&socket, site, stopped),
            Self::Tcp(listener) => std::thread::scope(|scope| accept(&listener, site, stopped, scope)),
        }
    }
}

fn accept<'scope>(
    listener: &TcpListener,
    site: &'scope Site,
    stopped: &'scope Stop,
    scope: &'scope Scope<'scope, '_>,
) {
    while stopped.wait_readable(listener).is_ok() {
        let Ok((stream, client)) = listener.accept() else { continue };
        site.note_client(canonical(client));
        let connection = match Connection::new(stream, stopped) {
            Ok(connection) => connection,
            // The client is gone already.
            Err(_) => continue,
        };
        let serve = move || {
            let served = match site.protocol {
                Protocol::TcpEcho => tcp_echo::serve(&connection, site),
                Protocol::Http | Protocol::UdpEcho => http::serve(&connection, canonical(client), site),
            };
            if served.is_err() {
                connection.reset();
            }
        };
        // Without a thread the connection is dropped, and the client counts an error: as it should.
        let _ = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, serve);
    }
}

/// An IPv4 client's address as IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V6(ip) => ip.to_canonical(),
        ip @ IpAddr::V4(_) => ip,
    };
    SocketAddr::new(ip, address.port())
}
