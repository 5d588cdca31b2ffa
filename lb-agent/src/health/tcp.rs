//! The TCP check: can a connection be opened?

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::time;

use crate::model::Period;

/// Opens a connection and closes it.
pub(super) async fn connect(target: SocketAddr, timeout: Period) -> Result<(), String> {
    match time::timeout(timeout.duration(), TcpStream::connect(target)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("tcp connect to {target}: {error}")),
        Err(_) => Err(format!("tcp connect to {target}: no answer within {timeout}")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    const TIMEOUT: Period = Period::from_millis(200);

    #[tokio::test]
    async fn a_listener_is_fit() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        assert_eq!(connect(listener.local_addr().unwrap(), TIMEOUT).await, Ok(()));
    }

    #[tokio::test]
    async fn a_refused_connection_is_not() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let target = socket.local_addr().unwrap();
        assert_eq!(
            connect(target, TIMEOUT).await,
            Err(format!("tcp connect to {target}: Connection refused (os error 111)"))
        );
    }

    #[tokio::test]
    async fn silence_is_not() {
        // A backlog that is full: Linux ignores further SYNs to it.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = socket.listen(0).unwrap();
        let target = listener.local_addr().unwrap();
        let _filling = TcpStream::connect(target).await.unwrap();
        assert_eq!(
            connect(target, TIMEOUT).await,
            Err(format!("tcp connect to {target}: no answer within 200ms"))
        );
    }
}
