//! `lb-demo`: what `cargo xtask demo` runs, as root, after building everything.

use std::process::ExitCode;

use clap::Parser;
use lb_tests::demo::{self, Options};
use lb_tests::interrupt::Interrupted;

/// Balances real traffic in network namespaces, changes things under it, and counts what fails.
#[derive(Parser)]
#[command(name = "lb-demo")]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

/// What a shell reports for a program ended by SIGINT: 128 + 2.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    match demo::run(&Arguments::parse().options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() => {
            eprintln!("\ninterrupted; everything was taken down");
            INTERRUPTED.into()
        }
        Err(error) => {
            eprintln!("\nlb-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
