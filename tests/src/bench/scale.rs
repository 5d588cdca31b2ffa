//! What millions of flows take of the agent that ships: memory, its sweep, the list of them all. The flows come as
//! packets through the program that the agent has attached.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::maps::MapInfo;
use aya::programs::loaded_programs;
use lb_common::maps;
use serde_json::Value;

use super::machine;
use super::network::{self, INTERFACE};
use super::source::{Feed, Source};
use super::traffic::{BACKEND_PORT, Family, Path, SERVICE_PORT, Segment, Traffic};
use crate::agent::{Agent, Settings};
use crate::bpf;
use crate::interrupt;
use crate::netns::Namespace;
use crate::wait;

/// Flows that the tables are made for, and that are opened.
const FLOWS: [u32; 2] = [1_000_000, 10_000_000];
/// Flows whose handshakes are under way at once.
const AT_ONCE: u32 = 1 << 14;
/// Share of them that must be held. At rated load one flow in 300 finds both its buckets full.
const HELD: f64 = 0.99;
/// A pass of ten million flows takes half a minute, as it takes a part of them a second.
const PASS_TIMEOUT: Duration = Duration::from_secs(120);
/// How long sweeps are watched: longer than it is from one audit to the next.
const WATCHED: Duration = Duration::from_secs(65);
/// Between two looks at them.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Lines of the list from one look at the agent's memory to the next.
const LOOK_AT: u64 = 100_000;
const SERVICE: &str = "bench";
const HANDSHAKE: [(Path, Segment); 3] =
    [(Path::Request, Segment::Syn), (Path::Reply, Segment::SynAck), (Path::Request, Segment::Ack)];

/// What one size came to.
struct Measured {
    flows: u32,
    held: u64,
    untracked: u64,
    /// Of the flow tables.
    bytes: u64,
    /// Of each sweep that was seen, in microseconds.
    sweeps: Vec<u64>,
    list: List,
    removal: Duration,
}

/// What the list of all flows came to.
struct List {
    flows: u64,
    bytes: u64,
    time: Duration,
    /// Of the agent: before, and the most while it was read.
    memory: [u64; 2],
}

/// Measures each size, prints the table.
pub(super) fn run() -> Result<()> {
    println!("{}\n", machine::describe()?);
    let mut text = String::from(
        "| flows | held | untracked | table, bytes a flow | sweep, ms of CPU | ... per million | list, s | list, MB | agent, MB before / while listing | removed in, s |\n\
         |---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for flows in FLOWS {
        text += &measure(flows).with_context(|| format!("{flows} flows"))?.row();
    }
    println!("\n{text}");
    Ok(())
}

fn measure(flows: u32) -> Result<Measured> {
    let namespace = network::build()?;
    let agent = Agent::start_in(&namespace, &[INTERFACE], Settings { flows, ..Settings::default() })?;
    let (vip, backend) = (Family::V4.vip(), Family::V4.first_backend());
    agent.must(["service", "add", SERVICE, "--vip", &format!("{vip}:{SERVICE_PORT}"), "--health", "none"])?;
    agent.must(["backend", "add", SERVICE, &format!("{backend}:{BACKEND_PORT}")])?;
    open(&namespace, flows)?;
    let least = (f64::from(flows) * HELD) as u64;
    let held = wait::until(PASS_TIMEOUT, "a sweep has met every flow", || {
        let held = status(&agent, "active")?;
        Ok((held >= least).then_some(held))
    })?;
    println!("{held} of {flows} flows are held");
    let sweeps = watch_sweeps(&agent)?;
    let list = list(&agent, flows)?;
    let begin = Instant::now();
    agent.must(["service", "remove", SERVICE])?;
    wait::until(PASS_TIMEOUT, "no flow is left", || Ok((status(&agent, "active")? == 0).then_some(())))?;
    Ok(Measured {
        flows,
        held,
        untracked: agent.counter("flow_untracked")?,
        bytes: [maps::FLOWS4, maps::FLOWS6].iter().map(|name| size(&agent, name)).sum::<Result<u64>>()?,
        sweeps,
        list,
        removal: begin.elapsed(),
    })
}

/// Plays every flow's handshake.
fn open(namespace: &Namespace, flows: u32) -> Result<()> {
    let id = namespace.xdp_program(INTERFACE)?.context("the agent has attached no program")?;
    let program = loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id)
        .context("the attached program is gone")?;
    let program = program.fd().context("cannot open the attached program")?;
    namespace.run(|| {
        let mut feed = Feed::new()?;
        let steps = HANDSHAKE.map(|(path, segment)| Traffic {
            family: Family::V4,
            path,
            segment,
            comes_again: false,
        });
        let sources: Result<Vec<_>> =
            steps.iter().map(|traffic| Source::new(&feed, traffic, program.as_fd())).collect();
        let (sources, ingress) = (sources?, network::ifindex()?);
        for first in (0..flows).step_by(AT_ONCE as usize) {
            for (source, traffic) in sources.iter().zip(&steps) {
                let template = traffic.template();
                feed.prepare(&template, first.into())?;
                bpf::test_run(source.program(), &template.frame, ingress, AT_ONCE.min(flows - first))
                    .context("the kernel refuses to run the bench's program")?;
                interrupt::check()?;
            }
        }
        Ok(())
    })
}

/// CPU time of the sweeps that end meanwhile, audits among them.
fn watch_sweeps(agent: &Agent) -> Result<Vec<u64>> {
    let end = Instant::now() + WATCHED;
    let mut sweeps = vec![status(agent, "sweep_cpu_microseconds")?];
    while Instant::now() < end {
        wait::observe(LOOK_EVERY)?;
        let last = status(agent, "sweep_cpu_microseconds")?;
        if sweeps.last() != Some(&last) {
            sweeps.push(last);
        }
    }
    Ok(sweeps)
}

/// Lists all flows, as a user does.
fn list(agent: &Agent, flows: u32) -> Result<List> {
    let limit = (u64::from(flows) * 2).to_string();
    let before = memory(agent)?;
    let begin = Instant::now();
    let mut command = agent.command();
    command.arg("--socket").arg(agent.socket()).args(["-o", "json", "flows", SERVICE, "--limit", &limit]);
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start `lb-agent flows`")?;
    let mut lines = BufReader::new(child.stdout.take().context("`lb-agent flows` has no output")?);
    let mut list = List { flows: 0, bytes: 0, time: Duration::ZERO, memory: [before; 2] };
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        list.bytes += line.len() as u64;
        list.flows += u64::from(line.starts_with(b"{"));
        line.clear();
        if list.flows % LOOK_AT == 1 {
            list.memory[1] = list.memory[1].max(memory(agent)?);
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "`lb-agent flows` failed: {status}");
    list.time = begin.elapsed();
    ensure!(list.flows as f64 >= f64::from(flows) * HELD, "only {} of {flows} flows are listed", list.flows);
    Ok(list)
}

/// A number of `status`'s `flows`.
fn status(agent: &Agent, field: &str) -> Result<u64> {
    let status: Value = agent.json(["status"])?;
    status["flows"][field].as_u64().with_context(|| format!("no number {field} in {}", status["flows"]))
}

/// Bytes of a map's rows.
fn size(agent: &Agent, map: &str) -> Result<u64> {
    let info = MapInfo::from_pin(agent.pin_dir().join(map)).with_context(|| format!("cannot open {map}"))?;
    Ok(u64::from(info.max_entries()) * u64::from(info.value_size()))
}

/// Bytes of memory that are the agent's alone: the maps are not among them.
fn memory(agent: &Agent) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", agent.pid()?))?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    let kilobytes = line.trim().trim_end_matches("kB").trim();
    Ok(kilobytes.parse::<u64>().with_context(|| format!("RssAnon: {line}"))? * 1024)
}

impl Measured {
    fn row(&self) -> String {
        let Self { flows, held, untracked, bytes, sweeps, list, removal } = self;
        let per_flow = *bytes as f64 / f64::from(*flows);
        let millis = |micros: Option<&u64>| micros.map_or(0.0, |&micros| micros as f64 / 1000.0);
        let (least, most) = (millis(sweeps.iter().min()), millis(sweeps.iter().max()));
        let millions = f64::from(*flows) / 1e6;
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        format!(
            "| {flows} | {held} | {untracked} | {per_flow:.0} | {least:.0} .. {most:.0} | {:.0} .. {:.0} | {:.1} | {:.0} | {:.0} / {:.0} | {:.0} |\n",
            least / millions,
            most / millions,
            list.time.as_secs_f64(),
            megabytes(list.bytes),
            megabytes(list.memory[0]),
            megabytes(list.memory[1]),
            removal.as_secs_f64(),
        )
    }
}
