//! Frames on their whole way: out of one end of a veth pair, through a program on the other, back, and counted where they
//! came from. Beside the balancer: a program that swaps MAC addresses and transmits, and the kernel with nftables DNAT.
//!
//! Everything runs on one CPU, as a veth pair's packets are taken up where they were sent; so the time of a round is the
//! time of all of its steps, the sender's and the counting program's included.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::asm::{Alu, Assembler, Helper, Reg};
use super::balancer::{BACKENDS, Balancer};
use super::establish;
use super::lane::Bench;
use super::machine;
use super::network::{self, FAR_END, INTERFACE};
use super::reference;
use super::source::{Feed, Source};
use super::statistics::{Figure, ratio};
use super::traffic::{BACKEND_PORT, Family, Path, SERVICE_PORT, Segment, Traffic, following};
use crate::bpf::{self, MMAPABLE, MapType, verdict};
use crate::interrupt;
use crate::netns::Namespace;
use crate::object::Mapping;
use crate::{process, wait, xdp_pass};

/// Frames of a round.
const FRAMES: u32 = 500_000;
const QUICK_FRAMES: u32 = 100_000;
const ROUNDS: usize = 7;
const QUICK_ROUNDS: usize = 3;
/// Flows that frames are drawn from.
const FLOWS: [u32; 3] = [1, 100_000, 1_000_000];
/// The most for nftables: what `net.netfilter.nf_conntrack_max` allows by default on such machines, by half.
const MOST_TRACKED: u32 = 100_000;
/// Frames that may be lost on the way, of a round.
const LOST: f64 = 0.01;
/// The last frames may be under way when the sender returns.
const ARRIVAL: Duration = Duration::from_secs(5);
const TRAFFIC: Traffic =
    Traffic { family: Family::V4, path: Path::Request, segment: Segment::Ack, comes_again: true };

/// What frames meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    /// A program that swaps MAC addresses and transmits.
    Swap,
    Balancer,
    /// The kernel's forwarding, with DNAT by nftables.
    Nftables,
}

impl Between {
    const fn name(self) -> &'static str {
        match self {
            Self::Swap => "swap and transmit",
            Self::Balancer => "this balancer",
            Self::Nftables => "nftables DNAT",
        }
    }
}

/// One veth pair with what is at its ends.
struct Chain {
    between: Between,
    source: Source,
    sink: Sink,
    ingress: u32,
    /// Nanoseconds per frame, round by round.
    rounds: Vec<f64>,
    /// What holds programs and tables in place.
    _bench: Option<Bench>,
    _feed: Option<Feed>,
    _link: Option<OwnedFd>,
    namespace: Namespace,
}

/// Counts and drops what comes back.
struct Sink {
    counted: Mapping<u64>,
    _map: OwnedFd,
    _link: OwnedFd,
}

/// Measures each number of flows, prints the table.
pub(super) fn run(quick: bool) -> Result<()> {
    interrupt::install();
    // On a thread that goes from one namespace to the next. A process whose main thread did so would be taken for one that
    // was left behind in a namespace, and end with it.
    let thread = std::thread::spawn(move || measure_all(quick));
    thread.join().map_err(|_| anyhow::anyhow!("the measuring thread panicked"))?
}

fn measure_all(quick: bool) -> Result<()> {
    let (frames, rounds) = if quick { (QUICK_FRAMES, QUICK_ROUNDS) } else { (FRAMES, ROUNDS) };
    let machine = machine::describe()?;
    let cpu = machine::stay_on_one_cpu()?;
    println!("{machine}; on CPU {cpu}, {rounds} rounds of {frames} frames\n");
    let mut text = String::from(
        "| flows | through | ns a frame, the whole way | 10 % .. 90 % | of swap and transmit | of nftables DNAT |\n\
         |---:|---|---:|---|---:|---:|\n",
    );
    for flows in FLOWS {
        text += &measure(flows, frames, rounds).with_context(|| format!("{flows} flows"))?;
    }
    println!("{text}");
    Ok(())
}

fn measure(flows: u32, frames: u32, rounds: usize) -> Result<String> {
    let mut chains = vec![Chain::build(Between::Swap, flows)?, Chain::build(Between::Balancer, flows)?];
    if flows <= MOST_TRACKED {
        chains.push(Chain::build(Between::Nftables, flows)?);
    }
    for chain in &mut chains {
        // Caches, and connections that nftables has not seen.
        chain.send(frames.max(2 * flows.min(MOST_TRACKED)))?;
    }
    for round in 0..rounds {
        chains.rotate_left(usize::from(round > 0));
        for chain in &mut chains {
            let time = chain.send(frames)?;
            chain.rounds.push(time);
        }
    }
    chains.sort_by_key(|chain| chain.between as u8);
    let of =
        |between| chains.iter().find(|chain| chain.between == between).map(|chain| chain.rounds.as_slice());
    let against = |chain: &Chain, between| {
        of(between).map_or_else(|| "-".to_owned(), |other| format!("{:.2}", ratio(&chain.rounds, other)))
    };
    let row = |chain: &Chain| {
        let Figure { low, median, high } = Figure::of(chain.rounds.iter().copied());
        format!(
            "| {flows} | {} | {median:.0} | {low:.0} .. {high:.0} | {} | {} |\n",
            chain.between.name(),
            against(chain, Between::Swap),
            against(chain, Between::Nftables)
        )
    };
    Ok(chains.iter().map(row).collect())
}

impl Chain {
    fn build(between: Between, flows: u32) -> Result<Self> {
        let namespace = network::build()?;
        namespace.handle().enter().context("cannot enter a namespace")?;
        let (ingress, far_end) = (network::index_of(INTERFACE)?, network::index_of(FAR_END)?);
        let sink = Sink::attach(far_end)?;
        let redirect = redirect_to(far_end)?;
        let (bench, feed, link) = match between {
            Between::Balancer => {
                let mut bench = Bench::new(Balancer::load(INTERFACE, false)?, ingress, 0)?;
                establish::balancer(&mut bench, Family::V4, flows)?;
                establish::shuffle(&mut bench, Family::V4, flows)?;
                (Some(bench), None, None)
            }
            Between::Swap => {
                (None, Some(drawn(flows)?), Some(bpf::attach(reference::floor(Family::V4)?, ingress)?))
            }
            Between::Nftables => {
                // What comes and goes by one interface would have the kernel tell clients of a shorter way.
                namespace.sysctl("net.ipv4.conf.all.send_redirects", "0")?;
                namespace.sysctl(&format!("net.ipv4.conf.{INTERFACE}.send_redirects"), "0")?;
                let command = namespace.command("nft");
                let output = process::run_with_input(arguments(command), dnat().as_bytes(), ARRIVAL)?;
                ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr).trim());
                // Frames reach an interface that another program redirects to only if it has a program of its own.
                (None, Some(drawn(flows)?), Some(xdp_pass::attach(&namespace, INTERFACE)?))
            }
        };
        let feed_in_use = bench
            .as_ref()
            .map(|bench| &bench.requests)
            .or(feed.as_ref())
            .context("no feed for this chain")?;
        let source = Source::new(feed_in_use, &TRAFFIC, redirect)?;
        let (_bench, _feed, _link) = (bench, feed, link);
        Ok(Self { between, source, sink, ingress, rounds: Vec::new(), _bench, _feed, _link, namespace })
    }

    /// Sends frames and waits until they are back; nanoseconds for each.
    fn send(&mut self, frames: u32) -> Result<f64> {
        self.namespace.handle().enter()?;
        let template = TRAFFIC.template();
        let feed = self._bench.as_mut().map(|bench| &mut bench.requests).or(self._feed.as_mut());
        feed.context("no feed for this chain")?.prepare(&template, 0)?;
        let before = self.sink.counted();
        let least = u64::from(frames) - (f64::from(frames) * LOST) as u64;
        let begin = Instant::now();
        bpf::live_run(self.source.program(), &template.frame, self.ingress, frames)
            .context("the kernel does not send frames of BPF_PROG_TEST_RUN (Linux 5.18)")?;
        let sent = begin.elapsed();
        let what = format!("{least} of {frames} frames are back through {}", self.between.name());
        if self.sink.counted() - before < least {
            wait::until_true(ARRIVAL, &what, || self.sink.counted() - before >= least)?;
        }
        interrupt::check()?;
        Ok(sent.as_nanos() as f64 / (self.sink.counted() - before) as f64)
    }
}

impl Sink {
    fn attach(interface: u32) -> Result<Self> {
        let map = bpf::create_map(MapType::Array, 4, size_of::<u64>(), 1, MMAPABLE)?;
        // SAFETY: created with this very size; an integer.
        let counted = unsafe { Mapping::map(&map, 1)? };
        let mut asm = Assembler::default();
        asm.map_value(Reg::R1, &map);
        asm.alu(Alu::Move, Reg::R2, 1);
        asm.atomic_add(Reg::R1, 0, Reg::R2);
        asm.exit_with(verdict::DROP as i32);
        let link = bpf::attach(bpf::load_program("bench_sink", &asm.finish())?, interface)?;
        Ok(Self { counted, _map: map, _link: link })
    }

    fn counted(&self) -> u64 {
        // SAFETY: mapped and aligned; volatile, since the kernel's program writes it.
        unsafe { std::ptr::from_ref(&self.counted[0]).read_volatile() }
    }
}

/// Sends frames out of an interface.
fn redirect_to(interface: u32) -> Result<OwnedFd> {
    let mut asm = Assembler::default();
    asm.alu(Alu::Move, Reg::R1, interface as i32);
    asm.alu(Alu::Move, Reg::R2, 0);
    asm.call(Helper::Redirect);
    asm.exit();
    bpf::load_program("bench_redirect", &asm.finish())
}

/// A feed of flows drawn at random, the same that the balancer's chain has.
fn drawn(flows: u32) -> Result<Feed> {
    let mut feed = Feed::new()?;
    let drawn = establish::drawn(flows);
    feed.fill(|position| drawn[position as usize])?;
    Ok(feed)
}

fn arguments(mut command: std::process::Command) -> std::process::Command {
    command.args(["-f", "-"]);
    command
}

/// A backend for each connection by a hash of client address and port, as ours has it.
fn dnat() -> String {
    let backends: Vec<_> = (0..BACKENDS)
        .map(|number| format!("{number} : {}", following(Family::V4.first_backend(), number.into())))
        .collect();
    format!(
        "table ip bench {{\n chain in {{\n  type nat hook prerouting priority -100;\n  ip daddr {} tcp dport {SERVICE_PORT} \
         dnat to jhash ip saddr . tcp sport mod {BACKENDS} map {{ {} }}:{BACKEND_PORT}\n }}\n}}\n",
        Family::V4.vip(),
        backends.join(", ")
    )
}
