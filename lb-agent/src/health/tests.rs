//! Every type of check against servers that are right, wrong, slow, half-open, too talkative, or no servers of its kind.

use std::net::{Ipv4Addr, SocketAddr};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::*;

/// What a check found.
async fn found(spec: &str, target: SocketAddr, tls: &Tls) -> Result<(), String> {
    carry_out(&Check::of(target, &spec.parse().unwrap()), tls).await
}

async fn checked(spec: &str, target: SocketAddr) -> Result<(), String> {
    found(spec, target, &Tls::trusting(RootCertStore::empty())).await
}

fn failed(reason: &str) -> Result<(), String> {
    Err(reason.to_owned())
}

/// A server that answers every request with these bytes, and then closes or waits.
async fn server(answer: impl Into<Vec<u8>>, closes: bool) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, answer) = (listener.local_addr().unwrap(), answer.into());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_with(stream, answer.clone(), closes));
        }
    });
    address
}

async fn answer_with(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: Vec<u8>, closes: bool) {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).await;
    let _ = stream.write_all(&answer).await;
    match closes {
        true => drop(stream.shutdown().await),
        false => std::future::pending().await,
    }
}

/// An address that nobody listens at, for as long as the socket is kept.
fn nobody() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn whoever_does_not_listen_refuses_every_check_over_tcp() {
    let (_socket, target) = nobody();
    for spec in ["tcp", "http", "https", "grpc"] {
        assert_eq!(checked(spec, target).await, failed("connection refused"), "{spec}");
    }
}

#[tokio::test]
async fn silence_fails_by_the_timeout() {
    // A backlog that is full: Linux ignores further SYNs to it.
    let (socket, target) = nobody();
    let _listener = socket.listen(0).unwrap();
    let _filling = TcpStream::connect(target).await.unwrap();
    let half_open = server("", false).await;
    let late = failed("no answer within 100ms");
    assert_eq!(checked("tcp,timeout=100ms", target).await, late);
    assert_eq!(checked("tcp,timeout=100ms", half_open).await, Ok(()));
    for spec in ["http", "https,verify=false", "grpc"] {
        assert_eq!(checked(&format!("{spec},timeout=100ms"), half_open).await, late, "{spec}");
    }
    let deaf = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    assert_eq!(checked("udp,timeout=100ms,send=x", deaf.local_addr().unwrap()).await, late);
}

#[tokio::test]
async fn http_is_judged_by_status_and_body() {
    let long = format!("HTTP/1.1 200 OK\r\n\r\n{}ok", "x".repeat(70_000));
    let wide = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nall o\r\n4\r\nk ok\r\n0\r\n\r\n";
    let ok = Ok(());
    let cases: [(&str, &str, Result<(), String>); 13] = [
        ("HTTP/1.1 204 No Content\r\n\r\n", "http", ok.clone()),
        ("HTTP/1.0 200 OK\r\n\r\nall ok", "http,body=all ok", ok.clone()),
        (chunked, "http,body=all ok", ok.clone()),
        ("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", "http", ok),
        (
            "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
            "http,status=200-299",
            failed("status 302, expected 200-299"),
        ),
        ("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "http", failed("status 500, expected 200-399")),
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine", "http,body=ok", failed("body has no `ok`")),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfi", "http,body=ok", failed("answer cut short")),
        (&long, "http,body=ok", failed("answer larger than 65536 bytes, without `ok` in those")),
        (&wide, "http", failed("answer larger than 16384 bytes before its body")),
        ("SSH-2.0-x\x1b[31m\r\n", "http", failed("not HTTP: `SSH-2.0-x\\u{1b}[31m\\r\\n`")),
        ("HTTP/1.1 2", "http", failed("answer cut short")),
        ("", "http", failed("connection closed without an answer")),
    ];
    for (answer, spec, expected) in cases {
        let target = server(answer, true).await;
        assert_eq!(checked(spec, target).await, expected, "{spec}: {}", &answer[..answer.len().min(60)]);
    }
}

#[tokio::test]
async fn what_is_asked_is_what_was_said() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let target = listener.local_addr().unwrap();
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        String::from_utf8(request[..length].to_vec()).unwrap().to_lowercase()
    });
    assert_eq!(checked("http,method=HEAD,path=/a?b=c,host=web.example:81", target).await, Ok(()));
    let asked = asked.await.unwrap();
    assert!(asked.starts_with("head /a?b=c http/1.1\r\nhost: web.example:81\r\n"), "{asked}");
    assert!(asked.contains("connection: close\r\n"), "{asked}");
}

/// A TLS server with such a certificate, and who trusts whom it was signed by.
async fn tls_server(params: CertificateParams, self_signed: bool) -> (SocketAddr, Tls) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "authority");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = match self_signed {
        true => params.self_signed(&key).unwrap(),
        false => params.signed_by(&key, &authority).unwrap(),
    };
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let secret = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, secret).unwrap()));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                tokio::spawn(answer_with(
                    stream,
                    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(),
                    true,
                ));
            }
        }
    });
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.der().to_vec())).unwrap();
    (address, Tls::trusting(roots))
}

#[tokio::test]
async fn https_tells_certificates_apart() {
    let names = || CertificateParams::new(vec!["web.example".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let mut expired = names();
    (expired.not_before, expired.not_after) =
        (rcgen::date_time_ymd(2000, 1, 1), rcgen::date_time_ymd(2001, 1, 1));
    let mut own_authority = names();
    own_authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (good, trusting) = tls_server(names(), false).await;
    for spec in ["https,body=ok", "https,host=web.example:443", "https,sni=web.example"] {
        assert_eq!(found(spec, good, &trusting).await, Ok(()), "{spec}");
    }
    assert_eq!(
        found("https,sni=other.example", good, &trusting).await,
        failed("certificate is not for other.example")
    );
    for (params, self_signed, reason) in [
        (expired, false, "certificate expired"),
        (names(), true, "self-signed certificate"),
        (own_authority, true, "self-signed certificate"),
    ] {
        let (target, trusting) = tls_server(params, self_signed).await;
        assert_eq!(found("https", target, &trusting).await, failed(reason));
        assert_eq!(found("https,verify=false,body=ok", target, &trusting).await, Ok(()), "{reason}");
    }
    let (other, _) = tls_server(names(), false).await;
    assert_eq!(found("https", other, &trusting).await, failed("certificate by an unknown issuer"));
    assert_eq!(
        checked("https", good).await,
        failed("no certificate can be verified: this host trusts nobody")
    );
    let plain = server("HTTP/1.1 400 Bad\r\n\r\n", true).await;
    assert_eq!(found("https", plain, &trusting).await, failed("not TLS"));
    assert_eq!(found("https", server("", true).await, &trusting).await, failed("TLS: connection closed"));
}

#[tokio::test]
async fn udp_is_judged_by_the_answer() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let target = socket.local_addr().unwrap();
    let echo = tokio::spawn(async move {
        let mut datagram = [0; 8192];
        while let Ok((length, from)) = socket.recv_from(&mut datagram).await {
            let answer = if datagram.starts_with(b"long") { 8000 } else { length };
            let _ = socket.send_to(&datagram[..answer], from).await;
        }
    });
    assert_eq!(checked(r"udp,send=a\x00b\n", target).await, Ok(()));
    assert_eq!(checked(r"udp,send=a\x00b\n,expect=\x00b", target).await, Ok(()));
    assert_eq!(checked("udp,send=ping,expect=pong", target).await, failed("answer `ping` has no `pong`"));
    assert_eq!(checked("udp,send=", target).await, Ok(()));
    let long = checked("udp,send=long,expect=pong", target).await.unwrap_err();
    assert!(long.starts_with("answer `long") && long.len() < 400, "{long}");
    echo.abort();
    let _ = echo.await;
    assert_eq!(checked("udp,send=x", target).await, failed("connection refused"));
}

#[tokio::test]
async fn icmp_is_answered_by_this_host_or_may_not_be_sent() {
    let may_not = failed("the agent may not send ICMP: it needs CAP_NET_RAW");
    for target in ["127.0.0.1:80", "[::1]:80"] {
        let found = checked("icmp", target.parse().unwrap()).await;
        match rustix::process::geteuid().is_root() {
            true => assert_eq!(found, Ok(()), "{target}"),
            false => assert_eq!(found, may_not, "{target}"),
        }
    }
}

/// Headers of an answer.
type Headers = &'static [(&'static str, &'static str)];

/// Status, headers and body.
type Answer = (u16, Headers, &'static [u8]);

/// A gRPC server that says this of its health.
async fn grpc_server(status: u16, headers: Headers, answer: &'static [u8]) -> SocketAddr {
    use http_body_util::Full;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(
                move |request: axum::http::Request<hyper::body::Incoming>| async move {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    let mut response = axum::http::Response::builder().status(status);
                    for (name, value) in headers {
                        response = response.header(*name, *value);
                    }
                    response.body(Full::new(hyper::body::Bytes::from_static(answer)))
                },
            );
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

#[tokio::test]
async fn grpc_is_judged_by_what_the_server_says() {
    const HUGE: &[u8] = &[0; 5000];
    let cases: [(Answer, Result<(), String>); 8] = [
        ((200, &[], &[0, 0, 0, 0, 2, 8, 1]), Ok(())),
        ((200, &[], &[0, 0, 0, 0, 2, 8, 2]), failed("health is NOT_SERVING")),
        ((200, &[], &[0, 0, 0, 0, 0]), failed("health is UNKNOWN")),
        ((200, &[("grpc-status", "5")], &[]), failed("the server knows no service `web`")),
        (
            (200, &[("grpc-status", "14"), ("grpc-message", "later")], &[]),
            failed("gRPC status `14`: `later`"),
        ),
        ((404, &[], &[]), failed("not gRPC: status 404")),
        ((200, &[], b"hello"), failed("not the health protocol: `hello`")),
        ((200, &[], HUGE), failed("answer larger than 4096 bytes")),
    ];
    for ((status, headers, answer), expected) in cases {
        let target = grpc_server(status, headers, answer).await;
        assert_eq!(checked("grpc,service=web", target).await, expected);
    }
    let http1 = server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true).await;
    assert_eq!(checked("grpc", http1).await, failed("not HTTP/2: `HTTP/1.1 200 OK\\r\\nContent-Length:`"));
    assert_eq!(checked("grpc", server("", true).await).await, failed("connection closed without an answer"));
}

#[tokio::test]
async fn a_slow_check_holds_up_no_other() {
    let (silent, quick) = (server("", false).await, server("HTTP/1.1 200 OK\r\n\r\n", true).await);
    let mut prober = NetworkProber::new(Handle::current(), 1000);
    let (sender, mut results) = mpsc::channel(8);
    for (id, target) in [(1, silent), (2, silent), (3, quick)] {
        let check = Check::of(target, &"http,interval=30s,timeout=30s".parse().unwrap());
        prober.start(Probe { id, check }, &sender);
    }
    let first = time::timeout(Duration::from_secs(5), results.recv()).await.unwrap().unwrap();
    assert_eq!((first.id, first.outcome), (3, Ok(())));
}

#[tokio::test]
async fn a_reason_names_the_check() {
    let (_socket, target) = nobody();
    let mut prober = NetworkProber::new(Handle::current(), 1000);
    let (sender, mut results) = mpsc::channel(8);
    prober.start(Probe { id: 1, check: Check::of(target, &"http".parse().unwrap()) }, &sender);
    let result = results.recv().await.unwrap();
    assert_eq!(result.outcome, Err(format!("http check of {target}: connection refused")));
}
