//! Why a check failed, in the words of whoever looks.

use std::io;

use crate::model::Quoted;

/// What an error of a socket means.
pub(super) fn of_socket(error: &io::Error) -> String {
    use io::ErrorKind as Kind;
    let words = match error.kind() {
        Kind::ConnectionRefused => "connection refused",
        Kind::ConnectionReset => "connection reset",
        Kind::HostUnreachable => "host unreachable",
        Kind::NetworkUnreachable => "network unreachable",
        Kind::UnexpectedEof | Kind::BrokenPipe => "connection closed",
        _ => return error.to_string(),
    };
    words.to_owned()
}

/// What somebody sent, as far as it can be shown in a line.
pub(super) fn shown(bytes: &[u8]) -> String {
    Quoted(&String::from_utf8_lossy(bytes)).to_string()
}
