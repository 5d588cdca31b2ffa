//! The smallest XDP program there is: it returns one action. `XDP_PASS` is for veth ends that face the balancer.
//!
//! A veth end *queues* what its peer's XDP program sends back by `XDP_TX`, but its NAPI is woken for that only if it has
//! an XDP program itself (`veth_xdp_flush`, Linux 4.19 to 6.18 at least); with GRO alone the frame waits until something
//! else is sent. On a real wire the other end has no say in this, so the lab puts a program there that passes all.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use crate::bpf;
use crate::netns::Namespace;

// linux/bpf.h
const XDP_PASS: i32 = 2;

/// Attaches a program that passes everything, in native mode; it stays until the returned link is dropped.
///
/// # Errors
/// Without CAP_NET_ADMIN and CAP_BPF, or when there is a program already.
pub fn attach(namespace: &Namespace, interface: &str) -> Result<OwnedFd> {
    attach_returning(XDP_PASS, namespace, interface)
}

/// As [`attach`], a program that returns this action for every frame; it need not be one that XDP has.
///
/// # Errors
/// As [`attach`].
pub fn attach_returning(action: i32, namespace: &Namespace, interface: &str) -> Result<OwnedFd> {
    namespace
        .run(|| {
            let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
            let index = netdevice::name_to_index(&any, interface)?;
            let program = bpf::load_program("one_action", &program(action))?;
            anyhow::Ok(bpf::attach(program, index)?)
        })
        .with_context(|| format!("cannot attach XDP to {interface} in namespace {}", namespace.name()))
}

/// `r0 = action; exit`.
fn program(action: i32) -> [u64; 2] {
    let [a, b, c, d] = action.to_ne_bytes();
    [[0xb7, 0, 0, 0, a, b, c, d], [0x95, 0, 0, 0, 0, 0, 0, 0]].map(u64::from_ne_bytes)
}
