//! `/metrics`: for Prometheus.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;

use super::Api;
use super::problem::{NotDone, Problem};
use crate::metrics::{self, Format, Process, Source};

/// Everything that is counted, in Prometheus' text format, or in OpenMetrics' where that is preferred.
#[utoipa::path(
    get,
    path = "/metrics",
    responses(
        (status = 200, description = "Every family of docs/metrics.md", body = String, content_type = "text/plain"),
        NotDone,
    )
)]
pub(super) async fn scrape(State(api): State<Api>, headers: HeaderMap) -> Result<impl IntoResponse, Problem> {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    let snapshot = api.control.snapshot().await?;
    let source = Source { snapshot: &snapshot, http: api.gate.counts(), process: Process::this() };
    Ok(([(header::CONTENT_TYPE, format.content_type())], metrics::text(&source, format)))
}
