//! UDP: one answer for each datagram.

use std::net::UdpSocket;

use super::pollable::Stop;
use super::{Site, canonical};

/// The largest UDP payload there is.
const MAX_DATAGRAM: usize = 65_507;

/// Answers each datagram with the backend's name, a space, and the datagram (cut where the sum is too long).
pub(super) fn serve(socket: &UdpSocket, site: &Site, stopped: &Stop) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    while stopped.wait_readable(socket).is_ok() {
        // An error here is an ICMP answer to something sent before, to a client that is gone.
        let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
        site.note_client(canonical(client));
        site.count_request();
        let mut answer = format!("{} ", site.backend).into_bytes();
        answer.extend_from_slice(&buffer[..length]);
        answer.truncate(MAX_DATAGRAM);
        let _ = socket.send_to(&answer, client);
    }
}
