//! The admin API: HTTP over a Unix socket, under `/v1`. The command line uses nothing else.

mod backends;
mod etag;
mod events;
mod extract;
mod flows;
mod metrics;
mod observe;
mod openapi;
mod problem;
mod revisions;
mod services;
mod socket;
mod state;
pub mod tcp;
pub mod types;
mod views;
mod wellness;

#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod tests;

use std::future::{Future, IntoFuture as _};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::FromRef;
use axum::http::{Method, Uri};
use tokio::net::UnixListener;
use tokio::sync::watch;

use crate::control::Handle;
pub use problem::Problem;
pub use socket::{bind, make_room};
pub use tcp::{Door, Gate, Keys};

/// A state's body at most: twice what every limit at its highest takes. Other bodies have axum's limit, 2 MB.
pub const MAX_STATE: usize = 16 << 20;

/// How long requests under way may take after the agent was asked to stop.
const LAST_REQUESTS: Duration = Duration::from_secs(3);

/// What the routes work with.
#[derive(Clone, Debug)]
pub struct Api {
    /// The way to the control task.
    pub control: Handle,
    /// Who was let in over TCP, and who was not.
    pub gate: Arc<Gate>,
}

impl FromRef<Api> for Handle {
    fn from_ref(api: &Api) -> Self {
        api.control.clone()
    }
}

impl FromRef<Api> for Arc<Gate> {
    fn from_ref(api: &Api) -> Self {
        Arc::clone(&api.gate)
    }
}

/// Every route there is.
fn router(api: Api) -> Router {
    openapi::routes()
        .split_for_parts()
        .0
        .fallback(async |uri: Uri| Problem::no_route(uri.path()))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| Problem::no_method(&method, uri.path()))
        .with_state(api)
}

/// Serves until `stop` is ready, and then finishes what is under way.
///
/// # Errors
/// Where the listener fails.
pub async fn serve(
    listener: UnixListener,
    door: Option<Door>,
    api: Api,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (stopping, mut stopped) = watch::channel(false);
    let events = api.control.events().clone();
    let graceful = async move {
        stop.await;
        // Whoever listens would keep the connection open.
        events.close();
        stopping.send_replace(true);
    };
    let mut last_requests = stopped.clone();
    let last_requests = async move {
        // An error where the sender is gone, which it is once it has said so.
        let _ = last_requests.wait_for(|stop| *stop).await;
        tokio::time::sleep(LAST_REQUESTS).await;
    };
    let router = router(api);
    let over_tcp = {
        let (router, stopped) = (router.clone(), stopped.clone());
        async move {
            if let Some(door) = door {
                door.serve(router, stopped).await;
            }
        }
    };
    let is_stopped = async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let served = async {
        let over_unix = axum::serve(listener, router).with_graceful_shutdown(is_stopped).into_future();
        let (served, (), ()) = tokio::join!(over_unix, over_tcp, graceful);
        served
    };
    tokio::select! {
        served = served => served,
        () = last_requests => Ok(()),
    }
}
