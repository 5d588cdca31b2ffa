//! The command line: what the verbs are, and which file carries each out.

mod allocator;
mod apply;
mod backend;
mod changed;
mod check;
mod condition;
mod detach;
mod events;
mod explain;
mod export;
mod figures;
mod flows;
mod history;
mod manual;
mod output;
mod plan;
mod privilege;
mod reload;
mod run;
mod service;
mod status;
mod supervisor;
mod table;
mod telemetry;
mod top;
mod usage;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::client::Client;
use crate::config::{self, Config};
use output::{Format, Output};

/// Turns this machine into a layer-4 load balancer, and tells it what to balance.
///
/// `lb-agent run` is the daemon: it attaches an XDP program that balances packets in the driver, and keeps it up to
/// date. Every other verb talks to it over its socket, except `detach` and `check`, which work without it.
#[derive(Debug, Parser)]
#[command(name = "lb-agent", version, propagate_version = true, disable_help_subcommand = true)]
#[command(arg_required_else_help = true, after_long_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  lb-agent run --interface eth0
  lb-agent service add web --vip 10.0.0.100:80
  lb-agent backend add web 10.0.1.11:8080
  lb-agent status

Exit status: 0 done, 1 refused or failed, 2 wrong usage.";

/// What every verb takes, before it or after it.
#[derive(Debug, Args)]
struct Global {
    /// How results are printed: `table` or `json`.
    #[arg(short, long, value_name = "FORMAT", default_value = "table", global = true)]
    output: Format,
    /// Where the agent listens; unless given, the `socket` of /etc/lb-agent/config.toml or its default.
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    /// Says less: no notes on stderr, only errors.
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Says more: what is asked of the agent; for `run`, what it does (twice: everything).
    #[arg(short, long, action = ArgAction::Count, global = true)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::Arguments),
    Detach(detach::Arguments),
    Check(check::Arguments),
    Status(status::Arguments),
    Service(service::Arguments),
    Backend(backend::Arguments),
    Apply(apply::Arguments),
    Export(export::Arguments),
    Explain(explain::Arguments),
    Flows(flows::Arguments),
    Events(events::Arguments),
    Top(top::Arguments),
    History(history::History),
    Rollback(history::Rollback),
    Plan(plan::Arguments),
    Completions(manual::Completions),
    Man(manual::ManualPages),
}

/// Parses the command line and does what it says.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage::report(&error),
    };
    match cli.execute() {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            usage::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

impl Cli {
    fn execute(self) -> anyhow::Result<()> {
        let Self { global, verb } = self;
        let output = Output::new(global.output, global.quiet);
        let client = || global.client();
        match verb {
            Verb::Run(arguments) => arguments.execute(&global),
            Verb::Detach(arguments) => arguments.execute(&output),
            Verb::Check(arguments) => arguments.execute(|configured| global.client_at(configured), &output),
            Verb::Status(arguments) => arguments.execute(&client(), &output),
            Verb::Service(arguments) => arguments.execute(&client(), &output),
            Verb::Backend(arguments) => arguments.execute(&client(), &output),
            Verb::Apply(arguments) => arguments.execute(&client(), &output),
            Verb::Export(arguments) => arguments.execute(&client(), &output),
            Verb::Explain(arguments) => arguments.execute(&client(), &output),
            Verb::Flows(arguments) => arguments.execute(&client(), &output),
            Verb::Events(arguments) => arguments.execute(&client(), &output),
            Verb::Top(arguments) => arguments.execute(client()),
            Verb::History(arguments) => arguments.execute(&client(), &output),
            Verb::Rollback(arguments) => arguments.execute(&client(), &output),
            Verb::Plan(arguments) => arguments.execute(&output),
            Verb::Completions(arguments) => arguments.execute(&output),
            Verb::Man(arguments) => arguments.execute(&output),
        }
    }
}

impl Global {
    /// A client of the agent at the socket that was named, or else at this one.
    fn client_at(&self, configured: PathBuf) -> Client {
        Client::new(self.socket.as_deref().unwrap_or(&configured), self.verbose > 0)
    }

    fn client(&self) -> Client {
        let configured = || Config::load(None).map(|config| config.socket);
        // Nobody but the agent has to be able to read its configuration: where it cannot be read, the default it is.
        let socket = self.socket.clone().or_else(|| configured().ok());
        Client::new(&socket.unwrap_or_else(|| config::DEFAULT_SOCKET.into()), self.verbose > 0)
    }
}

#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod tests;
