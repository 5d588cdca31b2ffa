//! The ICMP check: is an echo request answered (RFC 792, RFC 4443 section 4)?

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr, UdpSocket as StdSocket};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, connect, ipproto, socket_with};
use tokio::net::UdpSocket;

use super::reason;

const HEADER: usize = 8;
/// Header, and what tells this request's answer from every other.
const LENGTH: usize = HEADER + 8;

/// Sends an echo request and waits for its answer.
pub(super) async fn check(target: IpAddr) -> Result<(), String> {
    let socket = open(target).map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "the agent may not send ICMP: it needs CAP_NET_RAW".to_owned()
        }
        _ => reason::of_socket(&error),
    })?;
    let request = request(target);
    socket.send(&request).await.map_err(|error| reason::of_socket(&error))?;
    let mut packet = [0; 512];
    loop {
        let length = socket.recv(&mut packet).await.map_err(|error| reason::of_socket(&error))?;
        if is_answer(target, &packet[..length], &request) {
            return Ok(());
        }
    }
}

/// A socket that sees ICMP from the target alone.
fn open(target: IpAddr) -> std::io::Result<UdpSocket> {
    let (family, protocol): (AddressFamily, Protocol) = match target {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = socket_with(family, SocketType::RAW, flags, Some(protocol))?;
    connect(&socket, &SocketAddr::new(target, 0))?;
    // To the runtime it is a socket of datagrams like any other.
    UdpSocket::from_std(StdSocket::from(socket))
}

fn request(target: IpAddr) -> [u8; LENGTH] {
    let cookie = RandomState::new().hash_one(target);
    let mut request = [0; LENGTH];
    request[0] = if target.is_ipv4() { 8 } else { 128 };
    request[4..HEADER].copy_from_slice(&(cookie >> 7).to_be_bytes()[..4]);
    request[HEADER..].copy_from_slice(&cookie.to_be_bytes());
    if target.is_ipv4() {
        // In IPv6 the kernel does it, which knows the addresses that count.
        let sum = checksum(&request);
        request[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    request
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or_default()
}

/// Identifier, number and data come back as they were sent. In IPv4 the header of the packet is read too.
fn is_answer(target: IpAddr, packet: &[u8], request: &[u8; LENGTH]) -> bool {
    let (kind, header) = match target {
        IpAddr::V4(_) => (0, packet.first().map_or(0, |byte| usize::from(byte & 0xf) * 4)),
        IpAddr::V6(_) => (129, 0),
    };
    packet
        .get(header..)
        .is_some_and(|icmp| icmp.first() == Some(&kind) && icmp.get(4..) == Some(&request[4..]))
}
