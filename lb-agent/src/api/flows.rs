//! `/v1/flows`: who is connected to what, however many those are. The answer is made while it is read, a page of the flow
//! table at a time, so that neither memory nor the wait for other requests grows with it.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;

use super::extract::Parameters;
use super::problem::{NotDone, Problem};
use super::types::FlowView;
use crate::control::{ControlError, FlowRow, Handle};
use crate::datapath::{FlowCursor, FlowPage};
use crate::model::ServiceName;

/// Which flows to list.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FlowParameters {
    /// Those of one service.
    service: Option<ServiceName>,
    /// So many at most, 100,000 where absent.
    limit: Option<usize>,
}

/// Flows that are listed unless somebody says otherwise.
const FLOWS: usize = 100_000;

#[utoipa::path(
    get,
    path = "/v1/flows",
    params(FlowParameters),
    responses(
        (status = 200, description = "Live flows. Sent in pieces; an array that does not end was cut off", body = Vec<FlowView>),
        NotDone,
    )
)]
pub(super) async fn list(
    State(control): State<Handle>,
    Parameters(FlowParameters { service, limit }): Parameters<FlowParameters>,
) -> Result<Response, Problem> {
    // Before the answer begins: what is wrong with the question is said by its status.
    let first = control.flows(service.clone(), FlowCursor::default()).await?;
    let list = List { control, service, left: limit.unwrap_or(FLOWS), page: Some(first), has_begun: false };
    let pieces = stream::try_unfold(list, List::piece);
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(pieces)).into_response())
}

/// A list that is under way.
struct List {
    control: Handle,
    service: Option<ServiceName>,
    /// How many more flows are wanted.
    left: usize,
    /// What comes next; nothing behind the end.
    page: Option<FlowPage<FlowRow>>,
    /// Whether a flow was sent.
    has_begun: bool,
}

impl List {
    /// The next piece of the answer, and what comes after it.
    async fn piece(mut self) -> Result<Option<(Bytes, Self)>, ControlError> {
        let mut text = Vec::new();
        while let Some(FlowPage { flows, next }) = self.page.take() {
            self.write(flows, &mut text);
            match next {
                Some(from) if self.left > 0 => {
                    self.page = Some(self.control.flows(self.service.clone(), from).await?);
                }
                _ => text.extend(if self.has_begun { &b"\n]\n"[..] } else { b"[]\n" }),
            }
            // Of a service with few flows most pages are empty, and an empty piece is none.
            if !text.is_empty() {
                return Ok(Some((text.into(), self)));
            }
        }
        Ok(None)
    }

    fn write(&mut self, flows: Vec<FlowRow>, text: &mut Vec<u8>) {
        for row in flows.into_iter().take(self.left) {
            text.extend(if self.has_begun { b",\n" } else { b"[\n" });
            // Writing to memory cannot fail, nor can what these types are made of.
            let _ = serde_json::to_writer(&mut *text, &FlowView::from(row));
            self.has_begun = true;
            self.left -= 1;
        }
    }
}
