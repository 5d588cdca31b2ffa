//! Lets requests over TCP in, or says why not, logs it and counts it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::tokens::{Scope, Tokens};
use crate::api::problem::Problem;
use crate::model::Quoted;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// The tokens, and what became of requests.
#[derive(Debug, Default)]
pub struct Gate {
    /// None: whoever gets here may read.
    tokens: RwLock<Option<Arc<Tokens>>>,
    requests: AtomicU64,
    refused: [AtomicU64; Denial::ALL.len()],
    log: Mutex<Log>,
}

/// What became of requests over TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HttpCounts {
    /// Requests, the refused ones included.
    pub requests_total: u64,
    /// Those that carried no token.
    pub refused_no_token_total: u64,
    /// Those with a token that is none of ours.
    pub refused_wrong_token_total: u64,
    /// Those that wanted what their token is not for, or to change something without tokens being set up.
    pub refused_read_only_total: u64,
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Denial {
    NoToken,
    WrongToken,
    ReadOnly,
    OtherService,
    NoTokens,
}

/// Lines about refused requests that are written in a second: whoever knocks a thousand times fills no disk.
const LINES_PER_SECOND: u32 = 10;

/// How many lines were written in the second that began then.
#[derive(Debug, Default)]
struct Log {
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Denial {
    const ALL: [Self; 5] =
        [Self::NoToken, Self::WrongToken, Self::ReadOnly, Self::OtherService, Self::NoTokens];

    fn reason(self) -> &'static str {
        match self {
            Self::NoToken => {
                "no token: send `Authorization: Bearer TOKEN`, with one of the agent's token_file"
            }
            Self::WrongToken => "the token is none of those in the agent's token_file",
            Self::ReadOnly => "the token is one to read with: a change needs one to write with",
            Self::OtherService => {
                "the token is one to register backends of one service with, and for nothing else"
            }
            Self::NoTokens => {
                "changes over TCP need a token: set http.token_file in the agent's configuration, or use its socket"
            }
        }
    }

    /// RFC 6750 section 3.1.
    fn response(self) -> Response {
        let (status, challenge) = match self {
            Self::NoToken => (StatusCode::UNAUTHORIZED, Some("Bearer realm=\"lb-agent\"")),
            Self::WrongToken => {
                (StatusCode::UNAUTHORIZED, Some("Bearer realm=\"lb-agent\", error=\"invalid_token\""))
            }
            Self::ReadOnly | Self::OtherService => (
                StatusCode::FORBIDDEN,
                Some("Bearer realm=\"lb-agent\", error=\"insufficient_scope\", scope=\"write\""),
            ),
            Self::NoTokens => (StatusCode::FORBIDDEN, None),
        };
        let mut response = Problem::denied(status, self.reason()).into_response();
        if let Some(challenge) = challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

impl Gate {
    /// Lets in who has one of these from now on.
    pub(super) fn set_tokens(&self, tokens: Option<Tokens>) {
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens.map(Arc::new);
    }

    /// What became of requests until now.
    pub fn counts(&self) -> HttpCounts {
        let refused = |denial: Denial| self.refused[denial as usize].load(Relaxed);
        HttpCounts {
            requests_total: self.requests.load(Relaxed),
            refused_no_token_total: refused(Denial::NoToken),
            refused_wrong_token_total: refused(Denial::WrongToken),
            refused_read_only_total: refused(Denial::ReadOnly)
                + refused(Denial::OtherService)
                + refused(Denial::NoTokens),
        }
    }

    fn decide(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Denial> {
        let is_reading = matches!(*method, Method::GET | Method::HEAD);
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(tokens) = tokens else {
            return if is_reading { Ok(()) } else { Err(Denial::NoTokens) };
        };
        let header = headers.get(header::AUTHORIZATION).ok_or(Denial::NoToken)?;
        match header.to_str().ok().and_then(bearer).and_then(|token| tokens.scope(token)) {
            None => Err(Denial::WrongToken),
            Some(Scope::Read) if !is_reading => Err(Denial::ReadOnly),
            Some(Scope::Register(service)) if !is_lease(method, path, service.as_str()) => {
                Err(Denial::OtherService)
            }
            Some(_) => Ok(()),
        }
    }

    fn note(&self, denial: Denial, peer: SocketAddr, method: &Method, path: &str) {
        self.refused[denial as usize].fetch_add(1, Relaxed);
        let left_out = self.log.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now());
        if let Some(left_out) = left_out {
            // Both are the other side's words.
            let (method, path) = (Quoted(method.as_str()), Quoted(path));
            warn!(%peer, %method, %path, reason = denial.reason(), left_out, "request refused");
        }
    }
}

impl Log {
    /// Whether a line may be written now, and how many were not since the last.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1)) {
            self.since = Some(now);
            self.lines = 0;
        }
        if self.lines == LINES_PER_SECOND {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Whether a request is about the registration of a backend of that service. Names of services need no encoding in a path.
fn is_lease(method: &Method, path: &str, service: &str) -> bool {
    let backend = path
        .strip_prefix("/v1/services/")
        .and_then(|path| path.strip_prefix(service))
        .and_then(|path| path.strip_prefix("/backends/"))
        .and_then(|path| path.strip_suffix("/lease"));
    matches!(*method, Method::PUT | Method::DELETE) && backend.is_some_and(|backend| !backend.contains('/'))
}

/// The token of an `Authorization` header. The scheme's name is written in any case (RFC 9110 section 11.1).
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Paths that answer anybody: they tell nothing but whether the agent is well.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// Lets a request through, or not.
pub(super) async fn guard(
    State(gate): State<Arc<Gate>>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    gate.requests.fetch_add(1, Relaxed);
    let path = request.uri().path();
    let is_open = OPEN.contains(&path) && request.method() == Method::GET;
    match gate.decide(request.method(), path, request.headers()) {
        Err(denial) if !is_open => {
            gate.note(denial, peer, request.method(), path);
            denial.response()
        }
        _ => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_takes_ten_lines_a_second_and_says_how_many_it_left_out() {
        let (mut log, start) = (Log::default(), Instant::now());
        let admitted = (0..100).filter(|_| log.admit(start).is_some()).count();
        assert_eq!(admitted, 10);
        assert_eq!(log.admit(start + Duration::from_secs(1)), Some(90));
        assert_eq!(log.admit(start + Duration::from_secs(1)), Some(0));
    }

    #[test]
    fn a_token_to_register_with_is_for_the_leases_of_its_service_alone() {
        let gate = Gate::default();
        let path = std::env::temp_dir().join(format!("lb-agent-register-{}", std::process::id()));
        std::fs::write(&path, "register:web g-1\n").unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let tokens = Tokens::load(&path);
        std::fs::remove_file(&path).unwrap();
        gate.set_tokens(Some(tokens.unwrap()));
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer g-1"));
        let lease = "/v1/services/web/backends/10.0.1.11:80/lease";
        for method in [Method::PUT, Method::DELETE] {
            assert_eq!(gate.decide(&method, lease, &headers), Ok(()));
        }
        for (method, path) in [
            (Method::GET, lease),
            (Method::PUT, "/v1/services/web2/backends/10.0.1.11:80/lease"),
            (Method::PUT, "/v1/services/we/backends/10.0.1.11:80/lease"),
            (Method::PUT, "/v1/services/web/backends/10.0.1.11:80/load"),
            (Method::PUT, "/v1/services/web/backends/x/../../../other/backends/10.0.1.11:80/lease"),
            (Method::DELETE, "/v1/services/web/backends/10.0.1.11:80"),
            (Method::DELETE, "/v1/services/web"),
            (Method::GET, "/v1/status"),
            (Method::PUT, "/v1/state"),
        ] {
            assert_eq!(gate.decide(&method, path, &headers), Err(Denial::OtherService), "{method} {path}");
        }
    }

    #[test]
    fn a_bearer_token_is_found_and_nothing_else() {
        for (header, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic abc", None),
            ("Bearer", None),
            ("", None),
        ] {
            assert_eq!(bearer(header), token, "{header}");
        }
    }
}
