//! A check as it was typed, whichever way, and what becomes of it.

use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;

use axum::http::uri::PathAndQuery;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use tokio_rustls::rustls::pki_types::ServerName;

use super::action::{CheckAction, HttpRequest, StatusRange, TlsPolicy};
use super::datagram::Datagram;
use super::invalid::{InvalidHealth, MAX_INTERVAL, MIN_INTERVAL, MIN_TIMEOUT};
use super::{HealthArgument, HealthSpec, comma};
use crate::model::keyword::{HealthType, UnknownKeyword};
use crate::model::period::Period;

const DEFAULT_TIMEOUT: Period = Period::from_secs(1);

/// A check as it was typed: what is absent takes its default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSpec {
    #[serde(rename = "type")]
    pub(super) kind: String,
    interval: Option<Period>,
    timeout: Option<Period>,
    jitter: Option<Period>,
    rise: Option<i64>,
    fall: Option<i64>,
    port: Option<i64>,
    method: Option<String>,
    path: Option<String>,
    host: Option<String>,
    #[serde(default, deserialize_with = "scalar")]
    status: Option<String>,
    body: Option<String>,
    #[serde(default, deserialize_with = "scalar")]
    verify: Option<String>,
    sni: Option<String>,
    service: Option<String>,
    send: Option<String>,
    expect: Option<String>,
}

impl HealthType {
    /// The options that checks of this type can have.
    pub const fn options(self) -> &'static [&'static str] {
        match self {
            Self::Tcp => &["interval", "timeout", "jitter", "rise", "fall", "port"],
            Self::Icmp => &["interval", "timeout", "jitter", "rise", "fall"],
            Self::Http => &[
                "interval", "timeout", "jitter", "rise", "fall", "port", "method", "path", "host", "status",
                "body",
            ],
            Self::Https => &[
                "interval", "timeout", "jitter", "rise", "fall", "port", "method", "path", "host", "status",
                "body", "verify", "sni",
            ],
            Self::Grpc => &["interval", "timeout", "jitter", "rise", "fall", "port", "service"],
            Self::Udp => &["interval", "timeout", "jitter", "rise", "fall", "port", "send", "expect"],
        }
    }
}

impl FromStr for RawSpec {
    type Err = InvalidHealth;

    /// From the form with commas.
    fn from_str(text: &str) -> Result<Self, InvalidHealth> {
        let mut parts = comma::split(text).into_iter();
        let mut raw = Self { kind: parts.next().unwrap_or_default(), ..Self::default() };
        // The type first: a check of another type may have options that this one has not.
        let kind = raw.kind()?;
        parts.try_for_each(|option| raw.set(kind, &option))?;
        Ok(raw)
    }
}

impl RawSpec {
    /// As `--health` would have said it: `type = "none"` is no check.
    pub(super) fn argument(self) -> Result<HealthArgument, InvalidHealth> {
        match self.kind.as_str() {
            "none" => Ok(HealthArgument::None),
            _ => self.validate().map(HealthArgument::Check),
        }
    }

    fn kind(&self) -> Result<HealthType, InvalidHealth> {
        self.kind.parse().map_err(|error: UnknownKeyword| InvalidHealth::Type(error.or("none")))
    }

    /// Takes one `key=value`.
    fn set(&mut self, kind: HealthType, option: &str) -> Result<(), InvalidHealth> {
        let (key, value) = option.split_once('=').ok_or_else(|| InvalidHealth::Option(option.to_owned()))?;
        match key {
            "interval" => fill(&mut self.interval, "interval", period("interval", value)?),
            "timeout" => fill(&mut self.timeout, "timeout", period("timeout", value)?),
            "jitter" => fill(&mut self.jitter, "jitter", period("jitter", value)?),
            "rise" => fill(&mut self.rise, "rise", number("rise", 100, value)?),
            "fall" => fill(&mut self.fall, "fall", number("fall", 100, value)?),
            "port" => fill(&mut self.port, "port", number("port", 65535, value)?),
            _ => match self.texts_mut().into_iter().find(|(name, _)| *name == key) {
                Some((name, place)) => fill(place, name, value.to_owned()),
                None => Err(InvalidHealth::NotOf(kind, key.to_owned())),
            },
        }
    }

    /// The options that not every type has.
    fn texts_mut(&mut self) -> [(&'static str, &mut Option<String>); 10] {
        [
            ("method", &mut self.method),
            ("path", &mut self.path),
            ("host", &mut self.host),
            ("status", &mut self.status),
            ("body", &mut self.body),
            ("verify", &mut self.verify),
            ("sni", &mut self.sni),
            ("service", &mut self.service),
            ("send", &mut self.send),
            ("expect", &mut self.expect),
        ]
    }

    pub(super) fn validate(mut self) -> Result<HealthSpec, InvalidHealth> {
        let kind = self.kind()?;
        self.refuse_options_of_others(kind)?;
        let interval = self.interval.unwrap_or(Period::from_secs(2));
        if !(MIN_INTERVAL..=MAX_INTERVAL).contains(&interval) {
            return Err(InvalidHealth::Interval(interval));
        }
        // A shorter interval than the default timeout shortens that: only a timeout that was asked for can be wrong.
        let timeout = self.timeout.unwrap_or(DEFAULT_TIMEOUT.min(interval));
        if !(MIN_TIMEOUT..=interval).contains(&timeout) {
            return Err(InvalidHealth::Timeout(timeout, interval));
        }
        let jitter = self.jitter.unwrap_or(Period::from_millis(0));
        if jitter.duration() * 2 > interval.duration() {
            return Err(InvalidHealth::Jitter(jitter, interval));
        }
        Ok(HealthSpec {
            interval,
            timeout,
            jitter,
            rise: count("rise", self.rise.unwrap_or(2))?,
            fall: count("fall", self.fall.unwrap_or(3))?,
            port: self.port.map(port).transpose()?,
            action: Arc::new(self.action(kind)?),
        })
    }

    fn refuse_options_of_others(&mut self, kind: HealthType) -> Result<(), InvalidHealth> {
        let port = self.port.map(|_| "port");
        let texts = self.texts_mut().into_iter().filter_map(|(key, value)| value.is_some().then_some(key));
        match port.into_iter().chain(texts).find(|key| !kind.options().contains(key)) {
            Some(key) => Err(InvalidHealth::NotOf(kind, key.to_owned())),
            None => Ok(()),
        }
    }

    fn action(self, kind: HealthType) -> Result<CheckAction, InvalidHealth> {
        match kind {
            HealthType::Tcp => Ok(CheckAction::Tcp),
            HealthType::Icmp => Ok(CheckAction::Icmp),
            HealthType::Http => self.request().map(CheckAction::Http),
            HealthType::Https => {
                let tls = TlsPolicy {
                    verify: parsed("verify", self.verify.as_deref(), "true or false")?.unwrap_or(true),
                    sni: valid("sni", self.sni.as_deref(), is_server_name, "a host's name or address")?,
                };
                self.request().map(|request| CheckAction::Https(request, tls))
            }
            HealthType::Grpc => {
                let expected = "at most 255 visible ASCII characters";
                let service =
                    valid("service", self.service.as_deref(), |name| is_visible(name, 255), expected)?;
                Ok(CheckAction::Grpc { service: service.unwrap_or_default() })
            }
            HealthType::Udp => {
                let expected = "at most 512 bytes, with \\n, \\r, \\t, \\0, \\\\ and \\xNN for those that are no characters";
                let send = parsed("send", self.send.as_deref(), expected)?;
                let expect: Option<Datagram> = parsed("expect", self.expect.as_deref(), expected)?;
                if expect.as_ref().is_some_and(|expect| expect.as_bytes().is_empty()) {
                    let expected = "at least one byte; leave it out where any answer will do";
                    return Err(InvalidHealth::Value { key: "expect", value: String::new(), expected });
                }
                Ok(CheckAction::Udp { send: send.ok_or(InvalidHealth::Missing(kind, "send"))?, expect })
            }
        }
    }

    fn request(&self) -> Result<HttpRequest, InvalidHealth> {
        let is_method =
            |text: &str| (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_uppercase());
        let is_host = |text: &str| !text.is_empty() && is_visible(text, 255) && !text.contains('/');
        let is_body = |text: &str| (1..=256).contains(&text.len()) && !text.contains(char::is_control);
        let method =
            valid("method", self.method.as_deref(), is_method, "1 to 16 capital letters, such as GET")?;
        let path = valid(
            "path",
            self.path.as_deref(),
            is_path,
            "/ and what follows it in a URL, at most 1024 characters",
        )?;
        Ok(HttpRequest {
            method: method.unwrap_or_else(|| "GET".to_owned()),
            path: path.unwrap_or_else(|| "/".to_owned()),
            host: valid(
                "host",
                self.host.as_deref(),
                is_host,
                "a host's name, with a port where that matters",
            )?,
            status: parsed(
                "status",
                self.status.as_deref(),
                "a status, or a range such as 200-399, from 100 to 599",
            )?
            .unwrap_or(StatusRange::DEFAULT),
            body: valid(
                "body",
                self.body.as_deref(),
                is_body,
                "1 to 256 bytes of text without control characters",
            )?,
        })
    }
}

fn is_visible(text: &str, most: usize) -> bool {
    text.len() <= most && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_path(text: &str) -> bool {
    text.starts_with('/')
        && is_visible(text, 1024)
        && !text.contains('#')
        && text.parse::<PathAndQuery>().is_ok()
}

fn is_server_name(text: &str) -> bool {
    ServerName::try_from(text).is_ok()
}

/// A text that is as it has to be.
fn valid(
    key: &'static str,
    text: Option<&str>,
    is_valid: impl Fn(&str) -> bool,
    expected: &'static str,
) -> Result<Option<String>, InvalidHealth> {
    match text {
        Some(text) if !is_valid(text) => Err(InvalidHealth::Value { key, value: text.to_owned(), expected }),
        other => Ok(other.map(str::to_owned)),
    }
}

fn parsed<T: FromStr>(
    key: &'static str,
    text: Option<&str>,
    expected: &'static str,
) -> Result<Option<T>, InvalidHealth> {
    let invalid = |text: &str| InvalidHealth::Value { key, value: text.to_owned(), expected };
    text.map(|text| text.parse().map_err(|_| invalid(text))).transpose()
}

fn count(key: &'static str, value: i64) -> Result<u8, InvalidHealth> {
    let valid = u8::try_from(value).ok().filter(|count| (1..=100).contains(count));
    valid.ok_or_else(|| InvalidHealth::Number(key, 1, 100, value.to_string()))
}

fn port(value: i64) -> Result<NonZeroU16, InvalidHealth> {
    let valid = u16::try_from(value).ok().and_then(NonZeroU16::new);
    valid.ok_or_else(|| InvalidHealth::Number("port", 1, 65535, value.to_string()))
}

fn fill<T>(place: &mut Option<T>, key: &'static str, value: T) -> Result<(), InvalidHealth> {
    match place.replace(value) {
        Some(_) => Err(InvalidHealth::Twice(key)),
        None => Ok(()),
    }
}

fn period(key: &'static str, value: &str) -> Result<Period, InvalidHealth> {
    value.parse().map_err(|error| InvalidHealth::Period(key, error))
}

fn number(key: &'static str, max: u16, value: &str) -> Result<i64, InvalidHealth> {
    value.parse().map_err(|_| InvalidHealth::Number(key, 1, max, value.to_owned()))
}

/// A text, or what TOML and JSON have a form of its own for: `status = 204`, `verify = false`.
fn scalar<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    struct Scalar;
    impl Visitor<'_> for Scalar {
        type Value = Option<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "a string, a number or a boolean")
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Some(text.to_owned()))
        }

        fn visit_bool<E: Error>(self, flag: bool) -> Result<Self::Value, E> {
            Ok(Some(flag.to_string()))
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
            Ok(Some(number.to_string()))
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
            Ok(Some(number.to_string()))
        }
    }
    deserializer.deserialize_any(Scalar)
}
