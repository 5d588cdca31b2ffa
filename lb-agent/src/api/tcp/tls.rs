//! TLS for the API over TCP.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// A certificate or key that cannot be used. One line.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is not PEM.
    #[error("cannot read the {what} in {}: {reason}", path.display())]
    File {
        /// Certificate or key.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// They do not belong together.
    #[error("the certificate in {} and its key in {} cannot be used: {error}", cert.display(), key.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's.
        key: PathBuf,
        /// Why not.
        error: rustls::Error,
    },
}

/// Reads certificate chain and key.
pub(super) fn load(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let failed = |what, path: &Path| {
        let path = path.to_owned();
        move |error: rustls::pki_types::pem::Error| TlsError::File { what, path, reason: error.to_string() }
    };
    let chain = CertificateDer::pem_file_iter(cert).map_err(failed("certificate", cert))?;
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(failed("certificate", cert))?;
    if chain.is_empty() {
        let reason = "there is none".to_owned();
        return Err(TlsError::File { what: "certificate", path: cert.to_owned(), reason });
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(failed("key", key))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret))
        .map_err(|error| TlsError::Pair { cert: cert.to_owned(), key: key.to_owned(), error })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
