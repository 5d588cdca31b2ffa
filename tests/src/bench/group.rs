//! A group: everything that is measured over the same flows, round by round in turn.

use anyhow::{Result, ensure};
use lb_common::reason::Reason;

use super::balancer::{FLOWS, Setting};
use super::crowd;
use super::establish;
use super::lane::{Bench, Expected, Lane};
use super::reference::{self, LruTable};
use super::report::Case;
use super::statistics::net;
use super::traffic::{Family, Path, Segment, Traffic};
use crate::bpf::verdict;

/// Packets of a timed run. Few calls with many packets: each call with more than one waits for a grace period.
const PACKETS: u32 = 1_000_000;
/// Packets before each timed run: what ran before has left the caches to this lane.
const SETTLE: u32 = PACKETS / 4;
/// Look-ups of the reference that may find nothing: an LRU table evicts a little before it is full.
const MISSES: f64 = 0.01;

/// What one lane came to.
pub(super) struct Measured {
    pub(super) case: Case,
    pub(super) setting: Setting,
    /// Nanoseconds per packet, the empty program's taken off, round by round.
    pub(super) net: Vec<f64>,
    pub(super) saw: String,
}

/// What a group came to.
pub(super) struct Group {
    pub(super) family: Family,
    pub(super) flows: u32,
    pub(super) lanes: Vec<Measured>,
}

impl Group {
    /// A case's rounds.
    pub(super) fn net_of(&self, case: Case) -> Option<&[f64]> {
        self.net_with(case, Setting::default())
    }

    /// A case's rounds with services that balance otherwise.
    pub(super) fn net_with(&self, case: Case, setting: Setting) -> Option<&[f64]> {
        self.lanes
            .iter()
            .find(|lane| (lane.case, lane.setting) == (case, setting))
            .map(|lane| lane.net.as_slice())
    }
}

/// The references' tables.
pub(super) struct Tables {
    pub(super) known: LruTable,
    /// None where insertions are not measured: one figure is enough.
    pub(super) full: Option<LruTable>,
}

/// Measures everything over that many flows, which are established already.
pub(super) fn measure(
    bench: &mut Bench,
    tables: &Tables,
    family: Family,
    flows: u32,
    rounds: usize,
) -> Result<Group> {
    establish::shuffle(bench, family, flows)?;
    if has_crowd(family, flows) {
        establish::crowd(bench, flows)?;
    }
    let mut lanes = lanes(bench, tables, family, flows)?;
    for lane in &mut lanes {
        lane.sample(bench)?;
    }
    let misses = tables.known.misses();
    for round in 0..rounds {
        // Another lane first in each round, so that none always runs behind the same one.
        lanes.rotate_left(usize::from(round > 0));
        for lane in &mut lanes {
            lane.round(bench, SETTLE, PACKETS)?;
        }
    }
    let misses = (tables.known.misses() - misses) as f64 / (rounds as f64 * f64::from(SETTLE + PACKETS));
    ensure!(
        misses < MISSES,
        "{:.1} % of the look-ups in the reference's table found nothing: its figure would be too low",
        misses * 100.0
    );
    Ok(Group { family, flows, lanes: less_empty(lanes) })
}

/// Whether flows to many services are measured too: not where they would come on top of as many as the table is made for.
pub(super) const fn has_crowd(family: Family, flows: u32) -> bool {
    matches!(family, Family::V4) && flows < crowd::FLOWS
}

fn lanes(bench: &mut Bench, tables: &Tables, family: Family, flows: u32) -> Result<Vec<Lane>> {
    let traffic = |path, segment, comes_again| Traffic { family, path, segment, comes_again };
    let request = traffic(Path::Request, Segment::Ack, true);
    let reply = traffic(Path::Reply, Segment::Ack, true);
    let new_flow = traffic(Path::Request, Segment::Syn, false);
    let foreign = traffic(Path::Foreign, Segment::Ack, true);

    let balancer = bench.balancer.program()?;
    let empty = reference::empty()?;
    let transmitted = Expected::TRANSMITTED;
    let counted = |verdict, reason| Expected { verdict, reason: Some(reason) };
    let forwarded = counted(verdict::TX, Reason::RequestForwarded);
    let returned = counted(verdict::TX, Reason::ReplyForwarded);
    let passed = counted(verdict::PASS, Reason::PassNotOurs);

    let mut lanes = Vec::new();
    let crowd_request = traffic(Path::CrowdRequest, Segment::Ack, true);
    let crowd_reply = traffic(Path::CrowdReply, Segment::Ack, true);
    let with_crowd = [crowd_request, crowd_reply].into_iter().filter(|_| has_crowd(family, flows));
    for traffic in [request, reply, new_flow].into_iter().chain(with_crowd) {
        lanes.push(Lane::new(bench, None, traffic, &empty, transmitted)?);
    }
    let mut add = |case, traffic, program: &std::os::fd::OwnedFd, expected| -> Result<()> {
        lanes.push(Lane::new(bench, Some(case), traffic, program, expected)?);
        Ok(())
    };
    add(Case::Floor, request, &reference::floor(family)?, transmitted)?;
    add(Case::LruLookup, request, &tables.known.look_up()?, transmitted)?;
    if let Some(full) = &tables.full {
        add(Case::LruInsert, new_flow, &full.insert()?, transmitted)?;
    }
    add(Case::Request, request, &balancer, forwarded)?;
    add(Case::Reply, reply, &balancer, returned)?;
    add(Case::NewFlow, new_flow, &balancer, forwarded)?;
    add(Case::NotOurs, foreign, &balancer, passed)?;
    // Requests first: from them the balancer learns where replies go.
    for (case, setting, traffic, expected) in [
        (Case::Request, Setting::Exceptions, request, forwarded),
        (Case::Reply, Setting::Exceptions, reply, returned),
        (Case::NewFlow, Setting::Exceptions, new_flow, forwarded),
        (Case::NewFlow, Setting::LeastConnections, new_flow, forwarded),
    ] {
        // At rated load one new flow in a hundred or so finds no room, and where no hash finds its backend it is dropped.
        if setting == Setting::LeastConnections && flows == FLOWS {
            continue;
        }
        lanes.push(Lane::new(bench, Some(case), traffic, &balancer, expected)?.with(setting));
    }
    if has_crowd(family, flows) {
        for (case, traffic, expected) in
            [(Case::Request, crowd_request, forwarded), (Case::Reply, crowd_reply, returned)]
        {
            lanes.push(Lane::new(bench, Some(case), traffic, &balancer, expected)?.with(Setting::Crowd));
        }
    }
    Ok(lanes)
}

/// Takes off each lane the empty program's time behind the same source in the same round.
fn less_empty(lanes: Vec<Lane>) -> Vec<Measured> {
    let (empty, mut lanes): (Vec<_>, Vec<_>) = lanes.into_iter().partition(|lane| lane.case.is_none());
    // The rounds have turned them.
    lanes.sort_by_key(|lane| (lane.case, lane.setting));
    let measured = |lane: Lane| {
        let empty = empty.iter().find(|empty| empty.shares_source(&lane))?;
        let net = net(&lane.rounds, &empty.rounds);
        Some(Measured { case: lane.case?, setting: lane.setting, net, saw: lane.saw })
    };
    lanes.into_iter().filter_map(measured).collect()
}
