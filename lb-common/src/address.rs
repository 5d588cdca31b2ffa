//! Addresses, ports and protocols, with the byte order in the type.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A 16-bit field as it stands on the wire.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Be16(pub u16);

impl Be16 {
    /// From the number.
    #[inline(always)]
    pub const fn new(value: u16) -> Self {
        Self(value.to_be())
    }

    /// From the two bytes of a packet.
    #[inline(always)]
    pub const fn from_wire(bytes: [u8; 2]) -> Self {
        Self(u16::from_ne_bytes(bytes))
    }

    /// The number.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }

    /// The two bytes for a packet.
    #[inline(always)]
    pub const fn to_wire(self) -> [u8; 2] {
        self.0.to_ne_bytes()
    }
}

/// A 32-bit field as it stands on the wire, an IPv4 address above all.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Be32(pub u32);

impl Be32 {
    /// From the number.
    #[inline(always)]
    pub const fn new(value: u32) -> Self {
        Self(value.to_be())
    }

    /// From the four bytes of a packet.
    #[inline(always)]
    pub const fn from_wire(bytes: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(bytes))
    }

    /// The number.
    #[inline(always)]
    pub const fn get(self) -> u32 {
        u32::from_be(self.0)
    }

    /// The four bytes for a packet.
    #[inline(always)]
    pub const fn to_wire(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }
}

/// An IPv4 or IPv6 address in 16 bytes; IPv4 as `::ffff:a.b.c.d` (RFC 4291 section 2.5.5.2).
///
/// Held as four words so that a row can be read four bytes at a time whatever its alignment.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(pub [Be32; 4]);

impl Address {
    /// The mapped form of an IPv4 address.
    #[inline(always)]
    pub const fn from_v4(address: Be32) -> Self {
        Self([Be32(0), Be32(0), Be32::new(0xffff), address])
    }

    /// The IPv4 address, given that it is one.
    #[inline(always)]
    pub const fn v4(&self) -> Be32 {
        self.0[3]
    }

    /// Whether this is an IPv4 address in its mapped form.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0].0 == 0 && self.0[1].0 == 0 && self.0[2].get() == 0xffff
    }

    /// The 16 bytes of a packet.
    #[inline(always)]
    pub const fn from_wire(bytes: [u8; 16]) -> Self {
        let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3] = bytes;
        Self([
            Be32::from_wire([a0, a1, a2, a3]),
            Be32::from_wire([b0, b1, b2, b3]),
            Be32::from_wire([c0, c1, c2, c3]),
            Be32::from_wire([d0, d1, d2, d3]),
        ])
    }

    /// The 16 bytes for a packet.
    #[inline(always)]
    pub const fn to_wire(&self) -> [u8; 16] {
        let [a, b, c, d] =
            [self.0[0].to_wire(), self.0[1].to_wire(), self.0[2].to_wire(), self.0[3].to_wire()];
        [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::from_v4(Be32::from_wire(v4.octets())),
            IpAddr::V6(v6) => Self::from_wire(v6.octets()),
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        if address.is_v4() {
            IpAddr::V4(Ipv4Addr::from(address.v4().to_wire()))
        } else {
            IpAddr::V6(Ipv6Addr::from(address.to_wire()))
        }
    }
}

/// An IP protocol number (IPv4 `protocol`, IPv6 `next header`), kept apart from EtherTypes by its type.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP for IPv4 (RFC 792).
    pub const ICMP: Self = Self(1);
    /// TCP (RFC 9293).
    pub const TCP: Self = Self(6);
    /// UDP (RFC 768).
    pub const UDP: Self = Self(17);
    /// ICMP for IPv6 (RFC 4443).
    pub const ICMPV6: Self = Self(58);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_there_and_back() {
        for text in ["10.0.0.100", "255.255.255.255", "::1", "fd00:200::1", "::fffe:0:1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Address::from(address)), address);
        }
    }

    #[test]
    fn wire_order_is_kept() {
        assert_eq!(Be16::new(80).to_wire(), [0, 80]);
        assert_eq!(Be32::from_wire([10, 0, 0, 1]).get(), 0x0a00_0001);
        assert_eq!(
            Address::from_v4(Be32::from_wire([10, 0, 0, 1])).to_wire()[10..],
            [0xff, 0xff, 10, 0, 0, 1]
        );
    }
}
