//! `/v1/services` and `/v1/services/{name}`.

use axum::extract::State;
use axum::http::StatusCode;

use super::etag::{IfMatch, Tagged};
use super::extract::{Body, ServicePath};
use super::problem::Problem;
use super::types::{ServiceDetail, ServiceView};
use crate::control::Handle;
use crate::model::file::RawService;
use crate::model::{Change, ServiceChange};

pub(super) async fn list(State(control): State<Handle>) -> Result<Tagged<Vec<ServiceView>>, Problem> {
    let snapshot = control.snapshot().await?;
    Ok(Tagged(snapshot.revision, snapshot.services()))
}

pub(super) async fn show(
    State(control): State<Handle>,
    ServicePath(name): ServicePath,
) -> Result<Tagged<ServiceDetail>, Problem> {
    let snapshot = control.snapshot().await?;
    Ok(Tagged(snapshot.revision_of(&name), snapshot.service(&name)?))
}

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

pub(super) async fn set(
    State(control): State<Handle>,
    ServicePath(name): ServicePath,
    if_match: IfMatch,
    Body(change): Body<ServiceChange>,
) -> Result<Tagged<ServiceDetail>, Problem> {
    control.order(Change::SetService(name.clone(), change), if_match.service(&name)).await?;
    show(State(control), ServicePath(name)).await
}

pub(super) async fn remove(
    State(control): State<Handle>,
    ServicePath(name): ServicePath,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let order = if_match.service(&name);
    control.order(Change::RemoveService(name), order).await?;
    Ok(StatusCode::NO_CONTENT)
}
