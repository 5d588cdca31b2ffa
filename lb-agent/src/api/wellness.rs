//! `/healthz` and `/readyz`: for whoever restarts the agent, or moves an address to another node.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::control::{Handle, Snapshot};
use crate::datapath::InterfaceStatus;

/// A status for machines, and a line of text for people.
#[derive(utoipa::IntoResponses)]
pub(super) enum Wellness {
    #[response(status = 200, description = "Yes", content_type = "text/plain")]
    Yes(String),
    #[response(status = 503, description = "No, and why", content_type = "text/plain")]
    No(String),
}

impl IntoResponse for Wellness {
    fn into_response(self) -> Response {
        match self {
            Self::Yes(text) => (StatusCode::OK, text).into_response(),
            Self::No(text) => (StatusCode::SERVICE_UNAVAILABLE, text).into_response(),
        }
    }
}

/// Whether the agent is alive: it answers, and its control task does.
#[utoipa::path(get, path = "/healthz", responses(Wellness))]
pub(super) async fn alive(State(control): State<Handle>) -> Wellness {
    match control.ping().await {
        Ok(()) => Wellness::Yes("alive\n".to_owned()),
        Err(error) => Wellness::No(format!("{error}\n")),
    }
}

/// Whether this node balances what it shall: the program is attached, disk and data plane are in step.
#[utoipa::path(get, path = "/readyz", responses(Wellness))]
pub(super) async fn ready(State(control): State<Handle>) -> Wellness {
    let problem = match control.snapshot().await {
        Err(error) => error.to_string(),
        Ok(snapshot) if snapshot.interfaces.iter().any(|each| each.problem.is_some()) => problems(&snapshot),
        Ok(snapshot) if !snapshot.in_step => "out of step: `lb-agent events` says why".to_owned(),
        Ok(_) => return Wellness::Yes("ready\n".to_owned()),
    };
    Wellness::No(format!("not ready: {problem}\n"))
}

/// Why packets are not balanced on every interface that is configured.
fn problems(snapshot: &Snapshot) -> String {
    let problem =
        |each: &InterfaceStatus| Some(format!("interface {}: {}", each.name, each.problem.as_ref()?));
    snapshot.interfaces.iter().filter_map(problem).collect::<Vec<_>>().join("; ")
}
