//! `/v1/events`: what happens, as server-sent events (WHATWG HTML, section 9.2).

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{self, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use serde::Deserialize;

use super::extract::Parameters;
use super::problem::{NotDone, Problem};
use crate::control::Handle;
use crate::events::{Event, Happening};

/// Which events.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventParameters {
    /// Those after the one of that number, as far as they are kept.
    after: Option<u64>,
    /// Whether to go on with what comes.
    follow: Option<bool>,
}

/// Between two signs of life, so that what stands between does not take the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Told are the kept events after `after` (or `Last-Event-ID`, with which a client takes up a connection that broke),
/// then what comes. Without either: only what comes, or, if that is not asked for, all that are kept.
#[utoipa::path(
    get,
    path = "/v1/events",
    params(EventParameters, ("Last-Event-ID" = Option<u64>, Header, description = "As `after`")),
    responses(
        (status = 200, description = "Server-sent events; the data of each is one of these", body = Event, content_type = "text/event-stream"),
        NotDone,
    )
)]
pub(super) async fn listen(
    State(control): State<Handle>,
    Parameters(EventParameters { after, follow }): Parameters<EventParameters>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Problem> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.trim().parse().ok());
    let follows = follow.unwrap_or(true);
    let after = after.or(last).unwrap_or(if follows { u64::MAX } else { 0 });
    let listener = control.events().listen(after);
    let events = stream::unfold(listener, move |mut listener| async move {
        let event = if follows { listener.next().await? } else { listener.backlog()? };
        Some((Ok(frame(&event)), listener))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn frame(event: &Event) -> sse::Event {
    let frame = sse::Event::default().event(event.what.name());
    // It is not kept: nobody can go on from it.
    let frame = match event.what {
        Happening::Missed { .. } => frame,
        _ => frame.id(event.id.to_string()),
    };
    // JSON has no line ends outside of strings, and in strings they are escaped.
    frame.data(serde_json::to_string(event).unwrap_or_default())
}
