//! What a check does, with the options of its type.

use std::fmt;
use std::str::FromStr;

use super::datagram::Datagram;
use super::invalid::InvalidHealth;
use super::{HealthSpec, comma};
use crate::model::keyword::HealthType;
use crate::model::text::as_text;

/// What a check does.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CheckAction {
    /// Opens a TCP connection.
    #[default]
    Tcp,
    /// Sends an HTTP request.
    Http(HttpRequest),
    /// Sends one over TLS.
    Https(HttpRequest, TlsPolicy),
    /// Asks a gRPC server for the health of a service; the empty name stands for the whole server.
    Grpc {
        /// Which one.
        service: String,
    },
    /// Sends a datagram.
    Udp {
        /// What is sent.
        send: Datagram,
        /// What the answer has to contain; without, any answer will do.
        expect: Option<Datagram>,
    },
    /// Sends an ICMP echo request.
    Icmp,
}

/// A request, and what the answer has to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpRequest {
    /// GET, HEAD and the like.
    pub method: String,
    /// What is asked for, with the query.
    pub path: String,
    /// The host that is named; the address that is checked where none is.
    pub host: Option<String>,
    /// What the status has to be.
    pub status: StatusRange,
    /// What the body has to contain.
    pub body: Option<String>,
}

/// Who has to answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TlsPolicy {
    /// Whether the certificate has to be valid, and signed by somebody whom this host trusts.
    pub verify: bool,
    /// The name that it has to be for; the host, or the address, where none is named.
    pub sni: Option<String>,
}

/// Statuses from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusRange {
    first: u16,
    last: u16,
}

/// A value of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionValue {
    /// Yes or no.
    Flag(bool),
    /// Any other.
    Text(String),
}

impl CheckAction {
    /// The word for it.
    pub const fn kind(&self) -> HealthType {
        match self {
            Self::Tcp => HealthType::Tcp,
            Self::Http(_) => HealthType::Http,
            Self::Https(..) => HealthType::Https,
            Self::Grpc { .. } => HealthType::Grpc,
            Self::Udp { .. } => HealthType::Udp,
            Self::Icmp => HealthType::Icmp,
        }
    }

    /// The options of its type, in a fixed order, with every default written out.
    pub fn options(&self) -> Vec<(&'static str, OptionValue)> {
        let text = |value: &dyn fmt::Display| OptionValue::Text(value.to_string());
        match self {
            Self::Tcp | Self::Icmp => Vec::new(),
            Self::Http(request) => request.options(),
            Self::Https(request, TlsPolicy { verify, sni }) => {
                let mut options = request.options();
                options.push(("verify", OptionValue::Flag(*verify)));
                options.extend(sni.as_ref().map(|name| ("sni", text(name))));
                options
            }
            Self::Grpc { service } if service.is_empty() => Vec::new(),
            Self::Grpc { service } => vec![("service", text(service))],
            Self::Udp { send, expect } => {
                let expect = expect.as_ref().map(|bytes| ("expect", text(bytes)));
                [("send", text(send))].into_iter().chain(expect).collect()
            }
        }
    }
}

impl HttpRequest {
    fn options(&self) -> Vec<(&'static str, OptionValue)> {
        let Self { method, path, host, status, body } = self;
        let text = |value: &String| OptionValue::Text(value.clone());
        let mut options = vec![("method", text(method)), ("path", text(path))];
        options.extend(host.as_ref().map(|host| ("host", text(host))));
        options.push(("status", OptionValue::Text(status.to_string())));
        options.extend(body.as_ref().map(|body| ("body", text(body))));
        options
    }
}

impl StatusRange {
    /// All that are no errors.
    pub const DEFAULT: Self = Self { first: 200, last: 399 };

    /// Whether a status is in it.
    pub const fn contains(self, status: u16) -> bool {
        self.first <= status && status <= self.last
    }
}

impl FromStr for StatusRange {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let status = |digits: &str| {
            let number = digits.parse().ok().filter(|_| digits.len() == 3);
            number.filter(|status| (100..=599).contains(status)).ok_or(())
        };
        let range = Self { first: status(first)?, last: status(last)? };
        if range.first <= range.last { Ok(range) } else { Err(()) }
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl fmt::Display for OptionValue {
    /// As it stands between commas.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Text(text) => f.write_str(&comma::escape(text)),
        }
    }
}

impl fmt::Display for CheckAction {
    /// As a check that says nothing of when and how often.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind())?;
        self.options().iter().try_for_each(|(key, value)| write!(f, ",{key}={value}"))
    }
}

impl FromStr for CheckAction {
    type Err = InvalidHealth;

    fn from_str(text: &str) -> Result<Self, InvalidHealth> {
        text.parse().map(|spec: HealthSpec| Self::clone(&spec.action))
    }
}

as_text!(CheckAction);
