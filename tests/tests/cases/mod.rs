//! One frame in, one verdict out: what each packet must meet, whichever side runs the pipeline.
//!
//! `host.rs` and `kernel.rs` include these files and say which side it is.

/// A balancer with a lab's tables; returns from the test where there can be none.
macro_rules! balancer {
    ($lab:expr) => {
        match crate::balancer(&$lab) {
            Some(balancer) => balancer,
            None => return,
        }
    };
}

mod affinity;
mod backend_down;
mod broken;
mod checksums;
mod clashes;
mod errors;
mod evictions;
mod exceptions;
mod floods;
mod flows;
mod forwarding;
mod fragments;
mod full_nat;
mod full_nat_services;
mod headers;
mod latency;
mod next_hops;
mod rejections;
mod retries;
mod strategies;
mod tags;
mod tcp;
mod traps;
