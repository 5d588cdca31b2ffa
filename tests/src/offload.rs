//! Offloads of a network interface, set by the ethtool ioctl: one program less to install, and it is explicit.

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, SocketType, socket};

use crate::netns::Namespace;

/// linux/ethtool.h: the commands to set one offload each; they all take `struct ethtool_value`.
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_STSO: u32 = 0x1f;
const ETHTOOL_SGSO: u32 = 0x24;
const ETHTOOL_SGRO: u32 = 0x2c;

/// linux/ethtool.h: `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    value: u32,
}

/// Makes one end of a veth pair behave like a wire with an XDP load balancer on it.
///
/// * *Transmit checksum off.* A veth end hands frames over in memory, so by default the sender's stack leaves the TCP
///   and UDP checksum half done (`CHECKSUM_PARTIAL`) and nobody notices. XDP sees the half-done bytes, updates them
///   incrementally and sends on what is now plain wrong.
/// * *Segmentation off (TSO, GSO).* Follows from the above: 64-kB frames are not what a wire carries, and a veth in XDP
///   mode drops them.
/// * *GRO on.* A frame that XDP redirects into a veth is received by the peer's NAPI, which runs only while the peer has
///   an XDP program or GRO; without it `veth_xdp_xmit` drops the frame without a word. For `XDP_TX` see
///   [`crate::xdp_pass`].
///
/// # Errors
/// When there is no such interface, or it cannot do one of them.
pub fn behave_like_a_wire(namespace: &Namespace, interface: &str) -> Result<()> {
    let settings = [(ETHTOOL_STXCSUM, 0), (ETHTOOL_STSO, 0), (ETHTOOL_SGSO, 0), (ETHTOOL_SGRO, 1)];
    namespace
        .run(|| settings.iter().try_for_each(|&(command, value)| set(interface, command, value)))
        .with_context(|| format!("cannot set the offloads of {interface} in namespace {}", namespace.name()))
}

/// Turns GRO of one end of a veth pair off. Without an XDP program there either, the end has no NAPI, and the kernel takes
/// no XDP frame for it.
///
/// # Errors
/// When there is no such interface.
pub fn turn_gro_off(namespace: &Namespace, interface: &str) -> Result<()> {
    namespace
        .run(|| set(interface, ETHTOOL_SGRO, 0))
        .with_context(|| format!("cannot turn GRO of {interface} off in namespace {}", namespace.name()))
}

fn set(interface: &str, command: u32, value: u32) -> Result<()> {
    let name = CString::new(interface)?;
    anyhow::ensure!(name.as_bytes().len() < libc::IFNAMSIZ, "the interface name {interface} is too long");
    let mut setting = EthtoolValue { command, value };
    // SAFETY: an all-zero ifreq is valid: it is made of integers, arrays of integers and a pointer.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut setting).cast();
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: SIOCETHTOOL reads and writes the ifreq and the `struct ethtool_value` that it points to; both live on
    // this stack frame.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    if done < 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("ethtool command {command:#x}"));
    }
    Ok(())
}
