//! The demo: a lab, real traffic, and nine things done to it while the traffic runs.
//!
//! What it promises is checked, not only shown: no request fails, other than those that were on their way to a server
//! when it was killed, and no long-lived connection to a living backend breaks or moves.

mod json;
mod judge;
mod lab;
mod screen;
mod steps;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{agent, interrupt, residue};
use judge::StepReport;
use lab::Lab;
use screen::Screen;

/// What the command line asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How long to show it, in seconds; setting up and cleaning up come on top
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(5..=3600))]
    pub seconds: u32,
    /// Hold the lab open at the end, until Ctrl-C
    #[arg(long)]
    pub keep: bool,
    /// Write what each step counted to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// The lb-agent binary
    #[arg(long, value_name = "PATH")]
    pub agent: Option<PathBuf>,
}

/// Runs the demo to its end and cleans up, whatever happens.
///
/// # Errors
/// When a step could not be done, a promise did not hold, something was left behind, or on Ctrl-C.
pub fn run(options: &Options) -> Result<()> {
    interrupt::install();
    let screen = Screen::new();
    let mut reports = Vec::new();
    let outcome = show(options, &screen, &mut reports);
    // The lab is gone: what is found now was forgotten.
    let left = residue::of(std::process::id());
    if let Some(file) = &options.json {
        let text = json::text(&reports)?;
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    outcome?;
    ensure!(
        left.is_empty(),
        "the demo left behind: {}",
        left.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    );
    screen.clean();
    let broken = reports.iter().filter(|report| !report.broken.is_empty()).count();
    ensure!(broken == 0, "{broken} of {} steps broke a promise", reports.len());
    Ok(())
}

/// Everything that happens while the lab stands; it is gone when this returns.
fn show(options: &Options, screen: &Screen, reports: &mut Vec<StepReport>) -> Result<()> {
    let binary = options.agent.clone().unwrap_or_else(agent::default_binary);
    screen.opening();
    let mut lab = Lab::build(binary)?;
    screen.lab(&lab.describe()?);
    let slice = Duration::from_secs(options.seconds.into()) / u32::try_from(steps::ALL.len())?;
    for (index, step) in steps::ALL.iter().enumerate() {
        let report = judge::run_step(step, index + 1, slice, &mut lab, screen)?;
        screen.report(&report);
        reports.push(report);
    }
    screen.summary(reports, &lab);
    if options.keep {
        screen.kept_open(&lab);
        interrupt::wait();
    }
    Ok(())
}
