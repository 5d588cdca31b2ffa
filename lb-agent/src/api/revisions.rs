//! `/v1/revisions`, `/v1/revisions/{revision}` and `/v1/revisions/{revision}/rollback`: what the state was, and the way back.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;

use super::etag::{IfMatch, Tagged, tag};
use super::extract::{Parameters, RevisionPath};
use super::problem::{NotDone, Problem};
use super::state::{drain, render};
use super::types::ChangedView;
use crate::control::{Handle, Order};
use crate::model::Period;
use crate::model::file::RawState;
use crate::store::RevisionInfo;

/// How a revision is brought back.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RollbackParameters {
    #[serde(default)]
    dry_run: bool,
    drain_timeout: Option<Period>,
}

#[utoipa::path(
    get,
    path = "/v1/revisions",
    responses(
        (status = 200, description = "The kept revisions, the latest first", body = Vec<RevisionInfo>),
        NotDone,
    )
)]
pub(super) async fn list(State(control): State<Handle>) -> Result<Json<Vec<RevisionInfo>>, Problem> {
    Ok(Json(control.history().await?))
}

/// The state as it was, as `GET /v1/state` has it.
#[utoipa::path(
    get,
    path = "/v1/revisions/{revision}",
    params(RevisionPath),
    responses(
        (status = 200, description = "The state as it was", content((RawState = "application/json"), (String = "application/toml"))),
        NotDone,
    )
)]
pub(super) async fn show(
    State(control): State<Handle>,
    RevisionPath(number): RevisionPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Ok(tag(number, render(&control.revision(number).await?.desired, &headers)?))
}

#[utoipa::path(
    post,
    path = "/v1/revisions/{revision}/rollback",
    params(RevisionPath, RollbackParameters, IfMatch),
    responses(
        (status = 200, description = "The state is what it was", body = ChangedView, headers(("ETag" = String, description = "The revision that it is at"))),
        NotDone,
    )
)]
pub(super) async fn rollback(
    State(control): State<Handle>,
    RevisionPath(number): RevisionPath,
    Parameters(RollbackParameters { dry_run, drain_timeout }): Parameters<RollbackParameters>,
    if_match: IfMatch,
) -> Result<Tagged<ChangedView>, Problem> {
    let order = Order { dry_run, ..if_match.state() };
    let changed = control.rollback(number, drain(drain_timeout), order).await?;
    Ok(Tagged(changed.revision, ChangedView::new(changed, dry_run)))
}
