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
/// Held as two words, as they are loaded from the wire: compared and copied by two instructions each.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(pub [u64; 2]);

impl Address {
    /// The mapped form of an IPv4 address.
    #[inline(always)]
    pub const fn from_v4(address: Be32) -> Self {
        Self([0, (address.0 as u64) << 32 | MAPPED])
    }

    /// The IPv4 address, given that it is one.
    #[inline(always)]
    pub const fn v4(&self) -> Be32 {
        Be32((self.0[1] >> 32) as u32)
    }

    /// Whether this is an IPv4 address in its mapped form.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] & 0xffff_ffff == MAPPED
    }

    /// The 16 bytes of a packet.
    #[inline(always)]
    pub const fn from_wire(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self([u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])])
    }

    /// The 16 bytes for a packet.
    #[inline(always)]
    pub const fn to_wire(&self) -> [u8; 16] {
        let [a, b, c, d, e, f, g, h] = self.0[0].to_ne_bytes();
        let [i, j, k, l, m, n, o, p] = self.0[1].to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// Four words, as the kernel's interfaces have them.
    #[inline(always)]
    pub const fn words(&self) -> [Be32; 4] {
        let [head, tail] = self.0;
        [Be32(head as u32), Be32((head >> 32) as u32), Be32(tail as u32), Be32((tail >> 32) as u32)]
    }
}

/// Bytes 8 to 11 of a mapped address, as loaded: 00 00 ff ff.
const MAPPED: u64 = Be32::new(0xffff).0 as u64;

// The words are loaded little endian wherever this runs beside BPF (`bpfel`); elsewhere `v4` would look at the wrong half.
const _: () = assert!(cfg!(target_endian = "little"));

impl core::fmt::Debug for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", IpAddr::from(*self))
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
