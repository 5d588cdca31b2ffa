//! Which revision an answer tells of, and which one a change was decided upon: `ETag` and `If-Match` (RFC 9110, 8.8.3
//! and 13.1.1).
//!
//! The tag stands for what is desired. Counters and health change without it: nobody overwrites those.

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::problem::Problem;
use crate::control::{Order, Precondition, Tags, Target};
use crate::model::ServiceName;

/// What a change is tied to, if it is.
pub(super) struct IfMatch(Option<Tags>);

/// An answer with its tag.
pub(super) struct Tagged<T>(pub(super) u64, pub(super) T);

impl IfMatch {
    /// A change of a service or of what belongs to it.
    pub(super) fn service(self, name: &ServiceName) -> Order {
        self.of(Target::Service(name.clone()))
    }

    /// A change of the whole.
    pub(super) fn state(self) -> Order {
        self.of(Target::State)
    }

    fn of(self, target: Target) -> Order {
        let precondition = self.0.map(|tags| Precondition { target, tags });
        Order { precondition, ..Order::default() }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let values = parts.headers.get_all(header::IF_MATCH);
        let texts: Vec<_> = values.iter().map(|value| value.to_str().unwrap_or_default()).collect();
        if texts.is_empty() {
            return Ok(Self(None));
        }
        let tags = tags(&texts.join(",")).ok_or_else(|| {
            Problem::malformed("If-Match is `*` or a list of tags as ETag has them, such as \"17\"")
        })?;
        Ok(Self(Some(tags)))
    }
}

/// The tags of a list. Those that are not ours, and weak ones, match nothing.
fn tags(text: &str) -> Option<Tags> {
    if text.trim() == "*" {
        return Some(Tags::Any);
    }
    let mut revisions = Vec::new();
    for tag in text.split(',').map(str::trim) {
        let strong = tag.strip_prefix("W/").unwrap_or(tag);
        let opaque = strong.strip_prefix('"')?.strip_suffix('"').filter(|tag| !tag.contains('"'))?;
        if strong == tag {
            revisions.extend(opaque.parse::<u64>().ok());
        }
    }
    Some(Tags::Revisions(revisions))
}

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let Self(revision, body) = self;
        tag(revision, (StatusCode::OK, Json(body)).into_response())
    }
}

/// Any answer with its tag.
pub(super) fn tag(revision: u64, mut response: Response) -> Response {
    // Digits in quotes are a header's value.
    if let Ok(value) = HeaderValue::from_str(&format!("\"{revision}\"")) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_tags_are_read_as_the_standard_has_them() {
        let revisions = |numbers: &[u64]| Some(Tags::Revisions(numbers.to_vec()));
        for (text, read) in [
            ("*", Some(Tags::Any)),
            ("\"17\"", revisions(&[17])),
            (" \"17\" ,\"18\"", revisions(&[17, 18])),
            ("W/\"17\", \"3\"", revisions(&[3])),
            ("\"xyzzy\"", revisions(&[])),
            ("17", None),
            ("", None),
            ("\"17", None),
            ("\"", None),
            ("\"1\"7\"", None),
            ("\"17\",", None),
        ] {
            assert_eq!(tags(text), read, "{text}");
        }
    }
}
