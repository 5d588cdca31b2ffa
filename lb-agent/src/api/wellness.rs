//! `/healthz` and `/readyz`: for whoever restarts the agent, or moves an address to another node.

use axum::extract::State;
use axum::http::StatusCode;

use crate::control::Handle;

/// Whether the agent is alive: it answers, and its control task does.
#[utoipa::path(
    get,
    path = "/healthz",
    responses(
        (status = 200, description = "Yes", body = String, content_type = "text/plain"),
        (status = 503, description = "No, and why", body = String, content_type = "text/plain"),
    )
)]
pub(super) async fn alive(State(control): State<Handle>) -> (StatusCode, String) {
    match control.ping().await {
        Ok(()) => (StatusCode::OK, "alive\n".to_owned()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}

/// Whether this node balances what it shall: the program is attached, disk and data plane are in step.
#[utoipa::path(
    get,
    path = "/readyz",
    responses(
        (status = 200, description = "Yes", body = String, content_type = "text/plain"),
        (status = 503, description = "No, and why", body = String, content_type = "text/plain"),
    )
)]
pub(super) async fn ready(State(control): State<Handle>) -> (StatusCode, String) {
    let problem = match control.snapshot().await {
        Err(error) => error.to_string(),
        Ok(snapshot) if snapshot.interfaces.is_empty() => "the program is attached nowhere".to_owned(),
        Ok(snapshot) if !snapshot.in_step => "out of step: `lb-agent events` says why".to_owned(),
        Ok(_) => return (StatusCode::OK, "ready\n".to_owned()),
    };
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {problem}\n"))
}
