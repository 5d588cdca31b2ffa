//! `/v1/services` and `/v1/services/{name}`.

use axum::extract::State;
use axum::http::StatusCode;

use super::etag::{IfMatch, Tagged};
use super::extract::{Body, ServicePath};
use super::problem::{NotDone, Problem};
use super::types::{ServiceDetail, ServiceView};
use crate::control::Handle;
use crate::model::file::RawService;
use crate::model::{Change, ServiceChange};

#[utoipa::path(
    get,
    path = "/v1/services",
    responses(
        (status = 200, description = "Every service", body = Vec<ServiceView>, headers(("ETag" = String, description = "The revision that it is at"))),
        NotDone,
    )
)]
pub(super) async fn list(State(control): State<Handle>) -> Result<Tagged<Vec<ServiceView>>, Problem> {
    let snapshot = control.snapshot().await?;
    Ok(Tagged(snapshot.revision, snapshot.services()))
}

#[utoipa::path(
    get,
    path = "/v1/services/{name}",
    params(ServicePath),
    responses(
        (status = 200, description = "The service with its backends", body = ServiceDetail, headers(("ETag" = String, description = "The revision that it is at"))),
        NotDone,
    )
)]
pub(super) async fn show(
    State(control): State<Handle>,
    ServicePath(name): ServicePath,
) -> Result<Tagged<ServiceDetail>, Problem> {
    let snapshot = control.snapshot().await?;
    Ok(Tagged(snapshot.revision_of(&name), snapshot.service(&name)?))
}

#[utoipa::path(
    post,
    path = "/v1/services",
    params(IfMatch),
    request_body(content = RawService),
    responses(
        (status = 201, description = "Added", body = ServiceDetail, headers(("ETag" = String, description = "The revision that it is at"))),
        NotDone,
    )
)]
pub(super) async fn add(
    State(control): State<Handle>,
    if_match: IfMatch,
    Body(raw): Body<RawService>,
) -> Result<(StatusCode, Tagged<ServiceDetail>), Problem> {
    let service = raw.service()?;
    let name = service.name.clone();
    control.order(Change::AddService(Box::new(service)), if_match.state()).await?;
    Ok((StatusCode::CREATED, show(State(control), ServicePath(name)).await?))
}

#[utoipa::path(
    patch,
    path = "/v1/services/{name}",
    params(ServicePath, IfMatch),
    request_body(content = ServiceChange),
    responses(
        (status = 200, description = "Changed", body = ServiceDetail, headers(("ETag" = String, description = "The revision that it is at"))),
        NotDone,
    )
)]
pub(super) async fn set(
    State(control): State<Handle>,
    ServicePath(name): ServicePath,
    if_match: IfMatch,
    Body(change): Body<ServiceChange>,
) -> Result<Tagged<ServiceDetail>, Problem> {
    control.order(Change::SetService(name.clone(), Box::new(change)), if_match.service(&name)).await?;
    show(State(control), ServicePath(name)).await
}

#[utoipa::path(
    delete,
    path = "/v1/services/{name}",
    params(ServicePath, IfMatch),
    responses(
        (status = 204, description = "Removed with its backends"),
        NotDone,
    )
)]
pub(super) async fn remove(
    State(control): State<Handle>,
    ServicePath(name): ServicePath,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let order = if_match.service(&name);
    control.order(Change::RemoveService(name), order).await?;
    Ok(StatusCode::NO_CONTENT)
}
