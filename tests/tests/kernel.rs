//! The BPF program in the kernel, fed by `BPF_PROG_TEST_RUN`.

use lb_tests::balancer::Balancer;
use lb_tests::lab::Lab;
use lb_tests::skip;

#[path = "cases/mod.rs"]
mod cases;

/// The side that the cases run on here; none, aloud, without root.
fn balancer(lab: &Lab) -> Option<Balancer> {
    match skip::reason_without_root() {
        None => Some(Balancer::kernel(lab)),
        Some(_) => {
            skip::announce("loading BPF programs needs root");
            None
        }
    }
}
