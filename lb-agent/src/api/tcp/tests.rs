//! Who is let in over TCP, over real connections.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::Value;
use tokio::runtime::Runtime;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::*;
use crate::api::Api;
use crate::control::fake::World;

const TOKENS: &str = "read reading-token\nwrite writing-token\n";

struct Server {
    address: SocketAddr,
    keys: Keys,
    config: Http,
    directory: PathBuf,
    _runtime: Runtime,
}

impl Server {
    fn start(name: &str, with: impl FnOnce(&mut Http, &std::path::Path)) -> Self {
        let directory = std::env::temp_dir().join(format!("lb-agent-tcp-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let mut config = Http { listen, token_file: None, cert_file: None, key_file: None };
        with(&mut config, &directory);
        let runtime = Runtime::new().unwrap();
        let (address, keys) = runtime.block_on(async {
            let door = Door::open(&config).await.unwrap();
            let (address, keys) = (door.listener.local_addr().unwrap(), door.keys());
            let api = Api { control: World::default().run(), gate: Arc::clone(&keys.gate) };
            let (unix, stop) = (directory.join("agent.sock"), std::future::pending());
            tokio::spawn(crate::api::serve(crate::api::bind(&unix).unwrap(), Some(door), api, stop));
            (address, keys)
        });
        Self { address, keys, config, directory, _runtime: runtime }
    }

    fn with_tokens(name: &str) -> Self {
        Self::start(name, |config, directory| config.token_file = Some(secret(directory, TOKENS)))
    }

    /// The answer to a request with a header, and its status.
    fn ask(&self, request: &str, header: &str, body: &str) -> (u16, String) {
        let stream = TcpStream::connect(self.address).unwrap();
        exchange(stream, request, header, body)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn secret(directory: &std::path::Path, text: &str) -> PathBuf {
    let path = directory.join("token");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn exchange(mut stream: impl Read + Write, request: &str, header: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n{header}\r\n"
    );
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut answer = Vec::new();
    // TLS clients miss a close_notify where the server has closed: what was read counts.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{answer:?}")), answer)
}

const ADD: &str = r#"{"name": "web", "vip": "10.0.0.100:80"}"#;

#[test]
fn each_token_opens_what_it_is_for_and_what_is_refused_is_counted() {
    let server = Server::with_tokens("scopes");
    let (no, wrong) = ("", "Authorization: Bearer guessed\r\n");
    let (read, write) =
        ("Authorization: Bearer reading-token\r\n", "Authorization: bearer writing-token\r\n");
    let basic = "Authorization: Basic d3JpdGluZy10b2tlbjo=\r\n";
    let cases = [
        ("GET /v1/services", no, 401),
        ("GET /v1/services", wrong, 401),
        ("GET /v1/services", basic, 401),
        ("GET /v1/services", read, 200),
        ("GET /v1/services", write, 200),
        ("POST /v1/services", no, 401),
        ("POST /v1/services", wrong, 401),
        ("POST /v1/services", read, 403),
        ("DELETE /v1/services/web", read, 403),
        ("PUT /v1/state?dry_run=true", read, 403),
        ("GET /v1/nothing", no, 401),
        ("GET /v1/events", no, 401),
        ("POST /healthz", no, 401),
        ("GET /healthz", no, 200),
        ("GET /readyz", wrong, 200),
        ("POST /v1/services", write, 201),
        ("POST /v1/services", write, 409),
    ];
    for (request, header, status) in cases {
        let (answered, answer) =
            server.ask(request, header, if request.starts_with("POST") { ADD } else { "" });
        assert_eq!(answered, status, "{request} with {header}: {answer}");
        let is_denied = status == 401 || status == 403;
        assert_eq!(answer.contains("application/problem+json"), status >= 400, "{answer}");
        assert_eq!(answer.contains("www-authenticate: Bearer realm=\"lb-agent\""), is_denied, "{answer}");
        assert!(!answer.contains("ing-token"), "{answer}");
    }
    let (_, status) = server.ask("GET /v1/status", read, "");
    let status: Value = serde_json::from_str(status.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let expected = serde_json::json!({
        "requests_total": 18, "refused_no_token_total": 5, "refused_wrong_token_total": 3, "refused_read_only_total": 3,
    });
    assert_eq!(status["http"], expected);
}

#[test]
fn without_tokens_loopback_may_read_and_nobody_may_write() {
    let server = Server::start("open", |_, _| {});
    assert_eq!(server.ask("GET /v1/services", "", "").0, 200);
    let (status, answer) = server.ask("POST /v1/services", "Authorization: Bearer x\r\n", ADD);
    assert_eq!(status, 403);
    assert!(answer.contains("changes over TCP need a token: set http.token_file"), "{answer}");
    assert_eq!(server.keys.gate.counts().refused_read_only_total, 1);
}

#[test]
fn tokens_are_exchanged_while_the_door_is_open_and_bad_ones_are_not_taken() {
    let server = Server::with_tokens("reload");
    let with =
        |token: &str| server.ask("GET /v1/services", &format!("Authorization: Bearer {token}\r\n"), "").0;
    secret(&server.directory, "write another-token\n");
    server.keys.load(&server.config).unwrap();
    assert_eq!((with("reading-token"), with("another-token")), (401, 200));
    secret(&server.directory, "");
    assert!(server.keys.load(&server.config).is_err());
    assert_eq!(with("another-token"), 200);
}

#[test]
fn over_tls_the_certificate_is_the_configured_one_and_plain_text_is_not_answered() {
    let made = rcgen::generate_simple_self_signed(vec!["lb.example".to_owned()]).unwrap();
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let server = Server::start("tls", |config, directory| {
        let file = |name: &str, text: &str| {
            std::fs::write(directory.join(name), text).unwrap();
            Some(directory.join(name))
        };
        config.token_file = Some(secret(directory, TOKENS));
        (config.cert_file, config.key_file) = (file("cert.pem", &cert), file("key.pem", &key));
    });
    let mut roots = RootCertStore::empty();
    roots
        .add(tokio_rustls::rustls::pki_types::CertificateDer::from_pem_slice(cert.as_bytes()).unwrap())
        .unwrap();
    let config =
        ClientConfig::builder_with_provider(Arc::new(tokio_rustls::rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    let name = ServerName::try_from("lb.example").unwrap();
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = StreamOwned::new(session, TcpStream::connect(server.address).unwrap());
    let read = "Authorization: Bearer reading-token\r\n";
    assert_eq!(exchange(stream, "GET /v1/services", read, "").0, 200);

    let mut plain = TcpStream::connect(server.address).unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn each_door_that_cannot_be_opened_says_why() {
    let directory = std::env::temp_dir().join(format!("lb-agent-tcp-bad-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    let runtime = Runtime::new().unwrap();
    let open = |listen: &str, tls: bool| {
        let (cert_file, key_file) = (tls.then(|| cert.clone()), tls.then(|| key.clone()));
        let config = Http { listen: listen.parse().unwrap(), token_file: None, cert_file, key_file };
        runtime.block_on(Door::open(&config)).map(drop).unwrap_err().to_string()
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert_eq!(
        open(&address, false),
        format!("cannot listen at http.listen = \"{address}\": Address already in use (os error 98)")
    );
    let shown = cert.display();
    assert!(open("127.0.0.1:0", true).starts_with(&format!("cannot read the certificate in {shown}: ")));
    std::fs::write(&cert, "nothing").unwrap();
    assert_eq!(open("127.0.0.1:0", true), format!("cannot read the certificate in {shown}: there is none"));
    let made = |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    std::fs::write(&cert, made("a").cert.pem()).unwrap();
    std::fs::write(&key, made("b").signing_key.serialize_pem()).unwrap();
    let other = open("127.0.0.1:0", true);
    std::fs::remove_dir_all(&directory).unwrap();
    assert!(other.starts_with(&format!("the certificate in {shown} and its key in ")), "{other}");
}
