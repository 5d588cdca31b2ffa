//! `/v1/openapi.json`: the API described by the code that serves it.

mod parameters;
mod schemas;

#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use axum::extract::DefaultBodyLimit;
use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use super::{
    Api, MAX_STATE, backends, events, flows, metrics, observe, revisions, services, state, wellness,
};

/// What is not said by the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "lb-agent",
        description = "Layer-4 load balancer: services, backends, state, and what happens. Over the Unix socket the file's permissions decide who may; over TCP a bearer token does.",
        license(name = "MIT OR Apache-2.0")
    ),
    security(("token" = []), ()),
    modifiers(&Token)
)]
struct Frame;

/// How a request over TCP says who it is from.
struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
    }
}

/// Every route there is, with its description.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Frame::openapi())
        .routes(routes!(services::list, services::add))
        .routes(routes!(services::show, services::set, services::remove))
        .routes(routes!(backends::list_of, backends::add))
        .routes(routes!(backends::show, backends::set, backends::remove))
        .routes(routes!(backends::report))
        .routes(routes!(backends::renew, backends::give_up))
        .routes(routes!(backends::list))
        .routes(routes!(state::get, state::put).layer(DefaultBodyLimit::max(MAX_STATE)))
        .routes(routes!(revisions::list))
        .routes(routes!(revisions::show))
        .routes(routes!(revisions::rollback))
        .routes(routes!(observe::status))
        .routes(routes!(events::listen))
        .routes(routes!(flows::list))
        .routes(routes!(observe::explain))
        .routes(routes!(show))
        .routes(routes!(metrics::scrape))
        .routes(routes!(wellness::alive))
        .routes(routes!(wellness::ready))
}

/// Made once: it is the same for as long as the program is.
static DOCUMENT: LazyLock<String> =
    LazyLock::new(|| routes().split_for_parts().1.to_pretty_json().unwrap_or_default());

/// This description.
#[utoipa::path(get, path = "/v1/openapi.json", responses((status = 200, description = "This description", body = Object)))]
pub(super) async fn show() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
}
