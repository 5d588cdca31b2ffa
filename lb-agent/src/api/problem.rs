//! Errors as RFC 9457 has them: `application/problem+json`.

use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::control::ControlError;
use crate::model::{Quoted, Refusal, shorten};
use crate::store::StoreError;

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// Which kind of problem, as a stable URN.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind, for people.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What, which object, why, what to do: one line.
    pub detail: String,
}

/// Characters of a detail at most.
const MAX_DETAIL: usize = 600;

/// What every route may answer instead of what it is asked for, as the description of the API has it.
#[derive(utoipa::IntoResponses)]
#[response(status = "default", description = "Not done", content_type = "application/problem+json")]
#[expect(dead_code, reason = "a description: the answer itself is a `Problem`")]
pub(super) struct NotDone(#[to_schema] Problem);

impl Problem {
    fn new(status: StatusCode, name: &str, title: &str, detail: &str) -> Self {
        Self {
            kind: format!("urn:lb-agent:{name}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: shorten(detail, MAX_DETAIL),
        }
    }

    /// The request is not what the route takes.
    pub(super) fn malformed(detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", "Malformed request", detail)
    }

    /// The request is well-formed and says something that cannot be.
    pub(super) fn invalid(detail: &str) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "Invalid value", detail)
    }

    /// The request's body is larger than any state.
    pub(super) fn too_large(detail: &str) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Request too large", detail)
    }

    /// Whoever asks may not.
    pub(super) fn denied(status: StatusCode, detail: &str) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::new(status, "unauthorized", "Who are you?", detail),
            _ => Self::new(status, "forbidden", "Not allowed", detail),
        }
    }

    /// The object is not there.
    pub(super) fn not_found(detail: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// The path is none of the API's.
    pub(super) fn no_route(path: &str) -> Self {
        Self::not_found(&format!("no such path: {}", Quoted(path)))
    }

    /// The path has no such method.
    pub(super) fn no_method(method: &Method, path: &str) -> Self {
        let detail = format!("{} is not for {}", Quoted(method.as_str()), Quoted(path));
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed", &detail)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::UnknownService(_) | Refusal::UnknownBackend(..) => Self::not_found(&detail),
            Refusal::DuplicateService(_)
            | Refusal::DuplicateBackend(..)
            | Refusal::DuplicateVip(..)
            | Refusal::BeingRemoved(..) => Self::new(StatusCode::CONFLICT, "conflict", "Conflict", &detail),
            Refusal::RepeatedService(_)
            | Refusal::RepeatedBackend(..)
            | Refusal::Family { .. }
            | Refusal::BackendIsVip(..)
            | Refusal::Shared(..)
            | Refusal::ByException(..)
            | Refusal::NoHandshakes(..)
            | Refusal::Fixed(..)
            | Refusal::PrefixFamily { .. }
            | Refusal::PrefixTwice(..)
            | Refusal::LimitPrefix(_)
            | Refusal::SourcePrefix(..)
            | Refusal::TooManyPrefixes(_)
            | Refusal::NoSourcePool(_)
            | Refusal::IdleSourcePool(..)
            | Refusal::SourceFamily(..)
            | Refusal::SourceIsVip(..)
            | Refusal::SourceIsBackend(..)
            | Refusal::TooManySources(..)
            | Refusal::TooManySourceAddresses(..)
            | Refusal::TooManyServices(..)
            | Refusal::TooManyBackends(..) => Self::invalid(&detail),
        }
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        let detail = error.to_string();
        match error {
            ControlError::Refused(refusal) => refusal.into(),
            ControlError::Stale { .. } => {
                Self::new(StatusCode::PRECONDITION_FAILED, "stale", "Changed meanwhile", &detail)
            }
            ControlError::Unreadable(StoreError::NotKept(_)) => Self::not_found(&detail),
            ControlError::Store(_) | ControlError::Unreadable(_) | ControlError::Datapath(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", "The change failed", &detail)
            }
            ControlError::Busy | ControlError::Stopped => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "No answer", &detail)
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}
