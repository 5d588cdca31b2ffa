//! The API over TCP, where `[http]` is configured: the same routes, behind tokens and TLS.

mod gate;
mod tls;
mod tokens;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::extract::Extension;
use axum::{Router, middleware};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tracing::{debug, warn};

use crate::config::Http;
pub use gate::{Gate, HttpCounts};
use gate::{Peer, guard};
pub use tls::TlsError;
pub use tokens::TokenError;
use tokens::Tokens;

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 256;
/// How long a client may take for its handshake, and for the head of a request. Whoever is slower holds a connection
/// that others could have.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the API cannot be had over TCP. One line.
#[derive(Debug, thiserror::Error)]
pub enum TcpError {
    /// The address is taken, or not ours.
    #[error("cannot listen at http.listen = \"{address}\": {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// The tokens cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The door: open, but nobody is served yet.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    keys: Keys,
}

/// What can be exchanged while the door is open. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// Who is let in, and who was not.
    pub gate: Arc<Gate>,
    tls: Arc<RwLock<Option<Arc<ServerConfig>>>>,
}

impl Keys {
    /// Reads tokens, certificate and key. Where one of them cannot be used, all stay as they were.
    ///
    /// # Errors
    /// Where one cannot be used.
    pub fn load(&self, config: &Http) -> Result<(), TcpError> {
        let tokens = config.token_file.as_deref().map(Tokens::load).transpose()?;
        let tls = match (&config.cert_file, &config.key_file) {
            (Some(cert), Some(key)) => Some(tls::load(cert, key)?),
            _ => None,
        };
        self.gate.set_tokens(tokens);
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = tls;
        Ok(())
    }

    fn tls(&self) -> Option<TlsAcceptor> {
        let config = self.tls.read().unwrap_or_else(PoisonError::into_inner).clone();
        config.map(TlsAcceptor::from)
    }
}

impl Door {
    /// Listens.
    ///
    /// # Errors
    /// Where the address cannot be had, or tokens or certificate cannot be used.
    pub async fn open(config: &Http) -> Result<Self, TcpError> {
        let keys = Keys::default();
        keys.load(config)?;
        let address = config.listen;
        let listener =
            TcpListener::bind(address).await.map_err(|error| TcpError::Listen { address, error })?;
        if !address.ip().is_loopback() && config.cert_file.is_none() {
            warn!(%address, "tokens cross the network in clear: set http.cert_file and http.key_file");
        }
        Ok(Self { listener, keys })
    }

    /// What can be exchanged.
    pub fn keys(&self) -> Keys {
        self.keys.clone()
    }

    /// Serves until `stop` says so, then lets each connection finish its request.
    pub(super) async fn serve(self, router: Router, mut stop: watch::Receiver<bool>) {
        let Self { listener, keys } = self;
        let router = router.layer(middleware::from_fn_with_state(Arc::clone(&keys.gate), guard));
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let accept = async {
                // Never closed.
                let permit = Arc::clone(&permits).acquire_owned().await;
                (permit, listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                accepted = accept => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            // Those that have ended.
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, peer)) => {
                    let (tls, router, stop) = (keys.tls(), router.clone(), stop.clone());
                    connections.spawn(async move {
                        let _permit = permit;
                        connection(stream, peer, tls, router, stop).await;
                    });
                }
                // Out of descriptors, most likely: it passes, and trying at once again would only burn a core.
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        while connections.join_next().await.is_some() {}
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: Router,
    stop: watch::Receiver<bool>,
) {
    let Some(tls) = tls else { return serve(stream, peer, router, stop).await };
    match timeout(PATIENCE, tls.accept(stream)).await {
        Ok(Ok(stream)) => serve(stream, peer, router, stop).await,
        Ok(Err(error)) => debug!(%peer, %error, "no TLS handshake"),
        Err(_) => debug!(%peer, "no TLS handshake in time"),
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let service = TowerToHyperService::new(router.layer(Extension(Peer(peer))));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // The guard that it gives must not be held while the last request is finished.
    let stopped = async { drop(stop.wait_for(|stop| *stop).await) };
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stopped => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        debug!(%peer, %error, "a connection broke");
    }
}
