//! `[http]`: the API over TCP.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

/// Where the API listens beside the Unix socket, and who is let in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Address and port.
    pub listen: SocketAddr,
    /// Tokens with what they allow. Without: whoever reaches a loopback address may read.
    pub token_file: Option<PathBuf>,
    /// The certificate chain, in PEM; without, there is no TLS.
    pub cert_file: Option<PathBuf>,
    /// Its key, in PEM.
    pub key_file: Option<PathBuf>,
}

impl Http {
    /// What does not fit together: the key, and the reason.
    pub(super) fn problem(&self) -> Option<(&'static str, String, String)> {
        let Self { listen, token_file, cert_file, key_file } = self;
        let reason = |reason: &str| reason.to_owned();
        let listening = || ("http.listen", format!("\"{listen}\""));
        if !listen.ip().is_loopback() && token_file.is_none() {
            let (key, value) = listening();
            return Some((
                key,
                value,
                reason("beyond loopback nobody is let in without a token: set http.token_file"),
            ));
        }
        let of = |file: &Option<PathBuf>| file.as_ref().map(|path| format!("\"{}\"", path.display()));
        match (of(cert_file), of(key_file)) {
            (Some(value), None) => Some(("http.cert_file", value, reason("it needs http.key_file"))),
            (None, Some(value)) => Some(("http.key_file", value, reason("it needs http.cert_file"))),
            _ => None,
        }
    }
}
