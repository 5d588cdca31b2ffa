//! What an agent takes that has nothing to do.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use lb_tests::address::Family;
use lb_tests::agent::{Agent, Settings};
use lb_tests::needs_root;
use lb_tests::setup::Setup;
use lb_tests::topology::Shape;
use lb_tests::wait;

/// The limits that an agent has if nobody says otherwise.
const DEFAULT_FLOWS: u32 = 1_000_000;
const SERVICES: u16 = 100;
const BACKENDS: u8 = 4;

/// Bytes that the process has in memory, mapped tables included.
fn resident(agent: &Agent) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", agent.pid()?))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// CPU time that it has taken, user and system.
fn cpu_time(agent: &Agent) -> Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", agent.pid()?))?;
    // The command's name may have spaces; fields 14 and 15 of proc(5) are the 12th and 13th behind it.
    let (_, fields) = text.rsplit_once(')').context("no command")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}

#[test]
fn an_idle_agent_with_a_hundred_services_is_small_and_sleeps() {
    needs_root!();
    let settings = Settings { flows: DEFAULT_FLOWS, ..Settings::default() };
    let setup = Setup::bare(Shape::TwoArmed, 1, settings).unwrap();
    let mut state = String::new();
    for service in 0..SERVICES {
        let vip = Family::V4.vip();
        write!(state, "[[service]]\nname = \"s{service}\"\nvip = \"{vip}:{}\"\n", 2000 + service).unwrap();
        write!(state, "[[service.health]]\ntype = \"none\"\n").unwrap();
        for backend in 0..BACKENDS {
            write!(state, "[[service.backend]]\naddress = \"10.0.1.{}:{}\"\n", 100 + backend, 2000 + service)
                .unwrap();
        }
    }
    let file = setup.agent.directory().join("hundred.toml");
    std::fs::write(&file, state).unwrap();
    setup.agent.must(["apply", "-f", file.to_str().unwrap()]).unwrap();

    let limit = 40 << 20;
    wait::until_true(Duration::from_secs(20), "at most 40 MiB in memory", || {
        resident(&setup.agent).unwrap() < limit
    })
    .unwrap();
    // The sweep goes over the whole table in these seconds, more than once; maps that it reads are given up again.
    let (window, before) = (Duration::from_secs(15), cpu_time(&setup.agent).unwrap());
    let mut most = 0;
    let end = Instant::now() + window;
    while Instant::now() < end {
        wait::observe(Duration::from_millis(50)).unwrap();
        most = most.max(resident(&setup.agent).unwrap());
    }
    let busy = (cpu_time(&setup.agent).unwrap() - before).as_secs_f64() / window.as_secs_f64();
    println!("idle: {:.1} MiB at most, {:.2} % of a core", most as f64 / f64::from(1 << 20), busy * 100.0);
    assert!(most < limit, "{most} bytes in memory");
}
