//! HTTP/1.1, as much as curl, wrk and our own clients need.
//!
//! | request | answer |
//! |---|---|
//! | `GET /bytes/N` | N bytes of [`crate::bulk::Pattern`] |
//! | `POST` or `PUT` | the body's length and checksum, as `N FNV` |
//! | anything else | `NAME CLIENT:PORT` |
//!
//! Every answer names the backend in `x-backend`. Connections are kept unless the client is HTTP/1.0 or says
//! `connection: close`.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::SocketAddr;

use super::Site;
use super::pollable::Connection;
use crate::bulk::{Checksum, Pattern};

/// What is read or written at a time.
const CHUNK: usize = 64 << 10;

/// The longest request head that is taken.
const MAX_HEAD: u64 = 16 << 10;

/// A request's head, as much of it as matters here.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    method: String,
    path: String,
    body_bytes: u64,
    keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    expects_continue: bool,
}

/// Answers requests until the client closes or asks to close.
pub(super) fn serve(connection: &Connection<'_>, client: SocketAddr, site: &Site) -> io::Result<()> {
    let mut reader = BufReader::new(connection);
    while let Some(request) = read_request(&mut reader)? {
        site.work();
        answer(&mut reader, connection, &request, client, site)?;
        site.count_request();
        if !request.keep_alive {
            break;
        }
    }
    Ok(())
}

fn answer(
    reader: &mut impl Read,
    mut connection: &Connection<'_>,
    request: &Request,
    client: SocketAddr,
    site: &Site,
) -> io::Result<()> {
    if request.expects_continue {
        connection.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let received = receive_body(reader, request.body_bytes)?;
    let head = |length: u64| {
        let connection = if request.keep_alive { "keep-alive" } else { "close" };
        format!(
            "HTTP/1.1 200 OK\r\nx-backend: {}\r\ncontent-length: {length}\r\nconnection: {connection}\r\n\r\n",
            site.backend
        )
    };
    if let Some(length) = request.path.strip_prefix("/bytes/").and_then(|n| n.parse().ok()) {
        connection.write_all(head(length).as_bytes())?;
        return send_pattern(connection, length);
    }
    let text = match request.method.as_str() {
        "POST" | "PUT" => format!("{} {:016x}\n", request.body_bytes, received.value()),
        _ => format!("{} {client}\n", site.backend),
    };
    // One write, so that a small answer is one segment.
    connection.write_all((head(text.len() as u64) + &text).as_bytes())
}

fn receive_body(reader: &mut impl Read, length: u64) -> io::Result<Checksum> {
    let mut checksum = Checksum::default();
    let mut left = length;
    let mut buffer = vec![0; CHUNK.min(usize::try_from(length).unwrap_or(CHUNK))];
    while left > 0 {
        let want = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
        let got = reader.read(&mut buffer[..want])?;
        if got == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        checksum.update(&buffer[..got]);
        left -= got as u64;
    }
    Ok(checksum)
}

fn send_pattern(mut connection: &Connection<'_>, length: u64) -> io::Result<()> {
    let mut pattern = Pattern::default();
    let mut left = length;
    let mut buffer = vec![0; CHUNK];
    while left > 0 {
        let size = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
        pattern.fill(&mut buffer[..size]);
        connection.write_all(&buffer[..size])?;
        left -= size as u64;
    }
    Ok(())
}

/// The next request's head; none when the client has closed.
fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut head = reader.take(MAX_HEAD);
    let mut line = String::new();
    if head.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Err(io::Error::new(ErrorKind::InvalidData, "not an HTTP request"));
    };
    let keep_alive = words.next().is_some_and(|version| version == "HTTP/1.1");
    let mut request = Request { method, path, body_bytes: 0, keep_alive, expects_continue: false };
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.split_once(':') else { break };
        request.note_header(&name.to_ascii_lowercase(), value.trim());
    }
    Ok(Some(request))
}

impl Request {
    fn note_header(&mut self, name: &str, value: &str) {
        match name {
            "content-length" => self.body_bytes = value.parse().unwrap_or(0),
            "connection" if value.eq_ignore_ascii_case("close") => self.keep_alive = false,
            "expect" if value.eq_ignore_ascii_case("100-continue") => self.expects_continue = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> io::Result<Option<Request>> {
        read_request(&mut head.as_bytes())
    }

    #[test]
    fn http_1_1_keeps_the_connection_and_1_0_does_not() {
        let kept = parse("GET / HTTP/1.1\r\nHost: vip\r\n\r\n").unwrap().unwrap();
        assert!(kept.keep_alive && kept.path == "/" && kept.method == "GET");
        assert!(!parse("GET / HTTP/1.0\r\n\r\n").unwrap().unwrap().keep_alive);
        assert!(!parse("GET / HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap().unwrap().keep_alive);
    }

    #[test]
    fn an_upload_is_read_with_its_length_and_expectation() {
        let request = parse("PUT /x HTTP/1.1\r\ncontent-length: 1048576\r\nExpect: 100-continue\r\n\r\n");
        let request = request.unwrap().unwrap();
        assert_eq!((request.body_bytes, request.expects_continue), (1 << 20, true));
    }

    #[test]
    fn a_closed_connection_is_the_end_and_half_a_head_an_error() {
        assert_eq!(parse("").unwrap(), None);
        assert!(parse("GET / HTTP/1.1\r\nHost: vip\r\n").is_err());
        assert!(parse("\r\n").is_err());
    }

    #[test]
    fn a_body_that_ends_early_is_an_error() {
        assert!(receive_body(&mut &b"abc"[..], 4).is_err());
        assert_eq!(receive_body(&mut &b"abc"[..], 3).unwrap(), Checksum::of(b"abc"));
    }
}
