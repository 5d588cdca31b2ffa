//! The TCP check: can a connection be opened?

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::reason;

/// Opens a connection and resets it: thousands a minute would else wait for their last packets in this host's tables.
pub(super) async fn check(target: SocketAddr) -> Result<(), String> {
    let stream = connect(target).await?;
    stream.set_zero_linger().map_err(|error| reason::of_socket(&error))
}

/// Opens a connection.
pub(super) async fn connect(target: SocketAddr) -> Result<TcpStream, String> {
    TcpStream::connect(target).await.map_err(|error| reason::of_socket(&error))
}
