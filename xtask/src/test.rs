//! `cargo xtask test`: every test that this machine can run, level by level, counted.

mod leftovers;
mod miri;
mod model;
mod suites;
pub(crate) mod tally;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::bpf;
use crate::build;
use crate::setup::{self, Need};
use leftovers::Leftovers;
use suites::{Environment, Suite};
use tally::Tally;

/// Which tests to run.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// This level alone
    #[arg(value_enum)]
    level: Option<Level>,
    /// Only tests whose name contains one of these; other flags are the test harness's
    #[arg(last = true, value_name = "FILTER")]
    filter: Vec<String>,
}

/// How close to the real thing a test runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
enum Level {
    /// Unit, property and documentation tests; no root
    Host,
    /// The pure crates under Miri, which finds undefined behaviour; no root
    Miri,
    /// The BPF program fed with frames in the kernel (BPF_PROG_TEST_RUN); root
    Kernel,
    /// Agent, BPF program and traffic in network namespaces; root
    EndToEnd,
}

impl Level {
    const ALL: [Self; 4] = [Self::Host, Self::Miri, Self::Kernel, Self::EndToEnd];

    fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Miri => "miri",
            Self::Kernel => "kernel",
            Self::EndToEnd => "end-to-end",
        }
    }

    fn needs_root(self) -> bool {
        matches!(self, Self::Kernel | Self::EndToEnd)
    }
}

/// One line of the closing table.
struct Row {
    level: Level,
    tally: Tally,
    duration: Duration,
}

/// Runs the verb. The count is the last line, so a failure is told by the exit status alone.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let total = run_counted(arguments)?;
    println!("{total}");
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the tests and prints all but the closing line.
pub(crate) fn run_counted(arguments: &Arguments) -> Result<Tally> {
    let levels = levels(arguments.level);
    let built = prepare(&levels)?;
    let mut rows = Vec::new();
    for level in levels {
        println!("\n=== {} ===", level.name());
        let start = Instant::now();
        // The other levels still have something to say when one cannot go on.
        let tally = run_level(level, &built, &arguments.filter)
            .unwrap_or_else(|error| Tally::failure(format!("{error:#}")));
        rows.push(Row { level, tally, duration: start.elapsed() });
    }
    print_table(&rows);
    let total: Tally = rows.iter().map(|row| row.tally.clone()).sum();
    if total.is_empty() {
        bail!("no test was found: the filter matches none");
    }
    Ok(total)
}

fn levels(only: Option<Level>) -> Vec<Level> {
    Level::ALL.into_iter().filter(|level| only.is_none_or(|only| only == *level)).collect()
}

/// What the levels run.
#[derive(Default)]
struct Built {
    suites: Vec<Suite>,
    /// There for the levels that start it.
    agent: Option<PathBuf>,
}

/// Builds what these levels run, as the user.
fn prepare(levels: &[Level]) -> Result<Built> {
    if levels == [Level::Miri] {
        return Ok(Built::default());
    }
    let need_root = levels.iter().any(|level| level.needs_root());
    let ready = setup::ensure(if need_root { Need::Test } else { Need::Build })?;
    // The agent's unit tests embed the BPF objects too.
    bpf::build(&ready.bpf)?;
    let agent = need_root.then(build::agent).transpose()?;
    Ok(Built { suites: suites::build()?, agent })
}

fn run_level(level: Level, built: &Built, filter: &[String]) -> Result<Tally> {
    let environment = Environment::of(level, built.agent.as_deref());
    let before = Leftovers::now(level)?;
    let mut tally = Tally::default();
    for suite in built.suites.iter().filter(|suite| suite.level == level) {
        tally += suite.run(&environment, filter)?;
    }
    match level {
        Level::Host => {
            tally += suites::run_documentation_tests(filter)?;
            tally += model::run(filter)?;
        }
        Level::Miri => tally += miri::run(filter)?,
        Level::Kernel | Level::EndToEnd => {}
    }
    if tally.is_empty() && filter.is_empty() {
        bail!("the level has no test");
    }
    for leftover in Leftovers::now(level)?.since(&before) {
        tally += Tally::failure(format!("left behind: {leftover}"));
    }
    Ok(tally)
}

fn print_table(rows: &[Row]) {
    println!();
    for Row { level, tally, .. } in rows {
        for failure in &tally.failures {
            println!("FAILED {}: {failure}", level.name());
        }
    }
    println!("\n{:<12}{:>8}{:>8}{:>9}{:>9}", "level", "passed", "failed", "skipped", "time");
    for Row { level, tally, duration } in rows {
        let seconds = format!("{:.1} s", duration.as_secs_f32());
        println!(
            "{:<12}{:>8}{:>8}{:>9}{seconds:>9}",
            level.name(),
            tally.passed,
            tally.failed,
            tally.skipped
        );
    }
}

/// How many tests of a level may run at once.
///
/// End-to-end tests each keep several processes busy with traffic and have deadlines: half the processors leave them
/// air. The other levels are bound by the processor only.
fn threads(level: Level) -> Option<usize> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (level == Level::EndToEnd).then(|| (processors / 2).clamp(1, 4))
}
