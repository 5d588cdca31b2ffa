//! What the kernel program and the agent must agree on.
//!
//! Every row here lives in a BPF map and is read by the XDP program, by the host build of the same pipeline
//! and by the agent through shared memory: one definition, one layout, asserted at compile time.
//!
//! # Byte order
//!
//! [`Be16`] and [`Be32`] hold the bits as they stand on the wire. Every other integer is in the machine's own
//! order, which for BPF means little endian: the program is built for `bpfel` only.
//!
//! # Changing a layout
//!
//! A pinned map outlives the agent that made it. Any change of a row's layout or meaning increments
//! [`ABI_VERSION`]; the agent refuses to adopt maps of another version.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics))]
#![cfg_attr(
    target_arch = "bpf",
    allow(internal_features, reason = "the BPF target has atomics only as intrinsics")
)]

mod abi;
pub mod address;
pub mod atomic;
pub mod backend;
pub mod checksum;
pub mod counters;
pub mod directory;
pub mod flow;
pub mod fragment;
pub mod hash;
pub mod latency;
pub mod limit;
pub mod link;
pub mod maps;
pub mod next_hop;
pub mod port;
pub mod prefix;
pub mod reason;
pub mod service;
pub mod settings;
pub mod slot;
pub mod suspicion;
pub mod syn;

pub use abi::ABI_VERSION;
pub use address::{Address, Be16, Be32, Protocol};
