//! The HTTP check: is a request answered as it should be?

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;

use axum::http::{Request, Response, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::reason;
use super::recorded::{Beginning, Recorded};
use super::udp::contains;
use crate::model::HttpRequest;

/// What is read of an answer before its body.
const LONGEST_HEAD: usize = 16 << 10;
/// What is read of the body.
const LONGEST_BODY: usize = 64 << 10;

/// Sends the request and judges the answer. The body is read only where it counts, and only as far as it has to be.
pub(super) async fn check<S>(stream: S, target: SocketAddr, wanted: &HttpRequest) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (stream, beginning) = Recorded::new(stream);
    let describe = |error: &hyper::Error| describe(error, &beginning);
    let mut builder = http1::Builder::new();
    let handshake = builder.max_buf_size(LONGEST_HEAD).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| describe(&error))?;
    let request = request(target, wanted)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| describe(&error))?;
        judge(response, wanted, &describe).await
    };
    // What goes wrong with it, the exchange is told.
    let carry = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        outcome = exchange => outcome,
        outcome = carry => outcome,
    }
}

fn request(target: SocketAddr, wanted: &HttpRequest) -> Result<Request<Empty<Bytes>>, String> {
    let host = wanted.host.clone().unwrap_or_else(|| target.to_string());
    Request::builder()
        .method(wanted.method.as_str())
        .uri(wanted.path.as_str())
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("lb-agent/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| error.to_string())
}

async fn judge(
    response: Response<Incoming>,
    wanted: &HttpRequest,
    describe: &impl Fn(&hyper::Error) -> String,
) -> Result<(), String> {
    let status = response.status().as_u16();
    if !wanted.status.contains(status) {
        return Err(format!("status {status}, expected {}", wanted.status));
    }
    let Some(text) = &wanted.body else { return Ok(()) };
    let mut body = response.into_body();
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|error| describe(&error))?.into_data() {
            let room = LONGEST_BODY - read.len();
            read.extend_from_slice(&data[..data.len().min(room)]);
            if contains(&read, text.as_bytes()) {
                return Ok(());
            }
            if data.len() > room {
                return Err(format!("answer larger than {LONGEST_BODY} bytes, without `{text}` in those"));
            }
        }
    }
    Err(format!("body has no `{text}`"))
}

fn describe(error: &hyper::Error, beginning: &Beginning) -> String {
    let bytes = beginning.bytes();
    if error.is_parse_too_large() {
        return format!("answer larger than {LONGEST_HEAD} bytes before its body");
    }
    if error.is_parse()
        || (error.is_incomplete_message() && !bytes.starts_with(b"HTTP/") && !bytes.is_empty())
    {
        return format!("not HTTP: {}", reason::shown(&bytes));
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        let words = if bytes.is_empty() { "connection closed without an answer" } else { "answer cut short" };
        return words.to_owned();
    }
    match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(error) if error.kind() == io::ErrorKind::UnexpectedEof => "answer cut short".to_owned(),
        Some(error) => reason::of_socket(error),
        None => error.to_string(),
    }
}
