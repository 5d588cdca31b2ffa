//! The BPF program in the kernel, fed by `BPF_PROG_TEST_RUN`.

use lb_tests::balancer::Balancer;
use lb_tests::lab::Lab;
use lb_tests::object::verify;
use lb_tests::{needs_root, skip};

#[path = "cases/mod.rs"]
mod cases;
#[path = "kernel/contention.rs"]
mod contention;
#[path = "kernel/explain.rs"]
mod explain;
#[path = "kernel/flood.rs"]
mod flood;

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

/// What the verifier may walk of one program, of the million that it walks at all. It walks more or less of the same
/// program from one kernel to the next: what is nearly refused here may be refused elsewhere.
const WALKED_AT_MOST: u32 = 900_000;
/// The same with diagnostics, which are for looking into a problem on one machine: what the kernel allows.
const WALKED_AT_MOST_LOGGING: u32 = 1_000_000;
/// Bytes of stack of one program with all that it calls (`MAX_BPF_STACK`), by the coarser count of older kernels: this one
/// may accept what they refuse.
const STACK_AT_MOST: u32 = 512;

#[test]
fn the_verifier_accepts_every_program_with_logging_and_without_and_has_room_left() {
    needs_root!();
    let expected = [
        "balance",
        "balance_exceptions",
        "balance_icmp",
        "balance_nat",
        "balance_nat_icmp",
        "balance_nat_open",
        "balance_nat_reply",
        "balance_reject",
        "balance_resend",
        "balance_retry",
        "balance_slow",
        "clock",
        "xdp_bulk_tx",
        "xdp_devmap_xmit",
        "xdp_exception",
        "xdp_redirect_err",
    ];
    for (object, ceiling) in [("lb.bpf.o", WALKED_AT_MOST), ("lb-log.bpf.o", WALKED_AT_MOST_LOGGING)] {
        let programs = verify(object).unwrap_or_else(|error| panic!("{object}: {error:#}"));
        let names: Vec<_> = programs.iter().map(|program| program.name.as_str()).collect();
        assert_eq!(names, expected, "{object}");
        for program in &programs {
            announce(&format!("{object}: {program}\n"));
            assert!(program.walked.is_none_or(|walked| walked <= ceiling), "over {ceiling}: {program}");
            assert!(program.stack <= STACK_AT_MOST, "over {STACK_AT_MOST}: {program}");
        }
    }
}

/// Past the capture of the test harness, which hides what a passing test prints.
fn announce(line: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}
