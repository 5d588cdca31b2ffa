//! The task runner: `cargo xtask VERB`. Each verb is one file of this directory; this one is the table of contents.

mod bpf;
mod bpf_toolchain;
mod build;
mod linker;
mod packages;
mod process;
mod rustc;
mod setup;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set up, build, show, test and measure the load balancer.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Bring what is missing: rust-src, the BPF linker, the tools that demo and tests use
    Setup(setup::Arguments),
    /// Build the BPF objects (target/bpf) and the agent (target/release/lb-agent)
    Build(build::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().verb {
        Verb::Setup(arguments) => setup::run(&arguments),
        Verb::Build(arguments) => build::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
