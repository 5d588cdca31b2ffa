//! What differs between IPv4 and IPv6, so that nothing else has to be written twice.

use lb_common::address::{Address, Be16, Be32, Protocol};
use lb_common::checksum::Delta;
use lb_common::directory;
use lb_common::flow::{Bucket, Key, Key4, Key6};
use lb_common::hash::{mix, mix3, scale};

use crate::frame::{Fields, FieldsMut, Frame};
use crate::open::Opening;
use crate::tables::Tables;

/// One of the two address families.
pub trait Family: Copy + core::fmt::Debug {
    /// An address as packets of this family carry it.
    type Address: Copy + PartialEq + core::fmt::Debug;
    /// The key of this family's flows.
    type Key: Key;

    /// EtherType (RFC 894, RFC 2464).
    const ETHERTYPE: Be16;
    /// Bytes of a header without options or extensions.
    const HEADER: usize;
    /// Where in a header its TTL or hop limit is.
    const HOP_LIMIT: usize;
    /// The ICMP that belongs to it.
    const ICMP: Protocol;
    /// Whether the header has a checksum of its own, and the ICMP checksum covers no addresses.
    const HEADER_CHECKSUM: bool;
    /// Whether other headers may stand between the IP header and the transport header.
    const HAS_EXTENSIONS: bool;

    /// This family's form of a row's address.
    fn narrow(address: &Address) -> Self::Address;
    /// The form that rows and queries have.
    fn widen(address: Self::Address) -> Address;

    /// The address of an IP header at `at`: the sender's, or the receiver's.
    fn read_address<F: Frame>(frame: &F, at: usize, side: Side) -> Option<Self::Address>;
    /// Writes it. The header's checksum is the caller's business.
    fn write_address<F: Frame>(frame: &mut F, at: usize, side: Side, address: Self::Address) -> Option<()>;

    /// Writes an address, TTL or hop limit, and what they do to the header's checksum if there is one.
    fn rewrite<F: Frame>(
        frame: &mut F,
        at: usize,
        end: (Side, Self::Address),
        hop_limit: u8,
        address: Delta,
    ) -> Option<()>;

    /// Hash of an endpoint in the directory.
    fn directory_hash(address: Self::Address, port: Be16, protocol: Protocol, key: u64) -> u64;
    /// The key of a client's flow to a service.
    fn key(client: Self::Address, port: Be16, service: u16) -> Self::Key;
    /// Hash that picks a slot: of what the client sent, under the service's seed, equal on every node.
    fn slot_hash(client: Self::Address, port: Be16, seed: u64) -> u64;
    /// Where the next hop towards a client is remembered if its flow has no entry: a hash, and what tells the client
    /// apart from others there, in the bits that [`CLIENT_TAG`] has.
    fn client_hop(client: Self::Address, key: u64) -> (u64, u64);
    /// This family's flow table: the bucket that the upper half of a hash chooses.
    fn bucket<T: Tables>(tables: &T, hash: u64) -> Option<&Bucket<Self::Key>>;
    /// Settles on a backend with a shared endpoint, or another: see [`crate::clash::settle`].
    fn settle<T: Tables>(tables: &T, opening: &Opening<Self>, chosen: u16) -> u16;
    /// The backend that affinity asks for: see [`crate::affinity::prefer`].
    fn prefer<T: Tables>(tables: &T, opening: &Opening<Self>) -> u64;
    /// The backend that a flow may go to next: see [`crate::retry::next`].
    fn next<T: Tables>(tables: &T, flow: &Opening<Self>, excluded: u64) -> u16;
    /// Picks the backend of a flow, and remembers it: see [`crate::open::open`].
    fn open<T: Tables>(tables: &T, opening: &Opening<Self>) -> u64;
    /// Whether packets may come from this address: not unspecified, loopback, multicast or broadcast
    /// (RFC 1122 section 3.2.1.3; RFC 4291 section 2.7). Answering such a source would reach others.
    fn is_unicast(address: Self::Address) -> bool;
}

/// The bits of a remembered client's word that are not the next hop's identifier.
pub const CLIENT_TAG: u64 = !0xfff;

/// One of the two ends of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// IPv4 (RFC 791).
#[derive(Clone, Copy, Debug)]
pub struct Ipv4;

/// IPv6 (RFC 8200).
#[derive(Clone, Copy, Debug)]
pub struct Ipv6;

impl Family for Ipv4 {
    type Address = Be32;
    type Key = Key4;

    const ETHERTYPE: Be16 = Be16::new(0x0800);
    const HEADER: usize = 20;
    const HOP_LIMIT: usize = 8;
    const ICMP: Protocol = Protocol::ICMP;
    const HEADER_CHECKSUM: bool = true;
    const HAS_EXTENSIONS: bool = false;

    #[inline(always)]
    fn narrow(address: &Address) -> Be32 {
        address.v4()
    }

    #[inline(always)]
    fn widen(address: Be32) -> Address {
        Address::from_v4(address)
    }

    #[inline(always)]
    fn read_address<F: Frame>(frame: &F, at: usize, side: Side) -> Option<Be32> {
        frame.read::<4>(at + offset4(side)).map(Be32::from_wire)
    }

    #[inline(always)]
    fn write_address<F: Frame>(frame: &mut F, at: usize, side: Side, address: Be32) -> Option<()> {
        frame.write(at + offset4(side), address.to_wire())?;
        Some(())
    }

    #[inline(always)]
    fn rewrite<F: Frame>(
        frame: &mut F,
        at: usize,
        (side, address): (Side, Be32),
        hop_limit: u8,
        delta: Delta,
    ) -> Option<()> {
        let mut header = frame.fields_mut::<20>(at)?;
        match side {
            Side::Source => header.set::<12, 4>(address.to_wire()),
            Side::Destination => header.set::<16, 4>(address.to_wire()),
        }
        let old = header.get::<8, 2>();
        header.set::<8, 1>([hop_limit]);
        let delta = delta.and(Delta::word(u16::from_ne_bytes(old), u16::from_ne_bytes([hop_limit, old[1]])));
        let checksum = u16::from_ne_bytes(header.get::<10, 2>());
        header.set::<10, 2>(delta.apply(checksum).to_ne_bytes());
        Some(())
    }

    #[inline(always)]
    fn directory_hash(address: Be32, port: Be16, protocol: Protocol, key: u64) -> u64 {
        directory::hash4(address, port, protocol, key)
    }

    #[inline(always)]
    fn key(client: Be32, port: Be16, service: u16) -> Key4 {
        Key4::new(client, port, service)
    }

    #[inline(always)]
    fn slot_hash(client: Be32, port: Be16, seed: u64) -> u64 {
        mix((client.0 as u64) << 16 | port.0 as u64, seed)
    }

    #[inline(always)]
    fn client_hop(client: Be32, key: u64) -> (u64, u64) {
        (mix(client.0 as u64, key), (client.0 as u64) << 32)
    }

    #[inline(always)]
    fn bucket<T: Tables>(tables: &T, hash: u64) -> Option<&Bucket<Key4>> {
        tables.flows4(scale(hash, tables.settings().flow4_buckets))
    }

    #[inline(always)]
    fn settle<T: Tables>(tables: &T, opening: &Opening<Self>, chosen: u16) -> u16 {
        tables.settle4(opening, chosen)
    }

    #[inline(always)]
    fn prefer<T: Tables>(tables: &T, opening: &Opening<Self>) -> u64 {
        tables.prefer4(opening)
    }

    #[inline(always)]
    fn next<T: Tables>(tables: &T, flow: &Opening<Self>, excluded: u64) -> u16 {
        tables.next4(flow, excluded)
    }

    #[inline(always)]
    fn open<T: Tables>(tables: &T, opening: &Opening<Self>) -> u64 {
        tables.open4(opening)
    }

    #[inline(always)]
    fn is_unicast(address: Be32) -> bool {
        let first = address.get() >> 24;
        first != 0 && first != 127 && first < 224
    }
}

#[inline(always)]
const fn offset4(side: Side) -> usize {
    match side {
        Side::Source => 12,
        Side::Destination => 16,
    }
}

impl Family for Ipv6 {
    type Address = Address;
    type Key = Key6;

    const ETHERTYPE: Be16 = Be16::new(0x86dd);
    const HEADER: usize = 40;
    const HOP_LIMIT: usize = 7;
    const ICMP: Protocol = Protocol::ICMPV6;
    const HEADER_CHECKSUM: bool = false;
    const HAS_EXTENSIONS: bool = true;

    #[inline(always)]
    fn narrow(address: &Address) -> Address {
        *address
    }

    #[inline(always)]
    fn widen(address: Address) -> Address {
        address
    }

    #[inline(always)]
    fn read_address<F: Frame>(frame: &F, at: usize, side: Side) -> Option<Address> {
        frame.read::<16>(at + offset6(side)).map(Address::from_wire)
    }

    #[inline(always)]
    fn write_address<F: Frame>(frame: &mut F, at: usize, side: Side, address: Address) -> Option<()> {
        frame.write(at + offset6(side), address.to_wire())?;
        Some(())
    }

    #[inline(always)]
    fn rewrite<F: Frame>(
        frame: &mut F,
        at: usize,
        (side, address): (Side, Address),
        hop_limit: u8,
        _: Delta,
    ) -> Option<()> {
        let mut header = frame.fields_mut::<40>(at)?;
        match side {
            Side::Source => header.set::<8, 16>(address.to_wire()),
            Side::Destination => header.set::<24, 16>(address.to_wire()),
        }
        header.set::<7, 1>([hop_limit]);
        Some(())
    }

    #[inline(always)]
    fn directory_hash(address: Address, port: Be16, protocol: Protocol, key: u64) -> u64 {
        directory::hash6(&address, port, protocol, key)
    }

    #[inline(always)]
    fn key(client: Address, port: Be16, service: u16) -> Key6 {
        Key6::new(&client, port, service)
    }

    #[inline(always)]
    fn slot_hash(client: Address, port: Be16, seed: u64) -> u64 {
        mix3([client.0[0], client.0[1], port.0 as u64], seed)
    }

    /// 51 bits of hash for the tag, where an IPv4 address is held whole, and a bit that no IPv4 tag has.
    #[inline(always)]
    fn client_hop(client: Address, key: u64) -> (u64, u64) {
        let hash = mix3([client.0[0], client.0[1], 0], key);
        (hash, mix(hash, client.0[1]) & CLIENT_TAG | 1 << 12)
    }

    #[inline(always)]
    fn bucket<T: Tables>(tables: &T, hash: u64) -> Option<&Bucket<Key6>> {
        tables.flows6(scale(hash, tables.settings().flow6_buckets))
    }

    #[inline(always)]
    fn settle<T: Tables>(tables: &T, opening: &Opening<Self>, chosen: u16) -> u16 {
        tables.settle6(opening, chosen)
    }

    #[inline(always)]
    fn prefer<T: Tables>(tables: &T, opening: &Opening<Self>) -> u64 {
        tables.prefer6(opening)
    }

    #[inline(always)]
    fn next<T: Tables>(tables: &T, flow: &Opening<Self>, excluded: u64) -> u16 {
        tables.next6(flow, excluded)
    }

    #[inline(always)]
    fn open<T: Tables>(tables: &T, opening: &Opening<Self>) -> u64 {
        tables.open6(opening)
    }

    #[inline(always)]
    fn is_unicast(address: Address) -> bool {
        let multicast = address.0[0] & 0xff == 0xff;
        let unspecified_or_loopback = address.0[0] == 0 && u64::from_be(address.0[1]) <= 1;
        !multicast && !unspecified_or_loopback
    }
}

#[inline(always)]
const fn offset6(side: Side) -> usize {
    match side {
        Side::Source => 8,
        Side::Destination => 24,
    }
}
