//! `lb-agent`: turns a Linux box into a layer-4 load balancer, and the command line to tell it what to do.

mod api;
mod capacity;
mod cli;
mod client;
mod config;
mod control;
mod datapath;
mod events;
#[cfg(test)]
mod fuzz;
mod health;
mod metrics;
mod model;
mod store;
#[cfg(test)]
mod wait;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(std::env::args_os())
}
