//! What a service and an endpoint are known by, apart from the rows that they have got.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use lb_common::{Address, Be16, Protocol};

use crate::model;

/// An address, port and protocol: a service's virtual one or a backend's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Endpoint {
    pub(crate) address: Address,
    pub(crate) port: Be16,
    pub(crate) protocol: Protocol,
}

impl Endpoint {
    /// The endpoint at a socket address.
    pub(crate) fn new(address: SocketAddr, protocol: model::Protocol) -> Self {
        Self { address: address.ip().into(), port: Be16::new(address.port()), protocol: number(protocol) }
    }

    /// Address and port.
    pub(crate) fn socket(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::from(self.address), self.port.get())
    }

    /// TCP or UDP, as the control plane names them.
    pub(crate) fn transport(&self) -> model::Protocol {
        match self.protocol {
            Protocol::UDP => model::Protocol::Udp,
            _ => model::Protocol::Tcp,
        }
    }
}

/// `10.0.0.100:80/tcp`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.transport() {
            model::Protocol::Tcp => "tcp",
            model::Protocol::Udp => "udp",
        };
        write!(f, "{}/{protocol}", self.socket())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The protocol's number on the wire.
pub(crate) const fn number(protocol: model::Protocol) -> Protocol {
    match protocol {
        model::Protocol::Tcp => Protocol::TCP,
        model::Protocol::Udp => Protocol::UDP,
    }
}
