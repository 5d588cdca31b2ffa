//! The task runner: `cargo xtask VERB`. Each verb is one file of this directory; this one is the table of contents.

// The verbs.
mod bench;
mod build;
mod ci;
mod demo;
mod lint;
mod setup;
mod test;

// What they have in common.
mod artifacts;
mod bpf;
mod bpf_toolchain;
mod linker;
mod packages;
mod prebuilt;
mod process;
mod rustc;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
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
    /// Balance real traffic in a lab of network namespaces, and show it
    Demo(demo::Arguments),
    /// Run every test that this machine can run, and count them
    Test(test::Arguments),
    /// Measure nanoseconds per packet, beside two reference programs
    Bench(bench::Arguments),
    /// Check formatting, lints, documentation and manifests
    Lint,
    /// Run what continuous integration runs: lint, test, a short demo
    Ci,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().verb {
        Verb::Setup(arguments) => succeed(setup::run(&arguments)),
        Verb::Build(arguments) => succeed(build::run(&arguments)),
        Verb::Demo(arguments) => succeed(demo::run(&arguments)),
        Verb::Test(arguments) => test::run(&arguments),
        Verb::Bench(arguments) => succeed(bench::run(&arguments)),
        Verb::Lint => succeed(lint::run()),
        Verb::Ci => ci::run(),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn succeed(outcome: Result<()>) -> Result<ExitCode> {
    outcome.map(|()| ExitCode::SUCCESS)
}
