//! `/v1/state`: the whole desired state, as TOML or as JSON with the same keys.

use std::time::SystemTime;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::etag::{IfMatch, Tagged, tag};
use super::extract::{Parameters, bytes, json};
use super::problem::{NotDone, Problem};
use super::types::ChangedView;
use crate::control::{Handle, Order};
use crate::model::file::{self, RawState};
use crate::model::{Change, Desired, Period, Removal};

const TOML: &str = "application/toml";

/// How long a backend may drain that is removed, unless somebody says otherwise.
const DRAIN_TIMEOUT: Period = Period::from_secs(300);

/// What becomes of the rest when a state is declared.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeclareParameters {
    /// Whether what is not declared goes; a state that is put is the whole one.
    prune: Option<bool>,
    #[serde(default)]
    dry_run: bool,
    drain_timeout: Option<Period>,
}

/// A drain that ends so long from now.
pub(super) fn drain(timeout: Option<Period>) -> Removal {
    Removal::Drain(SystemTime::now() + timeout.unwrap_or(DRAIN_TIMEOUT).duration())
}

#[utoipa::path(
    get,
    path = "/v1/state",
    responses(
        (status = 200, description = "The state", content((RawState = "application/json"), (String = "application/toml"))),
        NotDone,
    )
)]
pub(super) async fn get(State(control): State<Handle>, headers: HeaderMap) -> Result<Response, Problem> {
    let snapshot = control.snapshot().await?;
    Ok(tag(snapshot.revision, render(&snapshot.desired, &headers)?))
}

/// A state, in the language that is asked for.
pub(super) fn render(desired: &Desired, headers: &HeaderMap) -> Result<Response, Problem> {
    let text = file::print(desired);
    if mentions(headers, &header::ACCEPT, TOML) {
        return Ok(([(header::CONTENT_TYPE, TOML)], text).into_response());
    }
    // By way of the file: whatever stands in one stands in the other.
    let value: serde_json::Value =
        file::read_toml(&text, "state").map_err(|error| Problem::invalid(&error.to_string()))?;
    Ok(Json(value).into_response())
}

#[utoipa::path(
    put,
    path = "/v1/state",
    params(DeclareParameters, IfMatch),
    request_body(content((RawState = "application/json"), (String = "application/toml"))),
    responses(
        (status = 200, description = "Declared", body = ChangedView, headers(("ETag" = String, description = "The revision that it is at"))),
        NotDone,
    )
)]
pub(super) async fn put(
    State(control): State<Handle>,
    Parameters(DeclareParameters { prune, dry_run, drain_timeout }): Parameters<DeclareParameters>,
    if_match: IfMatch,
    request: Request,
) -> Result<Tagged<ChangedView>, Problem> {
    let is_toml = mentions(request.headers(), &header::CONTENT_TYPE, TOML);
    let body = bytes(request, &()).await?;
    let desired = if is_toml { read(&body)? } else { json::<RawState>(&body)?.desired()? };
    let prune = prune.unwrap_or(true).then(|| drain(drain_timeout));
    let order = Order { dry_run, ..if_match.state() };
    let changed = control.order(Change::Declare { desired, prune }, order).await?;
    Ok(Tagged(changed.revision, ChangedView::new(changed, dry_run)))
}

fn read(body: &[u8]) -> Result<Desired, Problem> {
    let text =
        std::str::from_utf8(body).map_err(|error| Problem::malformed(&format!("the body: {error}")))?;
    file::parse(text, "state").map_err(|error| Problem::invalid(&error.to_string()))
}

fn mentions(headers: &HeaderMap, name: &HeaderName, kind: &str) -> bool {
    headers.get(name).and_then(|value| value.to_str().ok()).is_some_and(|value| value.contains(kind))
}
