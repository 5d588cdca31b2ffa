//! The API's client: one request over the agent's socket.

use std::fmt::{self, Write as _};
use std::io::{self, BufReader};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::{DeserializeOwned, Deserializer as _, Error as _, SeqAccess, Visitor};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};

use crate::api::Problem;
use crate::model::shorten;

/// Somewhat longer than the agent takes to say that it is busy.
const TIMEOUT: Duration = Duration::from_secs(40);

/// Why there is no answer. One line.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("the agent is not running: nothing answers at {}; start it with `lb-agent run`, or name its socket with --socket", .0.display())]
    NotRunning(PathBuf),
    /// Somebody may listen, but not to us.
    #[error("no permission for the agent's socket {}: run this as root", .0.display())]
    Denied(PathBuf),
    /// The agent says no.
    #[error("{}", .0.detail)]
    Refused(Problem),
    /// The socket works, the conversation does not.
    #[error("no answer from the agent at {}: {reason}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
}

/// Where the agent listens.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    is_verbose: bool,
}

/// A request that is being put together.
pub struct Call<'a> {
    client: &'a Client,
    method: Method,
    path: String,
    body: (&'static str, Vec<u8>),
    accept: &'static str,
    if_match: Option<String>,
}

impl Client {
    /// A client of the agent at a socket. A verbose one says on stderr what it asks.
    pub fn new(socket: &Path, is_verbose: bool) -> Self {
        Self { socket: socket.to_owned(), is_verbose }
    }

    /// A request to a path made of segments, which may hold any character.
    pub fn call<'a>(&'a self, method: Method, segments: &[&str]) -> Call<'a> {
        let path = segments.iter().fold(String::from("/v1"), |path, segment| path + "/" + &encode(segment));
        Call {
            client: self,
            method,
            path,
            body: ("application/json", Vec::new()),
            accept: "application/json",
            if_match: None,
        }
    }
}

impl Client {
    fn runtime(&self) -> Result<Runtime, ClientError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| broken(&self.socket, &error.into()))
    }
}

impl Call<'_> {
    /// With a parameter, if there is a value.
    pub fn parameter(mut self, name: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            let separator = if self.path.contains('?') { '&' } else { '?' };
            // Writing to a string cannot fail.
            let _ = write!(self.path, "{separator}{name}={}", encode(&value.to_string()));
        }
        self
    }

    /// Only if what it changes is still at that revision.
    pub fn if_revision(mut self, revision: Option<u64>) -> Self {
        self.if_match = revision.map(|number| format!("\"{number}\""));
        self
    }

    /// With a body in JSON.
    pub fn json(mut self, body: &serde_json::Value) -> Self {
        self.body.1 = body.to_string().into_bytes();
        self
    }

    /// With a body in TOML.
    pub fn toml(mut self, body: String) -> Self {
        self.body = ("application/toml", body.into_bytes());
        self
    }

    /// The answer as text, of the given kind.
    pub fn text(mut self, accept: &'static str) -> Result<String, ClientError> {
        self.accept = accept;
        self.send()
    }

    /// The answer, read.
    ///
    /// # Errors
    /// Where the agent cannot be reached or says no.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        let path = self.client.socket.clone();
        let text = self.send()?;
        serde_json::from_str(&text).map_err(|error| ClientError::Broken {
            path,
            reason: format!("an answer of another version ({error}): are agent and command the same?"),
        })
    }

    /// The answer, whatever it says.
    ///
    /// # Errors
    /// Where the agent cannot be reached or says no.
    pub fn send(self) -> Result<String, ClientError> {
        let socket = self.client.socket.clone();
        self.client.runtime()?.block_on(async {
            let response = self.respond().await?;
            let status = response.status();
            let text = within(&socket, text(response)).await?;
            if status.is_success() { Ok(text) } else { Err(refusal(status, &text)) }
        })
    }

    /// The elements of an array, however many: gives each to `take` as it comes, until the end or until `take` fails.
    ///
    /// # Errors
    /// Where the agent cannot be reached, says no or breaks off, and whatever `take` says.
    pub fn each<T: DeserializeOwned>(self, take: impl FnMut(T) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let socket = self.client.socket.clone();
        let runtime = self.client.runtime()?;
        let response = runtime.block_on(self.respond())?;
        if !response.status().is_success() {
            let status = response.status();
            return Err(refusal(status, &runtime.block_on(within(&socket, text(response)))?).into());
        }
        let body = Body { socket: &socket, runtime: &runtime, response, unread: Bytes::new() };
        elements(BufReader::new(body), take).map_err(|error| match error.downcast::<serde_json::Error>() {
            Ok(error) => broken(&socket, &error.into()).into(),
            Err(error) => error,
        })
    }

    /// Server-sent events: gives the data of each to `take`, until the agent ends the stream or `take` fails.
    ///
    /// # Errors
    /// Where the agent cannot be reached or says no, and whatever `take` says.
    pub fn listen(mut self, mut take: impl FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.accept = "text/event-stream";
        let socket = self.client.socket.clone();
        self.client.runtime()?.block_on(async {
            let mut response = self.respond().await?;
            if !response.status().is_success() {
                let status = response.status();
                return Err(refusal(status, &within(&socket, text(response)).await?).into());
            }
            let mut unread = String::new();
            while let Some(frame) = response.frame().await {
                let frame = frame.map_err(|error| broken(&socket, &error.into()))?;
                let Ok(bytes) = frame.into_data() else { continue };
                unread.push_str(&String::from_utf8_lossy(&bytes));
                while let Some((line, rest)) = unread.split_once('\n') {
                    if let Some(data) = line.strip_prefix("data: ") {
                        take(data)?;
                    }
                    unread = rest.to_owned();
                }
            }
            Ok(())
        })
    }

    /// The answer's head.
    async fn respond(self) -> Result<Response<Incoming>, ClientError> {
        let stream = self.connect().await?;
        let socket = self.client.socket.clone();
        within(&socket, self.exchange(stream)).await
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        let socket = &self.client.socket;
        UnixStream::connect(socket).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning(socket.clone())
            }
            io::ErrorKind::PermissionDenied => ClientError::Denied(socket.clone()),
            _ => ClientError::Broken { path: socket.clone(), reason: error.to_string() },
        })
    }

    async fn exchange(self, stream: UnixStream) -> anyhow::Result<Response<Incoming>> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the sender and the answer; what goes wrong in it comes out of the request below.
        tokio::spawn(connection);
        let (kind, body) = self.body;
        let mut request = Request::builder();
        if let Some(tag) = &self.if_match {
            request = request.header(header::IF_MATCH, tag);
        }
        let request = request
            .method(&self.method)
            .uri(&self.path)
            .header(header::HOST, "lb-agent")
            .header(header::CONTENT_TYPE, kind)
            .header(header::ACCEPT, self.accept)
            .body(Full::new(Bytes::from(body)))
            .context("cannot ask for that")?;
        let response = sender.send_request(request).await?;
        if self.client.is_verbose {
            eprintln!("{} {}: {}", self.method, self.path, response.status());
        }
        Ok(response)
    }
}

/// An answer's body, read by one who waits.
struct Body<'a> {
    socket: &'a Path,
    runtime: &'a Runtime,
    response: Response<Incoming>,
    unread: Bytes,
}

impl io::Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.unread.is_empty() {
            let frame = async { Ok(self.response.frame().await.transpose()?) };
            let frame = self.runtime.block_on(within(self.socket, frame)).map_err(io::Error::other)?;
            match frame.map(hyper::body::Frame::into_data) {
                None => return Ok(0),
                Some(data) => self.unread = data.unwrap_or_default(),
            }
        }
        let length = buffer.len().min(self.unread.len());
        buffer[..length].copy_from_slice(&self.unread.split_to(length));
        Ok(length)
    }
}

/// Reads an array without keeping it.
fn elements<T: DeserializeOwned>(
    text: impl io::Read,
    take: impl FnMut(T) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    /// Gives each element away; what the taker says stops the reading, and is kept aside meanwhile.
    struct Elements<'a, T, F> {
        take: F,
        refused: &'a mut Option<anyhow::Error>,
        element: PhantomData<T>,
    }

    impl<'de, T: DeserializeOwned, F: FnMut(T) -> anyhow::Result<()>> Visitor<'de> for Elements<'_, T, F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut sequence: A) -> Result<(), A::Error> {
            while let Some(element) = sequence.next_element()? {
                if let Err(error) = (self.take)(element) {
                    *self.refused = Some(error);
                    return Err(A::Error::custom("not wanted any more"));
                }
            }
            Ok(())
        }
    }

    let mut refused = None;
    let visitor = Elements { take, refused: &mut refused, element: PhantomData };
    let read = serde_json::Deserializer::from_reader(text).deserialize_seq(visitor);
    refused.map_or_else(|| Ok(read?), Err)
}

async fn text(response: Response<Incoming>) -> anyhow::Result<String> {
    let bytes = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What is waited for, but not for ever.
async fn within<T>(socket: &Path, answer: impl Future<Output = anyhow::Result<T>>) -> Result<T, ClientError> {
    match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(|error| broken(socket, &error)),
        Err(_) => Err(broken(socket, &anyhow::anyhow!("nothing within {} s", TIMEOUT.as_secs()))),
    }
}

fn broken(socket: &Path, error: &anyhow::Error) -> ClientError {
    ClientError::Broken { path: socket.to_owned(), reason: shorten(&format!("{error:#}"), 300) }
}

fn refusal(status: StatusCode, text: &str) -> ClientError {
    let problem = serde_json::from_str(text).unwrap_or_else(|_| Problem {
        kind: "about:blank".to_owned(),
        title: status.to_string(),
        status: status.as_u16(),
        detail: format!("the agent answered {status}: {}", shorten(text, 200)),
    });
    ClientError::Refused(problem)
}

/// Percent-encodes what is not unreserved (RFC 3986 section 2.3).
fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            // Writing to a string cannot fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_parameters_hold_any_character() {
        let client = Client::new(Path::new("/x"), false);
        let call = client.call(Method::GET, &["services", "web", "backends", "[fd00::1]:80"]);
        let call = call.parameter("a", Some("x&y")).parameter("b", None::<&str>).parameter("c", Some(true));
        assert_eq!(call.path, "/v1/services/web/backends/%5Bfd00%3A%3A1%5D%3A80?a=x%26y&c=true");
    }

    #[test]
    fn an_agent_that_is_not_there_is_named_with_its_socket() {
        let error =
            Client::new(Path::new("/nonexistent/a.sock"), false).call(Method::GET, &["status"]).send();
        assert_eq!(
            error.unwrap_err().to_string(),
            "the agent is not running: nothing answers at /nonexistent/a.sock; start it with `lb-agent run`, or name its socket with --socket"
        );
    }

    #[test]
    fn elements_come_one_by_one_and_a_list_that_breaks_off_is_no_whole_one() {
        let read = |text: &str| {
            let mut seen = Vec::new();
            let end = elements(text.as_bytes(), |number: u8| {
                anyhow::ensure!(number < 100, "{number} is too much");
                seen.push(number);
                Ok(())
            });
            (seen, end.map_err(|error| error.to_string()))
        };
        assert_eq!(read("[]\n"), (vec![], Ok(())));
        assert_eq!(read("[\n1,\n2\n]\n"), (vec![1, 2], Ok(())));
        let (seen, end) = read("[\n1,\n2,");
        assert_eq!(seen, [1, 2]);
        assert!(end.unwrap_err().contains("EOF while parsing a"));
        assert_eq!(read("[7, 100, 8]"), (vec![7], Err("100 is too much".to_owned())));
    }
}
