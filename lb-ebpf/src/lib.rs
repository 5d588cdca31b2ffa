//! The packet pipeline: from a frame to a verdict, and nothing else.
//!
//! Pure code, generic over two traits: [`frame::Frame`] (the bytes) and [`tables::Tables`] (maps, clock, routes).
//! The same source runs in the kernel as an XDP program, on the host under tests and Miri, and in the agent for
//! `explain`. The modules in the order in which a packet meets them:
//!
//! ```text
//! pipeline   which of eleven programs has the packet, and in which order its steps come
//! parse      frame -> headers -> packet, or why not
//! fragments  a later fragment's ports, from its first
//! classify   a request to a service, a reply from a backend, or not ours
//! flood      who may send at all, and how often open a flow
//! flows      the flow table: look-up, insertion, update
//! tcp        what a segment does to a flow's state
//! request    the way to a backend          reply    the way back
//! nat        both at once, for full NAT: an address and a port stand for the client
//! open       a new flow: its backend and its entry
//! retry      another backend where the first refuses or does not answer
//! affinity   the backend of a client's flows before it
//! clash      another backend where its own could not tell the flow from another service's
//! select     which backend, from the service's slots
//! latency    how long a handshake took
//! exceptions the same where flows are tracked by exception
//! next_hops  which interface and neighbour
//! translate  addresses, ports, checksums, TTL          link   the Ethernet header and its tags
//! icmp       echo answered, errors translated
//! reject     answers of our own: reset, time exceeded, too big, unreachable
//! verdict    what becomes of the packet: one reason, one action
//! ```
#![cfg_attr(target_arch = "bpf", no_std)]
#![forbid(unsafe_code)]

pub mod affinity;
pub mod clash;
pub mod classify;
pub mod exceptions;
pub mod explain;
pub mod family;
pub mod flood;
pub mod flows;
pub mod fragments;
pub mod frame;
pub mod icmp;
pub mod latency;
pub mod link;
#[cfg(not(target_arch = "bpf"))]
pub mod memory;
pub mod nat;
pub mod next_hops;
pub mod open;
pub mod parse;
pub mod pipeline;
pub mod reject;
pub mod reply;
pub mod request;
pub mod retry;
pub mod select;
pub mod send;
pub mod tables;
pub mod tcp;
pub mod translate;
pub mod verdict;
