//! `/v1/status` and `/v1/explain`: what is going on. Nothing here changes anything.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::Api;
use super::extract::Parameters;
use super::problem::{NotDone, Problem};
use super::types::{ExplainView, StatusView};
use crate::control::Handle;
use crate::model::{Endpoint, Protocol};

/// Which packet to explain.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ExplainParameters {
    protocol: Protocol,
    client: Endpoint,
    vip: Endpoint,
}

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
