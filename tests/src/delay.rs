//! A slow network, on kernels without netem: what a host sends waits.
//!
//! The host's default route leads into a TUN device. A thread takes packets from there and, when each is due, sends
//! them by a raw socket that is bound to `eth0`, for which there is another default route.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

use crate::address::Family;
use crate::topology::Host;

/// The TUN device's name.
const DEVICE: &str = "slow0";
/// The host's interface.
const INTERFACE: &str = "eth0";
/// Largest packet.
const MTU: usize = 1500;
/// `TUNSETIFF` of linux/if_tun.h.
const TUN_SET_INTERFACE: libc::Ioctl = 0x4004_54ca;

/// What a host sends to other networks, held up; dropping it lets everything through again.
#[derive(Debug)]
pub struct Delay {
    /// Closed to end the thread.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Delay {
    /// Holds packets of one family up by so long.
    ///
    /// # Errors
    /// Without root, or where the kernel has no TUN devices.
    pub fn start(host: &Host, family: Family, by: Duration) -> Result<Self> {
        let (stop, stopped) = rustix::pipe::pipe()?;
        let (ready, opened) = mpsc::channel();
        let work = move || match Relay::open(family, by) {
            Ok(mut relay) => {
                let _ = ready.send(Ok(()));
                if let Err(error) = relay.run(&stopped) {
                    eprintln!("warning: {DEVICE}: {error}");
                }
            }
            Err(error) => drop(ready.send(Err(error))),
        };
        // Both belong to the namespace of the thread that opens them.
        let thread = host.namespace.handle().spawn("delay", work)?;
        opened.recv().context("the delay's thread died")?.context("cannot delay packets")?;
        let version = if family == Family::V4 { "-4" } else { "-6" };
        let routes = host.namespace.must(&["ip", version, "route", "show", "default"], ROUTE_TIMEOUT)?;
        let gateway = routes
            .split_whitespace()
            .skip_while(|word| *word != "via")
            .nth(1)
            .with_context(|| format!("the host has no default route: {routes:?}"))?;
        host.namespace.sysctl("net.ipv4.conf.all.rp_filter", "0")?;
        for line in [
            format!("link set {DEVICE} up"),
            format!("route del default via {gateway}"),
            format!("route add default via {gateway} dev {INTERFACE} metric 2000"),
            format!("route add default dev {DEVICE} metric 100"),
        ] {
            let words: Vec<_> = ["ip", version].into_iter().chain(line.split(' ')).collect();
            host.namespace.must(&words, ROUTE_TIMEOUT)?;
        }
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

/// For one change of a route.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(10);

impl Drop for Delay {
    fn drop(&mut self) {
        // Both ends: the reader sees the end of the pipe. The device goes with its last descriptor, and its route with it.
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct Relay {
    device: File,
    out: OwnedFd,
    family: Family,
    by: Duration,
    waiting: VecDeque<(Instant, Vec<u8>)>,
}

impl Relay {
    fn open(family: Family, by: Duration) -> io::Result<Self> {
        let domain = if family == Family::V4 { AddressFamily::INET } else { AddressFamily::INET6 };
        let out = socket(domain, SocketType::RAW, Some(ipproto::RAW))?;
        bind_to(&out, INTERFACE)?;
        Ok(Self { device: tun(DEVICE)?, out, family, by, waiting: VecDeque::new() })
    }

    /// Until the other end of `stopped` is closed.
    fn run(&mut self, stopped: &OwnedFd) -> io::Result<()> {
        let mut packet = [0; MTU];
        loop {
            let due = self.waiting.front().map(|(due, _)| due.saturating_duration_since(Instant::now()));
            let timeout = due.map(TryInto::try_into).transpose().map_err(io::Error::other)?;
            let mut both = [PollFd::new(&self.device, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
            match poll(&mut both, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let [has_packet, is_over] = both.map(|each| !each.revents().is_empty());
            if is_over {
                return Ok(());
            }
            if has_packet {
                let length = self.device.read(&mut packet)?;
                self.waiting.push_back((Instant::now() + self.by, packet[..length].to_vec()));
            }
            self.send_due();
        }
    }

    fn send_due(&mut self) {
        while self.waiting.front().is_some_and(|(due, _)| *due <= Instant::now()) {
            let Some((_, packet)) = self.waiting.pop_front() else { return };
            // What the device sends of itself, such as router solicitations, goes nowhere; as in a network, what cannot
            // be sent is lost.
            if let Some(to) = destination(self.family, &packet) {
                let _ = sendto(&self.out, &packet, SendFlags::empty(), &to);
            }
        }
    }
}

fn destination(family: Family, packet: &[u8]) -> Option<SocketAddr> {
    let address: IpAddr = match (family, packet.first()? >> 4) {
        (Family::V4, 4) => Ipv4Addr::from(*packet.get(16..)?.first_chunk::<4>()?).into(),
        (Family::V6, 6) => Ipv6Addr::from(*packet.get(24..)?.first_chunk::<16>()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(address, 0))
}

/// A new TUN device of this thread's network namespace.
fn tun(name: &str) -> io::Result<File> {
    let device = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: a plain C struct; all zeros is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the request that takes this struct, which outlives the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), TUN_SET_INTERFACE, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(device) }
}

fn bind_to(socket: &OwnedFd, interface: &str) -> io::Result<()> {
    let (level, option) = (libc::SOL_SOCKET, libc::SO_BINDTODEVICE);
    // SAFETY: the name lives through the call, and its length is told.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            interface.as_ptr().cast(),
            interface.len() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
