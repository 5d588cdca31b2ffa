//! The admin API: HTTP over a Unix socket, under `/v1`. The command line uses nothing else.

mod backends;
mod etag;
mod events;
mod extract;
mod observe;
mod problem;
mod revisions;
mod services;
mod socket;
mod state;
pub mod types;
mod views;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Uri};
use axum::routing::{get, post};
use tokio::net::UnixListener;

use crate::control::Handle;
pub use problem::Problem;
pub use socket::{bind, make_room};

/// A state's body at most: twice what every limit at its highest takes. Other bodies have axum's limit, 2 MB.
pub const MAX_STATE: usize = 16 << 20;

/// How long requests under way may take after the agent was asked to stop.
const LAST_REQUESTS: Duration = Duration::from_secs(3);

/// Every route there is.
fn router(control: Handle) -> Router {
    Router::new()
        .route("/v1/services", get(services::list).post(services::add))
        .route("/v1/services/{name}", get(services::show).patch(services::set).delete(services::remove))
        .route("/v1/services/{name}/backends", get(backends::list_of).post(backends::add))
        .route(
            "/v1/services/{name}/backends/{address}",
            get(backends::show).patch(backends::set).delete(backends::remove),
        )
        .route("/v1/backends", get(backends::list))
        .route("/v1/state", get(state::get).put(state::put).layer(DefaultBodyLimit::max(MAX_STATE)))
        .route("/v1/revisions", get(revisions::list))
        .route("/v1/revisions/{revision}", get(revisions::show))
        .route("/v1/revisions/{revision}/rollback", post(revisions::rollback))
        .route("/v1/status", get(observe::status))
        .route("/v1/events", get(events::listen))
        .route("/v1/flows", get(observe::flows))
        .route("/v1/explain", get(observe::explain))
        .fallback(async |uri: Uri| Problem::no_route(uri.path()))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| Problem::no_method(&method, uri.path()))
        .with_state(control)
}

/// Serves until `stop` is ready, and then finishes what is under way.
///
/// # Errors
/// Where the listener fails.
pub async fn serve(
    listener: UnixListener,
    control: Handle,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
    let events = control.events().clone();
    let graceful = async move {
        stop.await;
        // Whoever listens would keep the connection open.
        events.close();
        drop(stopping);
    };
    let last_requests = async move {
        // Ready when the sender is dropped.
        let _ = stopped.await;
        tokio::time::sleep(LAST_REQUESTS).await;
    };
    tokio::select! {
        served = axum::serve(listener, router(control)).with_graceful_shutdown(graceful) => served,
        () = last_requests => Ok(()),
    }
}
