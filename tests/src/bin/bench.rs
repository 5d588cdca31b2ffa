//! `lb-bench`: what `cargo xtask bench` runs, as root, after building everything.

use std::process::ExitCode;

use clap::Parser;
use lb_tests::bench::{self, Options};
use lb_tests::interrupt::Interrupted;

/// Measures what a packet costs the balancer, beside reference programs, in nanoseconds of CPU time.
#[derive(Parser)]
#[command(name = "lb-bench")]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

/// What a shell reports for a program ended by SIGINT: 128 + 2.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    match bench::run(&Arguments::parse().options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() => {
            eprintln!("\ninterrupted; everything was taken down");
            INTERRUPTED.into()
        }
        Err(error) => {
            eprintln!("\nlb-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
