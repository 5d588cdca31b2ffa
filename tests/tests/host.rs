//! The pipeline on the host: no kernel, no root.

use lb_tests::balancer::Balancer;
use lb_tests::lab::Lab;

#[path = "cases/mod.rs"]
mod cases;

/// The side that the cases run on here.
fn balancer(lab: &Lab) -> Option<Balancer> {
    Some(Balancer::host(lab))
}
