//! TLS to a server that is checked, and what is wrong with its certificate, in words.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use webpki::EndEntityCert;

use super::reason;
use crate::model::TlsPolicy;

/// How connections are made that verify the server, and those that do not.
#[derive(Clone)]
pub(super) struct Tls {
    /// Nothing where this host trusts nobody.
    verifying: Option<TlsConnector>,
    unverifying: Option<TlsConnector>,
}

impl Tls {
    /// Trusts whom this host trusts: `SSL_CERT_FILE`, `SSL_CERT_DIR`, or where the distribution has the certificates.
    pub(super) fn of_this_host() -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Self::trusting(roots)
    }

    /// Trusts these.
    pub(super) fn trusting(roots: RootCertStore) -> Self {
        let provider = Arc::new(default_provider());
        let webpki = WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(&provider)).build();
        Self {
            verifying: webpki.ok().and_then(|webpki| connector(Some(webpki), Arc::clone(&provider))),
            unverifying: connector(None, provider),
        }
    }

    /// Opens a TLS connection.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        policy: &TlsPolicy,
        host: Option<&str>,
    ) -> Result<TlsStream<TcpStream>, String> {
        let connector = if policy.verify { &self.verifying } else { &self.unverifying };
        let connector =
            connector.as_ref().ok_or("no certificate can be verified: this host trusts nobody")?;
        let address = stream.peer_addr().map_err(|error| reason::of_socket(&error))?.ip();
        let name = server_name(policy, host, address);
        let shown = name.to_str().into_owned();
        connector.connect(name, stream).await.map_err(|error| describe(&error, &shown))
    }
}

fn connector(
    webpki: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
) -> Option<TlsConnector> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().ok()?;
    let verifier = Arc::new(Verifier { webpki, provider });
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A check is to find out whether a handshake succeeds: none is cut short by the one before.
    config.resumption = tokio_rustls::rustls::client::Resumption::disabled();
    Some(TlsConnector::from(Arc::new(config)))
}

/// The name that was said, else the host without its port, else the address.
fn server_name(policy: &TlsPolicy, host: Option<&str>, address: IpAddr) -> ServerName<'static> {
    let without_port = |host: &str| match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name.to_owned(),
        _ => host.to_owned(),
    };
    let name = policy.sni.clone().or_else(|| host.map(without_port));
    name.and_then(|name| ServerName::try_from(name).ok()).unwrap_or_else(|| ServerName::from(address))
}

fn describe(error: &io::Error, name: &str) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        None => format!("TLS: {}", reason::of_socket(error)),
        Some(Error::InvalidCertificate(error)) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "certificate expired".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "certificate not valid yet".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("certificate is not for {name}")
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "certificate by an unknown issuer".to_owned()
            }
            CertificateError::ApplicationVerificationFailure => "self-signed certificate".to_owned(),
            other => format!("certificate: {other}"),
        },
        Some(Error::InvalidMessage(_)) => "not TLS".to_owned(),
        Some(error) => format!("TLS: {error}"),
    }
}

/// Verifies as WebPKI does, or not at all; tells self-signed certificates from those of an unknown issuer.
#[derive(Debug)]
struct Verifier {
    webpki: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(webpki) = &self.webpki else { return Ok(ServerCertVerified::assertion()) };
        let verified = webpki.verify_server_cert(certificate, intermediates, name, ocsp, now);
        let is_self_signed =
            EndEntityCert::try_from(certificate).is_ok_and(|cert| cert.issuer() == cert.subject());
        match verified {
            // A server's own certificate that is its own authority, too.
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::Other(_)))
                if is_self_signed =>
            {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
