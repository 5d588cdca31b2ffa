//! `/v1/status`, `/v1/flows` and `/v1/explain`: what is going on. Nothing here changes anything.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::Api;
use super::extract::Parameters;
use super::problem::{NotDone, Problem};
use super::types::{ExplainView, FlowView, StatusView};
use crate::control::Handle;
use crate::model::{Endpoint, Protocol, ServiceName};

/// Which flows to list.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FlowParameters {
    service: Option<ServiceName>,
    limit: Option<usize>,
}

/// Which packet to explain.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ExplainParameters {
    protocol: Protocol,
    client: Endpoint,
    vip: Endpoint,
}

/// Flows that are listed unless somebody says otherwise.
const FLOWS: usize = 100_000;

#[utoipa::path(
    get,
    path = "/v1/status",
    responses(
        (status = 200, description = "Everything on one screen", body = StatusView),
        NotDone,
    )
)]
pub(super) async fn status(State(api): State<Api>) -> Result<Json<StatusView>, Problem> {
    Ok(Json(api.control.snapshot().await?.status(api.gate.counts())))
}

#[utoipa::path(
    get,
    path = "/v1/flows",
    params(FlowParameters),
    responses(
        (status = 200, description = "Live flows", body = Vec<FlowView>),
        NotDone,
    )
)]
pub(super) async fn flows(
    State(control): State<Handle>,
    Parameters(FlowParameters { service, limit }): Parameters<FlowParameters>,
) -> Result<Json<Vec<FlowView>>, Problem> {
    let flows = control.flows(service, limit.unwrap_or(FLOWS)).await?;
    Ok(Json(flows.into_iter().map(FlowView::from).collect()))
}

#[utoipa::path(
    get,
    path = "/v1/explain",
    params(ExplainParameters),
    responses(
        (status = 200, description = "Where a packet would go", body = ExplainView),
        NotDone,
    )
)]
pub(super) async fn explain(
    State(control): State<Handle>,
    Parameters(ExplainParameters { protocol, client, vip }): Parameters<ExplainParameters>,
) -> Result<Json<ExplainView>, Problem> {
    if client.ip().is_ipv4() != vip.ip().is_ipv4() {
        let (a, b) = (client.family(), vip.family());
        return Err(Problem::invalid(&format!(
            "client {client} is {a}, VIP {vip} is {b}: both must be of one family"
        )));
    }
    Ok(Json(control.explain(protocol, client.socket(), vip.socket()).await?.into()))
}
