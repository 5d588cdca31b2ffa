//! The UDP check: is a datagram answered?

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::UdpSocket;

use super::reason;
use crate::model::Datagram;

/// What is read of an answer.
const LONGEST: usize = 4096;

/// Sends a datagram and looks at the first answer. A socket of its own for each: nobody else's answer comes by it.
pub(super) async fn check(
    target: SocketAddr,
    send: &Datagram,
    expect: Option<&Datagram>,
) -> Result<(), String> {
    let failed = |error: std::io::Error| reason::of_socket(&error);
    let any = match target.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await.map_err(failed)?;
    socket.connect(target).await.map_err(failed)?;
    socket.send(send.as_bytes()).await.map_err(failed)?;
    let mut answer = [0; LONGEST];
    let length = socket.recv(&mut answer).await.map_err(failed)?;
    let answer = &answer[..length];
    match expect {
        Some(expect) if !contains(answer, expect.as_bytes()) => {
            Err(format!("answer {} has no `{expect}`", reason::shown(answer)))
        }
        _ => Ok(()),
    }
}

/// Whether one is part of the other.
pub(super) fn contains(whole: &[u8], part: &[u8]) -> bool {
    part.is_empty() || whole.windows(part.len()).any(|window| window == part)
}
