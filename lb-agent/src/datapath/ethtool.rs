//! Driver and offloads of an interface, by the ethtool ioctl.

use std::io;
use std::os::fd::AsRawFd as _;

use rustix::net::{AddressFamily, SocketType, socket};

/// `ETHTOOL_SGRO` of `linux/ethtool.h`.
const ETHTOOL_SGRO: u32 = 0x2c;
/// `ETHTOOL_GGRO`, `ETHTOOL_GFLAGS` and a flag of the latter.
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETH_FLAG_LRO: u32 = 1 << 15;
/// `SIOCETHTOOL` of `linux/sockios.h`.
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// `ETHTOOL_GDRVINFO` of `linux/ethtool.h`.
const ETHTOOL_GDRVINFO: u32 = 0x03;

/// `struct ethtool_drvinfo`, as far as it matters here: command, name, and the rest.
#[repr(C)]
struct EthtoolDriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// Turns generic receive offload off: generic XDP would be shown aggregates that are larger than the link takes.
pub(super) fn disable_gro(interface: &str) -> io::Result<()> {
    ask(interface, &mut EthtoolValue { command: ETHTOOL_SGRO, data: 0 })
}

/// The name of an interface's driver.
pub(super) fn driver(interface: &str) -> io::Result<String> {
    let mut info = EthtoolDriverInfo { command: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
    ask(interface, &mut info)?;
    let name = info.driver.split(|&byte| byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// Whether the hardware puts segments together (LRO).
pub(super) fn has_lro(interface: &str) -> io::Result<bool> {
    Ok(value(interface, ETHTOOL_GFLAGS)? & ETH_FLAG_LRO != 0)
}

/// Whether the kernel puts segments together (GRO).
pub(super) fn has_gro(interface: &str) -> io::Result<bool> {
    Ok(value(interface, ETHTOOL_GGRO)? != 0)
}

fn value(interface: &str, command: u32) -> io::Result<u32> {
    let mut value = EthtoolValue { command, data: 0 };
    ask(interface, &mut value)?;
    Ok(value.data)
}

/// Has the kernel read, and fill in, a block of the ethtool interface.
fn ask<Block>(interface: &str, block: &mut Block) -> io::Result<()> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: a plain C struct; all zeros is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(block).cast();
    // SAFETY: the request and the value that it points to live beyond the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
