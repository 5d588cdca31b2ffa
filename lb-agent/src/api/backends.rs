//! `/v1/backends`, `/v1/services/{name}/backends`, `/v1/services/{name}/backends/{address}` and `.../load`.

use std::ops::RangeInclusive;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::etag::{IfMatch, Tagged};
use super::extract::{BackendPath, Body, Parameters, ServicePath};
use super::problem::{NotDone, Problem};
use super::state::drain;
use super::types::BackendView;
use crate::control::{Handle, Order, Renewal, Report};
use crate::model::file::RawBackend;
use crate::model::{BackendChange, Change, Load, Period, Removal, Weight};

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
    Body(change): Body<BackendChange>,
) -> Result<Tagged<BackendView>, Problem> {
    let change = Change::SetBackend(name.clone(), address, change);
    control.order(change, if_match.service(&name)).await?;
    show(State(control), BackendPath(name, address)).await
}

/// How loaded a backend is.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LoadReport {
    /// From 0, idle, to 1, full; more is full too.
    load: Load,
    /// How long that holds: 1s to 1h, 30s where absent.
    ttl: Option<Period>,
}

/// How long a report holds that does not say so.
const REPORT_TTL: Period = Period::from_secs(30);
/// How long reports may hold. One that held for ever would outlive what it was about.
const REPORT_TTLS: RangeInclusive<Period> = Period::from_secs(1)..=Period::from_secs(3600);

impl LoadReport {
    fn check(self) -> Result<Report, Problem> {
        let Self { load, ttl } = self;
        let ttl = ttl.unwrap_or(REPORT_TTL);
        if !REPORT_TTLS.contains(&ttl) {
            let (least, most) = (REPORT_TTLS.start(), REPORT_TTLS.end());
            let detail = format!("invalid ttl {ttl}: a report holds for {least} to {most}");
            return Err(Problem::invalid(&detail));
        }
        Ok(Report { load, ttl: ttl.duration() })
    }
}

/// Not part of the desired state: kept in memory, and no revision. Weights follow within a second.
#[utoipa::path(
    put,
    path = "/v1/services/{name}/backends/{address}/load",
    params(BackendPath),
    request_body(content = LoadReport),
    responses(
        (status = 200, description = "Taken; weights follow within a second", body = BackendView, headers(("ETag" = String, description = "The revision that it is at"))),
        NotDone,
    )
)]
pub(super) async fn report(
    State(control): State<Handle>,
    BackendPath(name, address): BackendPath,
    Body(report): Body<LoadReport>,
) -> Result<Tagged<BackendView>, Problem> {
    control.report(name.clone(), address, report.check()?).await?;
    show(State(control), BackendPath(name, address)).await
}

/// What a backend says of itself when it registers, and again before its time is up.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LeaseRenewal {
    /// How long it is fit without another: 1s to 1h.
    ttl: Period,
    /// Its share of new flows; what it has, or 1, where absent.
    weight: Option<Weight>,
    /// How loaded it is, from 0, idle, to 1, full; nothing where it does not tell.
    load: Option<Load>,
}

/// Adds the backend where it is not there. Only that, and another `ttl` or `weight`, is a revision; a heartbeat is none.
#[utoipa::path(
    put,
    path = "/v1/services/{name}/backends/{address}/lease",
    params(BackendPath),
    request_body(content = LeaseRenewal),
    responses(
        (status = 204, description = "Registered, until the time is up"),
        NotDone,
    )
)]
pub(super) async fn renew(
    State(control): State<Handle>,
    BackendPath(name, address): BackendPath,
    Body(LeaseRenewal { ttl, weight, load }): Body<LeaseRenewal>,
) -> Result<StatusCode, Problem> {
    let lease = ttl
        .to_string()
        .parse()
        .map_err(|_| Problem::invalid(&format!("invalid ttl {ttl}: a registration holds for 1s to 1h")))?;
    control.renew(name, address, Renewal { lease, weight, load }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a server does that stops: its flows finish, and it goes with the last, or after 5 minutes.
#[utoipa::path(
    delete,
    path = "/v1/services/{name}/backends/{address}/lease",
    params(BackendPath),
    responses(
        (status = 204, description = "Drains, and goes with its last flow"),
        NotDone,
    )
)]
pub(super) async fn give_up(
    State(control): State<Handle>,
    BackendPath(name, address): BackendPath,
) -> Result<StatusCode, Problem> {
    control.order(Change::RemoveBackend(name, address, drain(None)), Order::default()).await?;
    Ok(StatusCode::NO_CONTENT)
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
