//! The kernel's side of the two traits, and the entries.

mod cold;
mod frame;
mod guards;
mod maps;
mod tables;
mod tracepoints;
mod xdp;
