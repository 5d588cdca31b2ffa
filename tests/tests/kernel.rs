//! The BPF program in the kernel, fed by `BPF_PROG_TEST_RUN`.

use lb_tests::balancer::Balancer;
use lb_tests::lab::Lab;
use lb_tests::{kernel, needs_root, skip};

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

#[test]
fn the_verifier_accepts_every_program_with_logging_and_without() {
    needs_root!();
    let expected = [
        "balance",
        "balance_icmp",
        "balance_reject",
        "balance_slow",
        "clock",
        "xdp_bulk_tx",
        "xdp_devmap_xmit",
        "xdp_exception",
        "xdp_redirect_err",
    ];
    for object in ["lb.bpf.o", "lb-log.bpf.o"] {
        let loaded = kernel::load_all(object).unwrap_or_else(|error| panic!("{object}: {error:#}"));
        assert_eq!(loaded, expected, "{object}");
    }
}
