//! The agent's API without its command line: for suites that make more changes than processes could be started for.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// One request over the agent's socket; `body` is JSON, or empty. Returns the answer's status.
///
/// # Errors
/// When there is no answer, or another one than of HTTP/1.1.
pub fn request(socket: &Path, method: &str, path: &str, body: &str) -> Result<u16> {
    let answer = exchange(socket, method, path, body)?;
    status(&answer).with_context(|| format!("{method} {path}: not an answer: {answer}"))
}

/// What is at a path, as it is sent.
///
/// # Errors
/// When there is no answer, or the agent refuses.
pub fn get(socket: &Path, path: &str) -> Result<String> {
    let answer = exchange(socket, "GET", path, "")?;
    ensure!(status(&answer) == Some(200), "GET {path}: {answer}");
    Ok(answer.split_once("\r\n\r\n").context("no body")?.1.to_owned())
}

fn exchange(socket: &Path, method: &str, path: &str, body: &str) -> Result<String> {
    let mut stream =
        UnixStream::connect(socket).with_context(|| format!("cannot connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("{method} {path}: no answer"))?;
    Ok(answer)
}

/// [`request`] for a change that must be made.
///
/// # Errors
/// Also when the agent refuses.
pub fn change(socket: &Path, method: &str, path: &str, body: &str) -> Result<()> {
    let status = request(socket, method, path, body)?;
    ensure!((200..300).contains(&status), "{method} {path} {body}: {status}");
    Ok(())
}

fn status(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_read_from_the_first_line() {
        assert_eq!(status("HTTP/1.1 204 No Content\r\n\r\n"), Some(204));
        assert_eq!(status("HTTP/1.0 200 OK\r\n\r\n"), None);
        assert_eq!(status(""), None);
    }
}
