//! The gRPC check: what does the server say of its health (grpc.health.v1.Health/Check)?
//!
//! Both messages have one field, so they are written and read here by hand: a code generator and its runtime would be many
//! times this file.

use std::net::SocketAddr;

use axum::http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::reason;
use super::recorded::{Beginning, Recorded};

/// What is read of an answer, which has seven bytes.
const LONGEST: usize = 4096;

/// Asks, and judges the answer.
pub(super) async fn check(stream: TcpStream, target: SocketAddr, service: &str) -> Result<(), String> {
    let (stream, beginning) = Recorded::new(stream);
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| describe(&error, &beginning))?;
    let request = Request::post(format!("http://{target}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(message(service)))
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| describe(&error, &beginning))?;
        if response.status().as_u16() != 200 {
            return Err(format!("not gRPC: status {}", response.status().as_u16()));
        }
        refusal(response.headers(), service)?;
        judge(response.into_body(), service, &beginning).await
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

/// `HealthCheckRequest { string service = 1 }`, uncompressed, behind its length.
fn message(service: &str) -> Bytes {
    // The name has 255 bytes at most: its length is one or two of seven bits each.
    let length = match u8::try_from(service.len()).unwrap_or(u8::MAX) {
        0 => Vec::new(),
        short if short < 128 => vec![0x0a, short],
        long => vec![0x0a, long | 0x80, 1],
    };
    let field = [&length, service.as_bytes()].concat();
    let prefix = u32::try_from(field.len()).unwrap_or_default().to_be_bytes();
    [&[0][..], &prefix, &field].concat().into()
}

async fn judge(mut body: Incoming, service: &str, beginning: &Beginning) -> Result<(), String> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| describe(&error, beginning))?;
        match frame.into_data() {
            Ok(data) if read.len() + data.len() > LONGEST => {
                return Err(format!("answer larger than {LONGEST} bytes"));
            }
            Ok(data) => read.extend_from_slice(&data),
            Err(frame) => {
                if let Some(trailers) = frame.trailers_ref() {
                    refusal(trailers, service)?;
                }
            }
        }
    }
    match serving_status(&read) {
        Some(1) => Ok(()),
        Some(0) => Err("health is UNKNOWN".to_owned()),
        Some(2) => Err("health is NOT_SERVING".to_owned()),
        Some(3) => Err("health is SERVICE_UNKNOWN".to_owned()),
        _ => Err(format!("not the health protocol: {}", reason::shown(&read))),
    }
}

/// `HealthCheckResponse { ServingStatus status = 1 }`.
fn serving_status(read: &[u8]) -> Option<u8> {
    match read {
        [0, 0, 0, 0, 0] => Some(0),
        [0, 0, 0, 0, 2, 0x08, status] => Some(*status),
        _ => None,
    }
}

/// What the server says of the call, where it is no success.
fn refusal(headers: &HeaderMap, service: &str) -> Result<(), String> {
    let of = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match of("grpc-status").as_deref() {
        None | Some("0") => Ok(()),
        Some("5") => Err(format!("the server knows no service `{service}`")),
        Some("12") => Err("the server does not have the health protocol".to_owned()),
        Some(status) => {
            let message = of("grpc-message").unwrap_or_default();
            Err(format!(
                "gRPC status {}: {}",
                reason::shown(status.as_bytes()),
                reason::shown(message.as_bytes())
            ))
        }
    }
}

fn describe(error: &hyper::Error, beginning: &Beginning) -> String {
    let bytes = beginning.bytes();
    // An HTTP/2 server begins with a SETTINGS frame (RFC 9113 section 3.4).
    match bytes.get(3) {
        None => "connection closed without an answer".to_owned(),
        Some(4) => format!("answer cut short: {error}"),
        Some(_) => format!("not HTTP/2: {}", reason::shown(&bytes)),
    }
}
