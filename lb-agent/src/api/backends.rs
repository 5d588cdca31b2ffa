//! `/v1/backends`, `/v1/services/{name}/backends` and `/v1/services/{name}/backends/{address}`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::etag::{IfMatch, Tagged};
use super::extract::{BackendPath, Body, Parameters, ServicePath};
use super::problem::{NotDone, Problem};
use super::state::drain;
use super::types::BackendView;
use crate::control::Handle;
use crate::model::file::RawBackend;
use crate::model::{Admin, Change, Period, Removal, Weight};

/// What of a backend is set; what is absent stays.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BackendChange {
    weight: Option<Weight>,
    admin: Option<Admin>,
}

/// How a backend goes.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RemovalParameters {
    drain_timeout: Option<Period>,
    #[serde(default)]
    force: bool,
}

#[utoipa::path(
    get,
    path = "/v1/backends",
    responses(
        (status = 200, description = "The backends of all services", body = Vec<BackendView>, headers(("ETag" = String, description = "The revision that it is at"))),
        NotDone,
    )
)]
pub(super) async fn list(State(control): State<Handle>) -> Result<Tagged<Vec<BackendView>>, Problem> {
    let snapshot = control.snapshot().await?;
    Ok(Tagged(snapshot.revision, snapshot.backends()))
}

#[utoipa::path(
    get,
    path = "/v1/services/{name}/backends",
    params(ServicePath),
    responses(
        (status = 200, description = "The backends of one service", body = Vec<BackendView>, headers(("ETag" = String, description = "The revision that it is at"))),
        NotDone,
    )
)]
pub(super) async fn list_of(
    State(control): State<Handle>,
    ServicePath(name): ServicePath,
) -> Result<Tagged<Vec<BackendView>>, Problem> {
    let snapshot = control.snapshot().await?;
    Ok(Tagged(snapshot.revision_of(&name), snapshot.backends_of(&name)?))
}

#[utoipa::path(
    get,
    path = "/v1/services/{name}/backends/{address}",
    params(BackendPath),
    responses(
        (status = 200, description = "The backend", body = BackendView, headers(("ETag" = String, description = "The revision that it is at"))),
        NotDone,
    )
)]
pub(super) async fn show(
    State(control): State<Handle>,
    BackendPath(name, address): BackendPath,
) -> Result<Tagged<BackendView>, Problem> {
    let snapshot = control.snapshot().await?;
    Ok(Tagged(snapshot.revision_of(&name), snapshot.backend(&name, address)?))
}

#[utoipa::path(
    post,
    path = "/v1/services/{name}/backends",
    params(ServicePath, IfMatch),
    request_body(content = RawBackend),
    responses(
        (status = 201, description = "Added", body = BackendView, headers(("ETag" = String, description = "The revision that it is at"))),
        NotDone,
    )
)]
pub(super) async fn add(
    State(control): State<Handle>,
    ServicePath(name): ServicePath,
    if_match: IfMatch,
    Body(raw): Body<RawBackend>,
) -> Result<(StatusCode, Tagged<BackendView>), Problem> {
    let change = Change::AddBackend(name.clone(), raw.address, raw.backend());
    control.order(change, if_match.service(&name)).await?;
    Ok((StatusCode::CREATED, show(State(control), BackendPath(name, raw.address)).await?))
}

#[utoipa::path(
    patch,
    path = "/v1/services/{name}/backends/{address}",
    params(BackendPath, IfMatch),
    request_body(content = BackendChange),
    responses(
        (status = 200, description = "Changed", body = BackendView, headers(("ETag" = String, description = "The revision that it is at"))),
        NotDone,
    )
)]
pub(super) async fn set(
    State(control): State<Handle>,
    BackendPath(name, address): BackendPath,
    if_match: IfMatch,
    Body(BackendChange { weight, admin }): Body<BackendChange>,
) -> Result<Tagged<BackendView>, Problem> {
    let change = Change::SetBackend(name.clone(), address, weight, admin);
    control.order(change, if_match.service(&name)).await?;
    show(State(control), BackendPath(name, address)).await
}

/// 202 with the backend while it drains, 204 once there is nothing left to show.
#[utoipa::path(
    delete,
    path = "/v1/services/{name}/backends/{address}",
    params(BackendPath, IfMatch, RemovalParameters),
    responses(
        (status = 202, description = "Drains, and goes with its last flow", body = BackendView, headers(("ETag" = String, description = "The revision that it is at"))),
        (status = 204, description = "Gone"),
        NotDone,
    )
)]
pub(super) async fn remove(
    State(control): State<Handle>,
    BackendPath(name, address): BackendPath,
    Parameters(RemovalParameters { drain_timeout, force }): Parameters<RemovalParameters>,
    if_match: IfMatch,
) -> Result<Response, Problem> {
    let removal = if force { Removal::Now } else { drain(drain_timeout) };
    let change = Change::RemoveBackend(name.clone(), address, removal);
    control.order(change, if_match.service(&name)).await?;
    match show(State(control), BackendPath(name, address)).await {
        Ok(backend) => Ok((StatusCode::ACCEPTED, backend).into_response()),
        Err(_) => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}
