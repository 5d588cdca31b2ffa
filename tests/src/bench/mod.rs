//! The bench: what a packet costs the balancer, in nanoseconds of CPU time, beside programs that do less.
//!
//! `docs/benchmarks.md` says what is measured, how, and what the figures do not say. The modules:
//!
//! ```text
//! network, balancer, reference   what packets meet
//! asm                            what the bench's own programs are written in
//! crowd                          many services in the same tables
//! traffic, source                the packets, and the program that writes them
//! establish, lane, group         flows set up, programs timed in turn
//! statistics, report, machine    figures, rows, where they come from
//! peers                          whole requests, beside other balancers
//! chain                          frames from one veth end to the other
//! scale                          what millions of flows take of the agent
//! ```

mod asm;
mod balancer;
mod chain;
mod crowd;
mod establish;
mod group;
mod lane;
mod machine;
mod network;
mod peers;
mod reference;
mod report;
mod scale;
mod source;
mod statistics;
mod traffic;

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::interrupt;
use balancer::{Balancer, Setting};
use group::{Group, Tables};
use lane::Bench;
use reference::LruTable;
use report::{Case, Row};
use statistics::{Figure, ratio};
use traffic::Family;

/// What the command line asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Write the rows as an array of objects
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Fewer rounds: to see that it runs, not to quote
    #[arg(long)]
    pub quick: bool,
    /// Measure whole requests instead, beside nftables, HAProxy and nginx
    #[arg(long, conflicts_with = "json")]
    pub peers: bool,
    /// Send frames through a veth pair instead, beside swap-and-transmit and nftables
    #[arg(long, conflicts_with_all = ["json", "peers", "scale"])]
    pub chain: bool,
    /// Fill the flow table of a running agent instead: memory, sweep and list
    #[arg(long, conflicts_with_all = ["json", "quick", "peers"])]
    pub scale: bool,
}

/// Rounds of each lane: odd, so that the median is one of them.
const ROUNDS: usize = 9;
const QUICK_ROUNDS: usize = 3;
/// Flows that packets are drawn from: one, as many as fit the caches, as many as do not.
const FLOWS: [u32; 3] = [1, 10_000, balancer::FLOWS];

/// Measures, prints the table, writes the rows.
///
/// # Errors
/// Without root, when the kernel refuses a program, when packets meet anything but what they should, or on Ctrl-C.
pub fn run(options: &Options) -> Result<()> {
    interrupt::install();
    if options.peers {
        return peers::run(options.quick);
    }
    if options.chain {
        return chain::run(options.quick);
    }
    if options.scale {
        return scale::run();
    }
    let namespace = network::build()?;
    let rows = namespace.run(|| measure(options))?;
    println!("\n{}", report::table(&rows));
    if let Some(file) = &options.json {
        let text = report::json(&rows)?;
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Everything, on one CPU.
fn measure(options: &Options) -> Result<Vec<Row>> {
    let machine = machine::describe()?;
    let cpu = machine::stay_on_one_cpu()?;
    let rounds = if options.quick { QUICK_ROUNDS } else { ROUNDS };
    println!("{machine}; on CPU {cpu}, {rounds} rounds\n");
    let mut groups = Vec::new();
    for family in Family::ALL {
        groups.extend(measure_family(family, rounds)?);
    }
    for group in &groups {
        let request = |setting| group.net_with(Case::Request, setting);
        if let Some((many, one)) = request(Setting::Crowd).zip(request(Setting::Maglev)) {
            println!(
                "IPv{}, {} flows: a request to one of {} services with {} backends each costs {:.2} of one to the only service",
                group.family.number(),
                group.flows,
                crowd::SERVICES,
                crowd::BACKENDS,
                ratio(many, one)
            );
        }
        let new_flow = |setting| group.net_with(Case::NewFlow, setting);
        if let Some((least, maglev)) = new_flow(Setting::LeastConnections).zip(new_flow(Setting::Maglev)) {
            println!(
                "IPv{}, {} flows: a new flow by least-connections costs {:.2} of one by maglev",
                group.family.number(),
                group.flows,
                ratio(least, maglev)
            );
        }
    }
    Ok(rows(&groups))
}

fn measure_family(family: Family, rounds: usize) -> Result<Vec<Group>> {
    let full = (family == Family::V4).then(|| LruTable::new(family)).transpose()?;
    let tables = Tables { known: LruTable::new(family)?, full };
    let mut next_flow = 0;
    let mut groups = Vec::new();
    for flows in FLOWS {
        // A balancer of its own for each group: nothing of the one before is left in its tables.
        let mut bench = Bench::new(
            Balancer::load(network::INTERFACE, group::has_crowd(family, flows))?,
            network::ifindex()?,
            next_flow,
        )?;
        if groups.is_empty() {
            for table in [Some(&tables.known), tables.full.as_ref()].into_iter().flatten() {
                establish::fill(&mut bench, table, family)?;
            }
            establish::scatter(&mut bench, &tables.known, family)?;
        }
        let established = establish::balancer(&mut bench, family, flows)?;
        println!("IPv{}: {established}", family.number());
        groups.push(group::measure(&mut bench, &tables, family, flows, rounds)?);
        next_flow = bench.next_flow;
    }
    Ok(groups)
}

/// One row for each case of each group, and one for the insertion, whose rounds of all groups are one figure.
fn rows(groups: &[Group]) -> Vec<Row> {
    let insertions: Vec<f64> =
        groups.iter().filter_map(|group| group.net_of(Case::LruInsert)).flatten().copied().collect();
    let insertion = Figure::of(insertions);
    let mut rows = Vec::new();
    for group in groups {
        for lane in group.lanes.iter().filter(|lane| lane.case != Case::LruInsert) {
            let against = |case| group.net_of(case).map(|reference| ratio(&lane.net, reference));
            let net = Figure::of(lane.net.iter().copied());
            rows.push(Row {
                case: lane.case,
                setting: lane.setting,
                family: group.family.number(),
                flows: group.flows,
                net,
                ratio_lru: match lane.case {
                    Case::NewFlow => Some(net.median / insertion.median),
                    _ => against(Case::LruLookup),
                },
                ratio_floor: against(Case::Floor),
                saw: lane.saw.clone(),
            });
        }
    }
    rows.extend(insertion_row(groups, insertion));
    rows
}

fn insertion_row(groups: &[Group], net: Figure) -> Option<Row> {
    let group = groups.iter().rfind(|group| group.net_of(Case::LruInsert).is_some())?;
    let lane = group.lanes.iter().find(|lane| lane.case == Case::LruInsert)?;
    let against = |case| group.net_of(case).map(|reference| ratio(&lane.net, reference));
    Some(Row {
        case: Case::LruInsert,
        setting: Setting::default(),
        family: group.family.number(),
        flows: group.flows,
        net,
        ratio_lru: against(Case::LruLookup),
        ratio_floor: against(Case::Floor),
        saw: lane.saw.clone(),
    })
}
