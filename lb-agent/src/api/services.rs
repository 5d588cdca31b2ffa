//! `/v1/services` and `/v1/services/{name}`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::extract::{Body, ServicePath};
use super::problem::Problem;
use super::types::{ServiceDetail, ServiceView};
use crate::control::Handle;
use crate::model::file::RawService;
use crate::model::{Change, ServiceChange};

pub(super) async fn list(State(control): State<Handle>) -> Result<Json<Vec<ServiceView>>, Problem> {
    Ok(Json(control.snapshot().await?.services()))
}

pub(super) async fn show(
    State(control): State<Handle>,
    ServicePath(name): ServicePath,
) -> Result<Json<ServiceDetail>, Problem> {
    Ok(Json(control.snapshot().await?.service(&name)?))
}

pub(super) async fn add(
    State(control): State<Handle>,
    Body(raw): Body<RawService>,
) -> Result<(StatusCode, Json<ServiceDetail>), Problem> {
    let service = raw.service()?;
    let name = service.name.clone();
    control.change(Change::AddService(Box::new(service)), false).await?;
    Ok((StatusCode::CREATED, Json(control.snapshot().await?.service(&name)?)))
}

pub(super) async fn set(
    State(control): State<Handle>,
    ServicePath(name): ServicePath,
    Body(change): Body<ServiceChange>,
) -> Result<Json<ServiceDetail>, Problem> {
    control.change(Change::SetService(name.clone(), change), false).await?;
    Ok(Json(control.snapshot().await?.service(&name)?))
}

pub(super) async fn remove(
    State(control): State<Handle>,
    ServicePath(name): ServicePath,
) -> Result<StatusCode, Problem> {
    control.change(Change::RemoveService(name), false).await?;
    Ok(StatusCode::NO_CONTENT)
}
