//! How this node runs: `/etc/lb-agent/config.toml`.

mod http;
mod reload;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::model::{Quoted, file};
pub use http::Http;
pub use reload::Reload;

/// Where the file is unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/lb-agent/config.toml";
/// Where the agent listens unless the file says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/lb-agent/lb-agent.sock";

/// The configuration of this node, validated.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the XDP program is attached.
    pub interfaces: Vec<InterfaceName>,
    /// How it is attached.
    pub xdp_mode: XdpMode,
    /// Where the desired state is kept.
    pub state_dir: PathBuf,
    /// How many revisions of it are kept.
    pub revisions: u32,
    /// The socket of the admin API.
    pub socket: PathBuf,
    /// Where programs, links and maps are pinned, on a bpffs.
    pub pin_dir: PathBuf,
    /// Whether the agent adds virtual addresses to interfaces and takes them away.
    pub manage_vips: bool,
    /// Whether the build of the program is loaded that logs its decisions.
    pub diagnostics: bool,
    /// The API over TCP.
    pub http: Option<Http>,
    /// Sizes of the tables, which are fixed once they are made.
    pub limits: Limits,
}

/// How the XDP program is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver where it can, else generic.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// After the driver, on any interface, slower.
    Generic,
}

/// The name of a network interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InterfaceName(String);

/// Sizes of the tables.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// IPv4 flows that are remembered at once.
    pub flows: u32,
    /// IPv6 flows that are; see [`Limits::flows6`].
    pub flows6: Option<u32>,
    /// Services.
    pub services: u32,
    /// Backends, counted once for each service that has them.
    pub backends: u32,
    /// Slots of a service's table: a prime.
    pub table_size: u32,
    /// Source addresses of full NAT, over all services.
    pub source_addresses: u32,
    /// Ports of each of them that full NAT takes.
    pub source_ports: PortRange,
}

/// Ports from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

/// A text that is no range of ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid range of ports {}: it is FIRST-LAST, two ports from 1 to 65535", Quoted(.0))]
pub struct InvalidPortRange(String);

/// A configuration that cannot be used. One line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {error}: name another with --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The file has an unknown key or a bad value.
    #[error(transparent)]
    Invalid(#[from] file::FileError),
    /// A value that cannot be.
    #[error("{origin}: {key} = {value} cannot be: {reason}")]
    Limit {
        /// The file.
        origin: String,
        /// The key, with its table.
        key: &'static str,
        /// What it says.
        value: String,
        /// What it may say.
        reason: String,
    },
}

/// A name that no interface can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid interface name {}: 1 to 15 bytes without white space, `/` and `:`", Quoted(.0))]
pub struct InvalidInterfaceName(String);

impl Default for Config {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            xdp_mode: XdpMode::Auto,
            state_dir: "/var/lib/lb-agent".into(),
            revisions: 20,
            socket: DEFAULT_SOCKET.into(),
            pin_dir: "/sys/fs/bpf/lb-agent".into(),
            manage_vips: true,
            diagnostics: false,
            http: None,
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: 1_000_000,
            flows6: None,
            services: 512,
            backends: 4096,
            table_size: 65_537,
            source_addresses: 4,
            // Below the ports that Linux gives connections of its own unless told otherwise.
            source_ports: PortRange { first: 1024, last: 32_767 },
        }
    }
}

impl Config {
    /// Reads the file that was named, or the default one, which may be missing.
    ///
    /// # Errors
    /// Where the file cannot be read or says something that cannot be.
    pub fn load(named: Option<&Path>) -> Result<Self, ConfigError> {
        let path = named.unwrap_or(Path::new(DEFAULT_PATH));
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self::parse(&text, &path.display().to_string())?),
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => Ok(Self::default()),
            Err(error) => Err(ConfigError::Read { path: path.to_owned(), error }),
        }
    }

    /// Reads the text of a file. `origin` names it in errors.
    pub(crate) fn parse(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let config: Self = file::read_toml(text, origin)?;
        match config.problem() {
            Some((key, value, reason)) => {
                Err(ConfigError::Limit { origin: origin.to_owned(), key, value, reason })
            }
            None => Ok(config),
        }
    }
}

impl Config {
    /// The first value that cannot be, with the reason.
    fn problem(&self) -> Option<(&'static str, String, String)> {
        let (low, high) = REVISIONS;
        let is_outside = !(low..=high).contains(&self.revisions);
        let revisions = || ("revisions", self.revisions.to_string(), format!("it is from {low} to {high}"));
        let limits = || self.limits.problem().map(|(key, value, reason)| (key, value.to_string(), reason));
        is_outside.then(revisions).or_else(limits).or_else(|| self.http.as_ref()?.problem())
    }
}

impl Limits {
    /// IPv6 flows that are remembered at once: a quarter of IPv4's, if nothing else is said. An entry takes twice the memory.
    #[must_use]
    pub const fn flows6(&self) -> u32 {
        match self.flows6 {
            Some(flows) => flows,
            None => self.flows / 4,
        }
    }

    /// The first limit that cannot be, with the reason.
    fn problem(&self) -> Option<(&'static str, u32, String)> {
        let Self { flows, flows6, services, backends, table_size, source_addresses, .. } = *self;
        let outside = |value: u32, (low, high): (u32, u32)| {
            (!(low..=high).contains(&value)).then(|| format!("it is from {low} to {high}"))
        };
        let lines = u64::from(services.saturating_add(2)) * u64::from(lb_common::slot::lines(table_size));
        let checks = [
            ("limits.flows", flows, outside(flows, FLOWS)),
            ("limits.flows6", self.flows6(), flows6.and_then(|flows| outside(flows, FLOWS6))),
            ("limits.services", services, outside(services, SERVICES)),
            ("limits.backends", backends, outside(backends, BACKENDS)),
            ("limits.table_size", table_size, outside(table_size, TABLE_SIZE)),
            ("limits.source_addresses", source_addresses, outside(source_addresses, SOURCE_ADDRESSES)),
            (
                "limits.table_size",
                table_size,
                (!is_prime(table_size)).then(|| format!("it is a prime, such as {}", next_prime(table_size))),
            ),
            (
                "limits.table_size",
                table_size,
                (lines > SLOT_LINES)
                    .then(|| format!("with services = {services} the tables do not fit: lower one of them")),
            ),
        ];
        checks.into_iter().find_map(|(key, value, reason)| Some((key, value, reason?)))
    }
}

/// Each takes as much as the state itself.
const REVISIONS: (u32, u32) = (1, 1000);
/// Beyond this the flow table alone takes gigabytes.
pub const FLOWS: (u32, u32) = (1024, 1 << 26);
/// Next to nothing where there is no IPv6.
pub const FLOWS6: (u32, u32) = (16, 1 << 26);
/// Identifiers of services and backends are 16 bits; backend 0 is nobody.
pub const SERVICES: (u32, u32) = (1, 4096);
pub const BACKENDS: (u32, u32) = (1, 65_535);
/// A row of the data plane names them by a byte.
pub const SOURCE_ADDRESSES: (u32, u32) = (1, lb_common::port::MAX_ADDRESSES);
/// A backend's share of a shorter table would be far from its weight.
const TABLE_SIZE: (u32, u32) = (251, lb_common::service::Table::MAX_SLOTS);
/// A service names the first line of its table in 24 bits.
const SLOT_LINES: u64 = 1 << 24;

/// The Maglev fill walks the table in steps of a backend's own, which reach every slot only if the size is a prime.
fn is_prime(number: u32) -> bool {
    number >= 2
        && (2..)
            .take_while(|divisor| divisor * divisor <= number)
            .all(|divisor| !number.is_multiple_of(divisor))
}

fn next_prime(number: u32) -> u32 {
    (number..).find(|&candidate| is_prime(candidate)).unwrap_or(number)
}

impl PortRange {
    /// How many ports there are.
    pub const fn count(self) -> u32 {
        (self.last - self.first) as u32 + 1
    }

    /// Whether a port is in both.
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for PortRange {
    type Err = InvalidPortRange;

    fn from_str(text: &str) -> Result<Self, InvalidPortRange> {
        let range = text.split_once('-').and_then(|(first, last)| {
            let range = Self { first: first.trim().parse().ok()?, last: last.trim().parse().ok()? };
            (range.first > 0 && range.first <= range.last).then_some(range)
        });
        range.ok_or_else(|| InvalidPortRange(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl InterfaceName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for InterfaceName {
    type Err = InvalidInterfaceName;

    /// As the kernel has it (`dev_valid_name`): 1 to 15 bytes, not `.` or `..`, without `/`, `:` and white space.
    fn from_str(name: &str) -> Result<Self, InvalidInterfaceName> {
        let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        match (1..16).contains(&name.len()) && name != "." && name != ".." && !name.contains(forbidden) {
            true => Ok(Self(name.to_owned())),
            false => Err(InvalidInterfaceName(name.to_owned())),
        }
    }
}

impl<'de> Deserialize<'de> for InterfaceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_ports_has_two_ends() {
        let range = |text: &str| text.parse::<PortRange>();
        assert_eq!(range("20000-20009").map(PortRange::count), Ok(10));
        assert_eq!(range("7-7").unwrap().to_string(), "7-7");
        for text in ["", "80", "0-9", "9-8", "1-65536", "a-b", "1-2-3"] {
            assert_eq!(
                range(text).unwrap_err().to_string(),
                format!("invalid range of ports `{text}`: it is FIRST-LAST, two ports from 1 to 65535")
            );
        }
        let local = range("32768-60999").unwrap();
        assert!(!Limits::default().source_ports.overlaps(local));
        assert!(range("60999-61000").unwrap().overlaps(local));
    }

    fn refusal(text: &str) -> String {
        Config::parse(text, "config.toml").unwrap_err().to_string()
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(Config::parse("", "config.toml").unwrap(), Config::default());
    }

    #[test]
    fn every_key_is_taken() {
        let text = r#"
            interfaces = ["eth0", "eth1"]
            xdp_mode = "native"
            state_dir = "/a"
            revisions = 5
            socket = "/b"
            pin_dir = "/c"
            manage_vips = false
            diagnostics = true
            [http]
            listen = "[::1]:9600"
            token_file = "/t"
            cert_file = "/c"
            key_file = "/k"
            [limits]
            flows = 65536
            flows6 = 1024
            services = 16
            backends = 64
            table_size = 251
        "#;
        let config = Config::parse(text, "config.toml").unwrap();
        let expected = Config {
            interfaces: vec!["eth0".parse().unwrap(), "eth1".parse().unwrap()],
            xdp_mode: XdpMode::Native,
            state_dir: "/a".into(),
            revisions: 5,
            socket: "/b".into(),
            pin_dir: "/c".into(),
            manage_vips: false,
            diagnostics: true,
            http: Some(Http {
                listen: "[::1]:9600".parse().unwrap(),
                token_file: Some("/t".into()),
                cert_file: Some("/c".into()),
                key_file: Some("/k".into()),
            }),
            limits: Limits {
                flows: 65_536,
                flows6: Some(1024),
                services: 16,
                backends: 64,
                table_size: 251,
                ..Limits::default()
            },
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn each_bad_file_has_its_message() {
        let cases = [
            (
                "\ninterface = [\"eth0\"]\n",
                "config.toml line 2, `interface = [\"eth0\"]`: unknown key `interface`, expected one of `interfaces`, `xdp_mode`, `state_dir`, `revisions`, `socket`, `pin_dir`, `manage_vips`, `diagnostics`, `http`, `limits`",
            ),
            (
                "[limits]\nflow = 1\n",
                "config.toml line 2, `flow = 1`: unknown key `flow`, expected one of `flows`, `flows6`, `services`, `backends`, `table_size`, `source_addresses`, `source_ports`",
            ),
            (
                "[http]\nlisten = \"localhost:9600\"\n",
                "config.toml line 2, `listen = \"localhost:9600\"`: invalid socket address syntax",
            ),
            (
                "[http]\nlisten = \"0.0.0.0:9600\"\n",
                "config.toml: http.listen = \"0.0.0.0:9600\" cannot be: beyond loopback nobody is let in without a token: set http.token_file",
            ),
            (
                "[http]\nlisten = \"127.0.0.1:9600\"\ncert_file = \"/c\"\n",
                "config.toml: http.cert_file = \"/c\" cannot be: it needs http.key_file",
            ),
            (
                "xdp_mode = \"offload\"\n",
                "config.toml line 1, `xdp_mode = \"offload\"`: unknown variant `offload`, expected one of `auto`, `native`, `generic`",
            ),
            (
                "interfaces = [\"a/b\"]\n",
                "config.toml line 1, `interfaces = [\"a/b\"]`: invalid interface name `a/b`: 1 to 15 bytes without white space, `/` and `:`",
            ),
            (
                "[limits]\ntable_size = 65536\n",
                "config.toml: limits.table_size = 65536 cannot be: it is a prime, such as 65537",
            ),
            ("revisions = 0\n", "config.toml: revisions = 0 cannot be: it is from 1 to 1000"),
            ("[limits]\nbackends = 0\n", "config.toml: limits.backends = 0 cannot be: it is from 1 to 65535"),
            (
                "[limits]\nservices = 4096\ntable_size = 655357\n",
                "config.toml: limits.table_size = 655357 cannot be: with services = 4096 the tables do not fit: lower one of them",
            ),
            (
                "[limits]\nflows6 = 15\n",
                "config.toml: limits.flows6 = 15 cannot be: it is from 16 to 67108864",
            ),
            (
                "[limits]\nflows = -1\n",
                "config.toml line 2, `flows = -1`: invalid value: integer `-1`, expected u32",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(refusal(text), message);
        }
    }

    #[test]
    fn the_documented_file_is_the_defaults() {
        let text = include_str!("../../../docs/configuration.md");
        let examples = file::tests::examples(text, "toml config");
        let documented = Config { interfaces: vec!["eth0".parse().unwrap()], ..Config::default() };
        assert_eq!(examples.len(), 2);
        assert!(Config::parse(examples[1], "configuration.md").unwrap().http.is_some());
        assert_eq!(Config::parse(examples[0], "configuration.md").unwrap(), documented);
    }

    #[test]
    fn only_the_default_file_may_be_missing() {
        let error = Config::load(Some(Path::new("/nonexistent/config.toml"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read the configuration /nonexistent/config.toml: No such file or directory (os error 2): name another with --config"
        );
    }

    #[test]
    fn primes_are_told_from_the_rest() {
        let primes: Vec<_> = (0..30).filter(|&number| is_prime(number)).collect();
        assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
        assert!(is_prime(65_537) && !is_prime(65_535));
    }
}
