//! `/v1/backends`, `/v1/services/{name}/backends` and `/v1/services/{name}/backends/{address}`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::extract::{BackendPath, Body, Parameters, ServicePath};
use super::problem::Problem;
use super::state::drain;
use super::types::BackendView;
use crate::control::Handle;
use crate::model::file::RawBackend;
use crate::model::{Admin, Change, Period, Removal, Weight};

/// What of a backend is set; what is absent stays.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BackendChange {
    weight: Option<Weight>,
    admin: Option<Admin>,
}

/// How a backend goes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RemovalParameters {
    drain_timeout: Option<Period>,
    #[serde(default)]
    force: bool,
}

pub(super) async fn list(State(control): State<Handle>) -> Result<Json<Vec<BackendView>>, Problem> {
    Ok(Json(control.snapshot().await?.backends()))
}

pub(super) async fn list_of(
    State(control): State<Handle>,
    ServicePath(name): ServicePath,
) -> Result<Json<Vec<BackendView>>, Problem> {
    Ok(Json(control.snapshot().await?.backends_of(&name)?))
}

pub(super) async fn show(
    State(control): State<Handle>,
    BackendPath(name, address): BackendPath,
) -> Result<Json<BackendView>, Problem> {
    Ok(Json(control.snapshot().await?.backend(&name, address)?))
}

pub(super) async fn add(
    State(control): State<Handle>,
    ServicePath(name): ServicePath,
    Body(raw): Body<RawBackend>,
) -> Result<(StatusCode, Json<BackendView>), Problem> {
    control.change(Change::AddBackend(name.clone(), raw.address, raw.backend()), false).await?;
    Ok((StatusCode::CREATED, Json(control.snapshot().await?.backend(&name, raw.address)?)))
}

pub(super) async fn set(
    State(control): State<Handle>,
    BackendPath(name, address): BackendPath,
    Body(BackendChange { weight, admin }): Body<BackendChange>,
) -> Result<Json<BackendView>, Problem> {
    control.change(Change::SetBackend(name.clone(), address, weight, admin), false).await?;
    Ok(Json(control.snapshot().await?.backend(&name, address)?))
}

/// 202 with the backend while it drains, 204 once there is nothing left to show.
pub(super) async fn remove(
    State(control): State<Handle>,
    BackendPath(name, address): BackendPath,
    Parameters(RemovalParameters { drain_timeout, force }): Parameters<RemovalParameters>,
) -> Result<Response, Problem> {
    let removal = if force { Removal::Now } else { drain(drain_timeout) };
    control.change(Change::RemoveBackend(name.clone(), address, removal), false).await?;
    match control.snapshot().await?.backend(&name, address) {
        Ok(backend) => Ok((StatusCode::ACCEPTED, Json(backend)).into_response()),
        Err(_) => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}
