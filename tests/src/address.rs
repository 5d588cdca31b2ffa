//! Who has which address, in every topology.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The client, on the balancer's front network 10.0.0.0/24.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
/// The client, on the balancer's front network fd00:a::/64.
pub const CLIENT_V6: Ipv6Addr = front(0x10);
/// The balancer on the front network.
pub const FRONT_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The balancer on the front network.
pub const FRONT_V6: Ipv6Addr = front(1);
/// The VIP that most tests use; on the front network, but not configured by the topology.
pub const VIP_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
/// The VIP that most tests use; on the front network, but not configured by the topology.
pub const VIP_V6: Ipv6Addr = front(0x100);
/// The backends' default gateway on their network 10.0.1.0/24: the balancer, or the far router of a narrow path.
pub const BACK_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
/// The backends' default gateway on their network fd00:b::/64.
pub const BACK_V6: Ipv6Addr = back(1);

/// The n-th backend, counted from 0: 10.0.1.11 and on.
#[must_use]
pub const fn backend_v4(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, 11 + index)
}

/// The n-th backend, counted from 0: fd00:b::11, fd00:b::12, ... (the same digits as its IPv4 address).
#[must_use]
pub const fn backend_v6(index: u8) -> Ipv6Addr {
    let decimal = 11 + index as u16;
    back(((decimal / 100) << 8) | ((decimal / 10 % 10) << 4) | (decimal % 10))
}

const fn front(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0xa, 0, 0, 0, 0, 0, host)
}

const fn back(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0xb, 0, 0, 0, 0, 0, host)
}

/// An IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The lab's VIP of this family.
    #[must_use]
    pub fn vip(self) -> IpAddr {
        match self {
            Self::V4 => VIP_V4.into(),
            Self::V6 => VIP_V6.into(),
        }
    }

    /// 4 or 6, as in `IPv4`.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_addresses_of_a_backend_show_the_same_digits() {
        assert_eq!(backend_v4(0).to_string(), "10.0.1.11");
        assert_eq!(backend_v6(0).to_string(), "fd00:b::11");
        assert_eq!(backend_v4(9).to_string(), "10.0.1.20");
        assert_eq!(backend_v6(9).to_string(), "fd00:b::20");
        assert_eq!(backend_v6(99).to_string(), "fd00:b::110");
    }
}
