//! Takes requests apart, so that whatever is wrong with one becomes a [`Problem`].

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::problem::Problem;
use crate::model::{Endpoint, Quoted, ServiceName};

/// The service that a path names.
pub(super) struct ServicePath(pub(super) ServiceName);

/// The backend that a path names.
pub(super) struct BackendPath(pub(super) ServiceName, pub(super) Endpoint);

/// The revision that a path names.
pub(super) struct RevisionPath(pub(super) u64);

/// The parameters of a query.
pub(super) struct Parameters<T>(pub(super) T);

/// A body in JSON.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync> FromRequestParts<S> for ServicePath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let [name] = segments(parts, state).await?;
        name.parse().map(Self).map_err(|error| not_there(&error))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for BackendPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let [name, address] = segments(parts, state).await?;
        let name = name.parse().map_err(|error| not_there(&error))?;
        let address = address.parse().map_err(|error| not_there(&error))?;
        Ok(Self(name, address))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RevisionPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let [number] = segments(parts, state).await?;
        let no_number = || Problem::not_found(&format!("no revision {}: it is a number", Quoted(&number)));
        number.parse().map(Self).map_err(|_| no_number())
    }
}

/// What cannot be a name names nothing.
fn not_there(error: &dyn std::error::Error) -> Problem {
    Problem::not_found(&error.to_string())
}

async fn segments<S: Send + Sync, const N: usize>(
    parts: &mut Parts,
    state: &S,
) -> Result<[String; N], Problem> {
    let Path(values): Path<Vec<String>> = Path::from_request_parts(parts, state)
        .await
        .map_err(|rejection| Problem::malformed(&rejection.body_text()))?;
    values.try_into().map_err(|_| Problem::malformed("the path has another number of segments"))
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => Err(Problem::malformed(&rejection.body_text())),
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        json(&bytes(request, state).await?).map(Self)
    }
}

/// The body as it was sent, where it is not too large.
pub(super) async fn bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large("the body is larger than this route takes"),
        _ => Problem::malformed(&rejection.body_text()),
    })
}

/// Reads JSON: what is not JSON is malformed, what says something that cannot be is invalid.
pub(super) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        Category::Data => {
            // Bodies are written by programs, on one line: the reason names the value, its column helps nobody.
            let position = format!(" at line {} column {}", error.line(), error.column());
            let text = error.to_string();
            Problem::invalid(text.strip_suffix(&position).unwrap_or(&text))
        }
        Category::Syntax | Category::Eof | Category::Io => {
            Problem::malformed(&format!("the body is not JSON: {error}"))
        }
    })
}
