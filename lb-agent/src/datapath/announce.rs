//! Tells the neighbours of an interface that an address is here now.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use lb_common::checksum::fold;

use super::netlink::Interface;

const BROADCAST: [u8; 6] = [0xff; 6];
/// All nodes, `ff02::1`, as Ethernet has it (RFC 2464 section 7).
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Sends a gratuitous ARP or an unsolicited neighbour advertisement. An interface without a link-layer address of
/// Ethernet's kind has no neighbours to tell.
pub(super) fn announce(interface: &Interface, address: IpAddr) -> io::Result<()> {
    let Some(mac) = interface.mac.filter(|_| !interface.loopback) else { return Ok(()) };
    let frame = match address {
        IpAddr::V4(address) => arp_announcement(mac, address),
        IpAddr::V6(address) => neighbour_advertisement(mac, address),
    };
    send(interface.index, &frame)
}

/// RFC 5227 section 2.3: an ARP request for one's own address.
fn arp_announcement(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(60);
    frame.extend(BROADCAST);
    frame.extend(mac);
    frame.extend([0x08, 0x06]);
    // Ethernet and IPv4, 6 and 4 bytes long, request.
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(address.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    // The shortest frame that Ethernet takes, without its check sequence.
    frame.resize(60, 0);
    frame
}

/// RFC 4861 sections 4.4 and 7.2.6: unsolicited, overriding what neighbours have cached.
fn neighbour_advertisement(mac: [u8; 6], address: Ipv6Addr) -> Vec<u8> {
    // Type 136, code 0, checksum; flags: router and override.
    let mut message = vec![136, 0, 0, 0, 0xa0, 0, 0, 0];
    message.extend(address.octets());
    // Option 2, one unit of 8 bytes: the target's link-layer address.
    message.extend([2, 1]);
    message.extend(mac);
    let checksum = icmpv6_checksum(address, ALL_NODES, &message);
    message[2..4].copy_from_slice(&checksum);

    let mut frame = Vec::with_capacity(86);
    frame.extend(ALL_NODES_MAC);
    frame.extend(mac);
    frame.extend([0x86, 0xdd]);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((message.len() as u16).to_be_bytes());
    // Next header ICMPv6; hop limit 255, or it is ignored (section 7.1.2).
    frame.extend([58, 255]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    frame
}

/// RFC 8200 section 8.1: over a pseudo-header and the message.
fn icmpv6_checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> [u8; 2] {
    let words = |bytes: &[u8]| -> u64 {
        bytes.chunks_exact(2).map(|pair| u64::from(u16::from_ne_bytes([pair[0], pair[1]]))).sum()
    };
    let length = (message.len() as u32).to_be_bytes();
    let sum = words(&source.octets())
        + words(&destination.octets())
        + words(&length)
        + words(&[0, 0, 0, 58])
        + words(message);
    (!fold(sum)).to_ne_bytes()
}

fn send(interface: u32, frame: &[u8]) -> io::Result<()> {
    // SAFETY: no pointers. Protocol 0: the socket receives nothing.
    let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: a plain C struct; all zeros is valid.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_ifindex = interface as i32;
    // SAFETY: both pointers are to live objects of the lengths told.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_ll>() as u32,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    #[test]
    fn an_arp_announcement_asks_for_its_own_address() {
        let frame = arp_announcement(MAC, Ipv4Addr::new(10, 0, 0, 100));
        assert_eq!(frame.len(), 60);
        assert_eq!(frame[12..22], [8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(frame[22..42], [2, 0, 0, 0, 0, 1, 10, 0, 0, 100, 0, 0, 0, 0, 0, 0, 10, 0, 0, 100]);
    }

    /// The checksum was worked out apart from this code.
    #[test]
    fn a_neighbour_advertisement_has_a_valid_checksum() {
        let address: Ipv6Addr = "fd00::100".parse().unwrap();
        let frame = neighbour_advertisement(MAC, address);
        assert_eq!(frame.len(), 86);
        assert_eq!(frame[54..58], [136, 0, 0xd8, 0x9c]);
        // A receiver sums everything, the checksum included, to all ones.
        assert_eq!(icmpv6_checksum(address, ALL_NODES, &frame[54..]), [0, 0]);
    }
}
