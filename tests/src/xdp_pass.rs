//! The smallest XDP program there is: it returns one action. `XDP_PASS` is for veth ends that face the balancer.
//!
//! A veth end *queues* what its peer's XDP program sends back by `XDP_TX`, but its NAPI is woken for that only if it has
//! an XDP program itself (`veth_xdp_flush`, Linux 4.19 to 6.18 at least); with GRO alone the frame waits until something
//! else is sent. On a real wire the other end has no say in this, so the lab puts a program there that passes all.

use std::ffi::c_long;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use crate::netns::Namespace;

// linux/bpf.h and linux/if_link.h
const BPF_PROG_LOAD: c_long = 5;
const BPF_LINK_CREATE: c_long = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_PASS: i32 = 2;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// `struct bpf_insn`; source and destination register are both 0 in what is needed here.
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// `r0 = action; exit`.
const fn program(action: i32) -> [Instruction; 2] {
    [
        Instruction { code: 0xb7, registers: 0, offset: 0, immediate: action },
        Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 },
    ]
}

/// The part of `union bpf_attr` that `BPF_PROG_LOAD` needs; the kernel takes the rest as zero.
#[repr(C)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
}

/// The part of `union bpf_attr` that `BPF_LINK_CREATE` needs.
#[repr(C)]
struct LinkAttributes {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

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
            link(&load(&program(action))?, index)
        })
        .with_context(|| format!("cannot attach XDP to {interface} in namespace {}", namespace.name()))
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    bpf(
        BPF_PROG_LOAD,
        &LoadAttributes {
            program_type: BPF_PROG_TYPE_XDP,
            instruction_count: program.len() as u32,
            instructions: program.as_ptr() as u64,
            license: c"Dual MIT/GPL".as_ptr() as u64,
        },
    )
}

fn link(program: &OwnedFd, interface: u32) -> io::Result<OwnedFd> {
    let program = program.as_raw_fd().unsigned_abs();
    bpf(
        BPF_LINK_CREATE,
        &LinkAttributes { program, interface, attach_type: BPF_XDP, flags: XDP_FLAGS_DRV_MODE },
    )
}

/// bpf(2) with a command that returns a descriptor.
fn bpf<A>(command: c_long, attributes: &A) -> io::Result<OwnedFd> {
    // SAFETY: both attribute structs are the beginning of `union bpf_attr` for their command, and the size says how
    // much of it there is; the instructions and the licence that they point to outlive the call.
    let descriptor =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<A>()) };
    match i32::try_from(descriptor) {
        // SAFETY: the kernel has just made this descriptor for us; nobody else knows of it.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}
