//! Brings the tables to the state that is measured: flows established by packets, everything churned.

use anyhow::{Result, ensure};
use lb_common::flow::State;
use lb_common::reason::Event;

use super::balancer::Balancer;
use super::crowd;
use super::lane::Bench;
use super::reference::LruTable;
use super::source::{LIST, Source};
use super::statistics::Draw;
use super::traffic::{Family, Path, Segment, Traffic, client};

/// Flows whose handshakes are under way at once.
const AT_ONCE: u32 = 1 << 14;
/// The same in a table full of others' handshakes, which displace each other before they are through.
const FEW_AT_ONCE: u32 = 1 << 10;
/// New flows that are sent before anything is timed: twice as many as the balancer's table has entries, four times
/// as many as the references' have. A young table is faster than it will ever be again.
const CHURN: u32 = 4_000_000;
/// Share of the flows that must have an entry. At rated load one flow in 300 finds both its buckets full, and of the
/// handshakes under way at once some displace each other.
const TRACKED: f64 = 0.98;

/// Plays the handshakes of flows 0 to `flows`, then the SYNs of many others. Returns what the counters say of it.
pub(super) fn balancer(bench: &mut Bench, family: Family, flows: u32) -> Result<String> {
    let before = bench.balancer.counters();
    let steps =
        [(Path::Request, Segment::Syn), (Path::Reply, Segment::SynAck), (Path::Request, Segment::Ack)];
    let program = bench.balancer.program()?;
    for first in (0..flows).step_by(AT_ONCE as usize) {
        let count = AT_ONCE.min(flows - first);
        list(bench, family, |position| first + position % count)?;
        for (path, segment) in steps {
            let traffic = Traffic { family, path, segment, comes_again: true };
            play(bench, traffic, &program, count)?;
        }
    }
    let established = bench.balancer.flows_in(family, State::ESTABLISHED);
    let others = bench.balancer.counters().event_since(&before, Event::FlowUntracked);
    ensure!(
        established as f64 >= f64::from(flows) * TRACKED,
        "only {established} of {flows} IPv{} flows were established; packets met: {}",
        family.number(),
        bench.balancer.counters().reasons_since(&before)
    );
    let churn = Traffic { family, path: Path::Request, segment: Segment::Syn, comes_again: false };
    play(bench, churn, &program, CHURN)?;
    let kept = bench.balancer.flows_in(family, State::ESTABLISHED);
    ensure!(kept == established, "of {established} established flows a flood of SYNs left {kept}");
    let evicted = bench.balancer.counters().event_since(&before, Event::FlowEvicted);
    Ok(format!(
        "{established} of {flows} flows established ({others} times a flow went untracked), all kept through {CHURN} SYNs \
         of others ({evicted} entries evicted)"
    ))
}

/// Plays the handshakes of flows to many services, and sets their lists to some drawn at random.
pub(super) fn crowd(bench: &mut Bench, flows: u32) -> Result<()> {
    let before = bench.balancer.flows_in(Family::V4, State::ESTABLISHED);
    let program = bench.balancer.program()?;
    for first in (0..flows).step_by(FEW_AT_ONCE as usize) {
        let count = FEW_AT_ONCE.min(flows - first);
        list_crowd(bench, |position| first + position % count)?;
        for (path, segment) in [
            (Path::CrowdRequest, Segment::Syn),
            (Path::CrowdReply, Segment::SynAck),
            (Path::CrowdRequest, Segment::Ack),
        ] {
            let traffic = Traffic { family: Family::V4, path, segment, comes_again: true };
            play(bench, traffic, &program, count)?;
        }
    }
    let established = bench.balancer.flows_in(Family::V4, State::ESTABLISHED) - before;
    ensure!(
        established as f64 >= f64::from(flows) * TRACKED,
        "only {established} of {flows} flows to {} services were established",
        crowd::SERVICES
    );
    let drawn = drawn(flows);
    list_crowd(bench, |position| drawn[position as usize])
}

/// Sets both lists of flows to many services.
fn list_crowd(bench: &mut Bench, flow: impl Fn(u32) -> u32) -> Result<()> {
    let entry = |path: Path, flow, peer: u16| flow | u32::from(peer) << path.flow_bits();
    bench.crowd_requests.fill(|position| {
        let flow = flow(position);
        entry(Path::CrowdRequest, flow, crowd::service_of(flow))
    })?;
    let backends: Result<Vec<u16>> = (0..crowd::FLOWS).map(crowd::backend_of).collect();
    let backends = backends?;
    bench.crowd_replies.fill(|position| {
        let flow = flow(position);
        entry(Path::CrowdReply, flow, backends[flow as usize])
    })
}

/// Churns a reference's table until it is full of flows that came once.
pub(super) fn fill(bench: &mut Bench, table: &LruTable, family: Family) -> Result<()> {
    let traffic = Traffic { family, path: Path::Request, segment: Segment::Syn, comes_again: false };
    play(bench, traffic, &table.put()?, CHURN)
}

/// Puts every flow that the list can number into a reference's table, in random order.
///
/// The kernel hands entries out, and takes the oldest back, in the order of their addresses. Put in alone, ten thousand
/// flows would be neighbours in two megabytes; flows that came over hours are anywhere among the others.
pub(super) fn scatter(bench: &mut Bench, table: &LruTable, family: Family) -> Result<()> {
    let mut flows: Vec<u32> = (0..LIST).collect();
    Draw::new(1).shuffle(&mut flows);
    bench.requests.fill(|position| flows[position as usize])?;
    let traffic = Traffic { family, path: Path::Request, segment: Segment::Ack, comes_again: true };
    play(bench, traffic, &table.put()?, LIST)
}

/// Sets the lists to flows drawn at random.
pub(super) fn shuffle(bench: &mut Bench, family: Family, flows: u32) -> Result<()> {
    let drawn = drawn(flows);
    list(bench, family, |position| drawn[position as usize])
}

/// As many flows as a list holds, at random.
pub(super) fn drawn(flows: u32) -> Vec<u32> {
    let mut draw = Draw::new(u64::from(flows));
    (0..LIST).map(|_| draw.below(flows)).collect()
}

/// Sets both lists: requests by flow, replies by flow and the backend that the flow was sent to.
fn list(bench: &mut Bench, family: Family, flow: impl Fn(u32) -> u32) -> Result<()> {
    bench.requests.fill(&flow)?;
    let balancer = &bench.balancer;
    let first = family.first_client(true);
    let backend = |flow| Balancer::backend_of(balancer, client(first, flow));
    bench.replies.fill(|position| {
        let flow = flow(position);
        flow | backend(flow) << Path::Reply.flow_bits()
    })
}

/// Sends packets, whatever they meet.
fn play(bench: &mut Bench, traffic: Traffic, program: &std::os::fd::OwnedFd, packets: u32) -> Result<()> {
    let source = Source::new(bench.feed(&traffic), &traffic, program)?;
    bench.run(&source, &traffic, packets)?;
    Ok(())
}
