//! What the demo and the suites are made of: network-namespace topologies, servers, load and the agent under test.
//!
//! Everything that outlives a function call is a guard: a [`netns::Namespace`], a [`process::Process`], a
//! [`server::Server`], an [`agent::Agent`]. Dropping it takes it down, so a failed step, a panicking test and
//! Ctrl-C (see [`interrupt`]) all leave the machine as it was; [`residue`] proves it.

pub mod address;
pub mod agent;
pub mod api;
pub mod balancer;
pub mod bench;
mod bpf;
pub mod bulk;
pub mod checksum_errors;
pub mod delay;
pub mod demo;
pub mod held;
pub mod http_client;
pub mod icmp;
pub mod interrupt;
pub mod kernel;
pub mod lab;
pub mod live;
pub mod load;
pub mod netns;
pub mod object;
pub mod offload;
pub mod packet;
pub mod pair;
pub mod process;
pub mod random;
pub mod refusal;
pub mod residue;
pub mod server;
pub mod setup;
pub mod skip;
mod stop;
pub mod tally;
pub mod terminal;
pub mod tools;
pub mod topology;
#[cfg(test)]
mod traps;
pub mod udp_client;
pub mod wait;
pub mod xdp_pass;
