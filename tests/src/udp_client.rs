//! UDP requests to the servers of [`crate::server`].

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use rustix::net::sockopt;

/// A socket connected to a service: it takes answers from the VIP alone, so an answer whose source was not translated
/// back is an answer that never comes.
#[derive(Debug)]
pub struct UdpClient {
    socket: UdpSocket,
    sent: u64,
}

impl UdpClient {
    /// Opens a socket on a port of its own: a new flow.
    ///
    /// # Errors
    /// When there is no route to the target.
    pub fn connect(target: SocketAddr, timeout: Duration) -> io::Result<Self> {
        Self::connect_from(0, target, timeout)
    }

    /// Opens a socket on a given port; 0 lets the kernel choose.
    ///
    /// # Errors
    /// When the port is taken or there is no route to the target.
    pub fn connect_from(port: u16, target: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let any: SocketAddr = match target {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(timeout))?;
        socket.connect(target)?;
        Ok(Self { socket, sent: 0 })
    }

    /// The client's own endpoint.
    ///
    /// # Errors
    /// As getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The service's endpoint.
    ///
    /// # Errors
    /// As getpeername(2).
    pub fn target(&self) -> io::Result<SocketAddr> {
        self.socket.peer_addr()
    }

    /// Sends a datagram, and does not wait for an answer.
    ///
    /// # Errors
    /// As send(2).
    pub fn send(&self, payload: &[u8]) -> io::Result<()> {
        self.socket.send(payload).map(drop)
    }

    /// Sends a datagram that may pass so many hops, and does not wait for an answer.
    ///
    /// # Errors
    /// As send(2).
    pub fn send_with_hops(&self, hops: u8, payload: &[u8]) -> io::Result<()> {
        match self.socket.local_addr()? {
            SocketAddr::V4(_) => self.socket.set_ttl(hops.into())?,
            SocketAddr::V6(_) => sockopt::set_ipv6_unicast_hops(&self.socket, Some(hops))?,
        }
        self.send(payload)
    }

    /// Sends a datagram of `length` bytes and waits for its answer; returns the backend's name.
    ///
    /// # Errors
    /// When no answer comes in time, or it is not an answer to what was sent.
    pub fn ask(&mut self, length: usize) -> io::Result<String> {
        self.sent += 1;
        let mut request = format!("request {} ", self.sent).into_bytes();
        while request.len() < length {
            request.push(b'a' + (request.len() % 26) as u8);
        }
        self.socket.send(&request)?;
        let mut answer = vec![0; request.len() + 64];
        let received = self.socket.recv(&mut answer)?;
        answer.truncate(received);
        let space = answer.iter().position(|&byte| byte == b' ').ok_or(ErrorKind::InvalidData)?;
        if answer[space + 1..] != request {
            return Err(io::Error::new(ErrorKind::InvalidData, "the answer is not to this request"));
        }
        Ok(String::from_utf8_lossy(&answer[..space]).into_owned())
    }
}
