//! Values that are one word of a short list.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::quote::Quoted;

/// A word that is not on the list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} {}: valid are {valid}", Quoted(word))]
pub struct UnknownKeyword {
    what: &'static str,
    word: String,
    valid: String,
}

impl UnknownKeyword {
    /// The same, where one more word would have been valid.
    pub fn or(mut self, word: &str) -> Self {
        self.valid = format!("{}, {word}", self.valid);
        self
    }
}

/// Defines an enum that is written as one word, in files, on the command line and in the API alike.
macro_rules! keyword {
    ($(#[$meta:meta])* $name:ident, $what:literal { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)*
        }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The word it is written as.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $name {
            type Err = UnknownKeyword;

            fn from_str(word: &str) -> Result<Self, UnknownKeyword> {
                Self::ALL.iter().copied().find(|known| known.name() == word).ok_or_else(|| UnknownKeyword {
                    what: $what,
                    word: word.to_owned(),
                    valid: Self::ALL.iter().map(|known| known.name()).collect::<Vec<_>>().join(", "),
                })
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                let words = Self::ALL.iter().map(|known| known.name());
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::Type::String)
                    .enum_values(Some(words))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

keyword! {
    /// The transport protocol of a service.
    Protocol, "protocol" {
        /// Transmission Control Protocol.
        #[default]
        Tcp = "tcp",
        /// User Datagram Protocol.
        Udp = "udp",
    }
}

keyword! {
    /// How new flows are spread over the backends.
    Strategy, "strategy" {
        /// Maglev table, hash of the flow.
        #[default]
        Maglev = "maglev",
        /// Weighted rendezvous winner per slot, hash of the flow: a change moves the fewest slots possible.
        ConsistentHash = "consistent-hash",
        /// Maglev table, hash of the client's address: all flows of a client go to one backend.
        SourceHash = "source-hash",
        /// Each backend in turn, as often as its weight says.
        RoundRobin = "round-robin",
        /// Any backend, by weight.
        Random = "random",
        /// Of two random backends the one with fewer active flows for its weight.
        LeastConnections = "least-connections",
        /// Of two random backends the one whose handshakes take less time, for its active flows and its weight.
        LeastLatency = "least-latency",
        /// Any backend, by weight and by what the backends report of their load.
        ResourceBased = "resource-based",
    }
}

impl Strategy {
    /// Whether a flow's backend can be computed from its packets.
    pub const fn is_hash(self) -> bool {
        matches!(self, Self::Maglev | Self::ConsistentHash | Self::SourceHash)
    }

    /// Whether it is computed from the client's address alone.
    pub const fn hashes_source(self) -> bool {
        matches!(self, Self::SourceHash)
    }
}

keyword! {
    /// How packets get to a backend.
    Mode, "mode" {
        /// The destination is rewritten; replies come back through the balancer.
        #[default]
        Dnat = "dnat",
        /// Both ends are rewritten: backends see an address and a port of the source pool.
        FullNat = "full-nat",
    }
}

keyword! {
    /// Which flows are remembered.
    Track, "track" {
        /// Every flow.
        #[default]
        Full = "full",
        /// Those whose slot has changed hands since they may have begun; hash strategies only.
        Exceptions = "exceptions",
    }
}

keyword! {
    /// What a new flow meets while no backend takes traffic.
    OnNoBackend, "on-no-backend" {
        /// A TCP reset, or an ICMP "port unreachable" for UDP.
        #[default]
        Reset = "reset",
        /// Nothing.
        Drop = "drop",
    }
}

keyword! {
    /// What a flow meets whose backend is dead or removed.
    OnBackendDown, "on-backend-down" {
        /// Another backend.
        #[default]
        Rebalance = "rebalance",
        /// A TCP reset, or an ICMP "port unreachable" for UDP.
        Reset = "reset",
    }
}

keyword! {
    /// Whether a connection that its backend refuses or does not answer is given another.
    Retry, "retry" {
        /// No: the client gets the refusal.
        #[default]
        Off = "off",
        /// Yes, at once, up to three times.
        On = "on",
    }
}

keyword! {
    /// What the operator wants of a backend.
    Admin, "admin" {
        /// Takes new flows while it is fit.
        #[default]
        Enabled = "enabled",
        /// Takes no new flows; those that it has stay.
        Draining = "draining",
        /// As draining, and it is not checked: it may be down without being declared dead.
        Maintenance = "maintenance",
    }
}

keyword! {
    /// What a health check does.
    HealthType, "health type" {
        /// Opens a TCP connection.
        #[default]
        Tcp = "tcp",
        /// Sends an HTTP request.
        Http = "http",
        /// Sends one over TLS.
        Https = "https",
        /// Asks a gRPC server for its health.
        Grpc = "grpc",
        /// Sends a datagram.
        Udp = "udp",
        /// Sends an ICMP echo request.
        Icmp = "icmp",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_parses_to_its_value() {
        for strategy in Strategy::ALL {
            assert_eq!(strategy.name().parse(), Ok(*strategy));
        }
    }

    #[test]
    fn an_unknown_word_is_refused_with_the_valid_ones() {
        let error = "weighted".parse::<Strategy>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown strategy `weighted`: valid are maglev, consistent-hash, source-hash, round-robin, random, \
             least-connections, least-latency, resource-based"
        );
        assert_eq!(
            "TCP".parse::<Protocol>().unwrap_err().to_string(),
            "unknown protocol `TCP`: valid are tcp, udp"
        );
    }
}
