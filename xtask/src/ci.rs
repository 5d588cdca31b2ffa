//! `cargo xtask ci`: what continuous integration runs, on a clean machine or a developer's.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::bpf;
use crate::demo;
use crate::lint;
use crate::prebuilt::{self, Comparison};
use crate::process::Step;
use crate::setup::{self, Need};
use crate::test;
use crate::test::tally::Tally;

/// Long enough for each step of the demonstration to meet traffic.
const DEMO_SECONDS: u32 = 15;

/// Runs the verb. Each part is run whatever became of the others; the count of tests is the last line.
pub(crate) fn run() -> Result<ExitCode> {
    setup::ensure(Need::Ci)?;
    let mut total = Tally::default();
    let mut failed = Vec::new();
    let mut part = |name: &'static str, run: &mut dyn FnMut() -> Result<()>| {
        println!("\n##### {name}");
        let start = Instant::now();
        if let Err(error) = run() {
            eprintln!("error: {error:#}");
            failed.push(format!("{name}: {error:#}"));
        }
        println!("##### {name}: {:.0} s", start.elapsed().as_secs_f32());
    };
    part("lint", &mut lint::run);
    part("prebuilt BPF objects", &mut compare_prebuilt);
    part("test", &mut || {
        // Tests that could not even be built have not passed either.
        total = test::run_counted(&test::Arguments::default())
            .unwrap_or_else(|error| Tally::failure(format!("{error:#}")));
        if total.failed > 0 {
            bail!("{}", total.failures.join("\n"));
        }
        Ok(())
    });
    part("demo", &mut run_demo);

    match failed.as_slice() {
        [] => println!("\nall parts passed"),
        // Each with its reason once more: what it printed is thousands of lines up.
        parts => println!("\nfailed parts:\n  {}", parts.join("\n  ")),
    }
    println!("{total}");
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn compare_prebuilt() -> Result<()> {
    let ready = setup::ensure(Need::Build)?;
    bpf::build(&ready.bpf)?;
    match prebuilt::compare(&ready.bpf)? {
        Comparison::Same => println!("the committed BPF objects are what the sources give"),
        Comparison::Unknown(reason) => println!("SKIPPED comparison of the prebuilt BPF objects: {reason}"),
    }
    Ok(())
}

fn run_demo() -> Result<()> {
    let arguments = demo::Arguments { seconds: DEMO_SECONDS, keep: false, json: None };
    let step = Step { name: "run the demonstration", way_round: "see what it says above" };
    step.run(&mut demo::command(&arguments)?)
}
