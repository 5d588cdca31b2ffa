//! A lane: one program under test behind one source of traffic, and what was measured of it.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use anyhow::{Context, Result, ensure};
use lb_common::reason::Reason;
use rustix::time::{ClockId, clock_gettime};

use super::balancer::{Balancer, Setting};
use super::report::Case;
use super::source::{Feed, Source};
use super::traffic::{Path, Traffic};
use crate::bpf::{self, verdict};

/// Packets that are sent one by one, each verdict looked at.
const SAMPLES: u32 = 32;

/// What lanes share: the balancer, for its counters, and the feeds of the sources.
pub(super) struct Bench {
    pub(super) balancer: Balancer,
    /// The interface that frames come in by.
    pub(super) ingress: u32,
    /// What clients send.
    pub(super) requests: Feed,
    /// What backends send.
    pub(super) replies: Feed,
    /// What clients of many services send.
    pub(super) crowd_requests: Feed,
    /// What their backends send.
    pub(super) crowd_replies: Feed,
    /// Number of the next flow that was never seen.
    pub(super) next_flow: u64,
}

/// What a run came to.
pub(super) struct Run {
    nanoseconds: i64,
    /// Of the last packet.
    verdict: u32,
}

impl Bench {
    /// A balancer, an interface of this thread's network namespace that runs it, and the first flow not seen yet.
    pub(super) fn new(balancer: Balancer, ingress: u32, next_flow: u64) -> Result<Self> {
        let feed = Feed::new;
        let (requests, replies, crowd_requests, crowd_replies) = (feed()?, feed()?, feed()?, feed()?);
        Ok(Self { balancer, ingress, requests, replies, crowd_requests, crowd_replies, next_flow })
    }

    /// The feed of a kind of traffic.
    pub(super) const fn feed(&self, traffic: &Traffic) -> &Feed {
        match traffic.path {
            Path::Request | Path::Foreign => &self.requests,
            Path::Reply => &self.replies,
            Path::CrowdRequest => &self.crowd_requests,
            Path::CrowdReply => &self.crowd_replies,
        }
    }

    const fn feed_mut(&mut self, traffic: &Traffic) -> &mut Feed {
        match traffic.path {
            Path::Request | Path::Foreign => &mut self.requests,
            Path::Reply => &mut self.replies,
            Path::CrowdRequest => &mut self.crowd_requests,
            Path::CrowdReply => &mut self.crowd_replies,
        }
    }

    /// Sends packets: from the list's beginning, or of flows never seen.
    pub(super) fn run(&mut self, source: &Source, traffic: &Traffic, packets: u32) -> Result<Run> {
        self.run_from(0, source, traffic, packets)
    }

    fn run_from(&mut self, position: u32, source: &Source, traffic: &Traffic, packets: u32) -> Result<Run> {
        let template = traffic.template();
        let first = if traffic.comes_again { position.into() } else { self.next_flow };
        self.feed_mut(traffic).prepare(&template, first)?;
        let start = cpu_nanoseconds();
        let run = bpf::test_run(source.program(), &template.frame, self.ingress, packets);
        let nanoseconds = cpu_nanoseconds() - start;
        crate::interrupt::check()?;
        let verdict = run.context("the kernel refuses to run the bench's program")?;
        if !traffic.comes_again {
            self.next_flow += u64::from(packets);
        }
        Ok(Run { nanoseconds, verdict })
    }
}

/// CPU time of this thread: blind to what the system call sleeps, and finer than the kernel's own whole nanoseconds.
fn cpu_nanoseconds() -> i64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// What the packets of a lane are to meet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) verdict: u32,
    /// Under which reason the balancer counts them; none for other programs.
    pub(super) reason: Option<Reason>,
}

impl Expected {
    /// Sent back by a program that is not the balancer.
    pub(super) const TRANSMITTED: Self = Self { verdict: verdict::TX, reason: None };
}

/// One program behind one source.
pub(super) struct Lane {
    /// None for the empty program, whose time is taken off the others'.
    pub(super) case: Option<Case>,
    /// How the services balance meanwhile.
    pub(super) setting: Setting,
    traffic: Traffic,
    expected: Expected,
    source: Source,
    /// Nanoseconds per packet, round by round.
    pub(super) rounds: Vec<f64>,
    /// What sampled packets met.
    pub(super) saw: String,
}

impl Lane {
    /// A lane without measurements.
    pub(super) fn new(
        bench: &Bench,
        case: Option<Case>,
        traffic: Traffic,
        under_test: impl AsFd,
        expected: Expected,
    ) -> Result<Self> {
        let source = Source::new(bench.feed(&traffic), &traffic, under_test)?;
        let setting = Setting::default();
        Ok(Self { case, setting, traffic, expected, source, rounds: Vec::new(), saw: String::new() })
    }

    /// The same lane with services that balance otherwise.
    pub(super) fn with(self, setting: Setting) -> Self {
        Self { setting, ..self }
    }

    /// Whether two lanes have the same source but for what it writes: then it costs the same.
    pub(super) fn shares_source(&self, other: &Self) -> bool {
        (self.traffic.places(), self.traffic.comes_again)
            == (other.traffic.places(), other.traffic.comes_again)
    }

    /// Sends packets that are not timed, then one round of packets that are.
    ///
    /// # Errors
    /// Where any of the timed ones was not counted under the expected reason.
    pub(super) fn round(&mut self, bench: &mut Bench, settle: u32, packets: u32) -> Result<()> {
        bench.balancer.set(self.setting);
        bench.run(&self.source, &self.traffic, settle)?;
        let before = bench.balancer.counters();
        let run = bench.run(&self.source, &self.traffic, packets)?;
        self.check(run.verdict)?;
        if let Some(reason) = self.expected.reason {
            let after = bench.balancer.counters();
            ensure!(
                after.reason_since(&before, reason) == u64::from(packets),
                "{}: not all of {packets} packets were counted as {}, but: {}",
                self.name(),
                reason.name(),
                after.reasons_since(&before)
            );
        }
        self.rounds.push(run.nanoseconds as f64 / f64::from(packets));
        Ok(())
    }

    /// Sends some packets one by one and remembers what became of each.
    ///
    /// # Errors
    /// Where one of them met anything but what is expected.
    pub(super) fn sample(&mut self, bench: &mut Bench) -> Result<()> {
        bench.balancer.set(self.setting);
        let mut seen = BTreeMap::<u32, u32>::new();
        let before = bench.balancer.counters();
        for sample in 0..SAMPLES {
            let run = bench.run_from(sample, &self.source, &self.traffic, 1)?;
            *seen.entry(run.verdict).or_default() += 1;
        }
        let counts: Vec<_> = seen
            .iter()
            .map(|(&answer, count)| format!("{} {count}/{SAMPLES}", verdict::name(answer)))
            .collect();
        self.saw = counts.join(", ");
        let counted = || bench.balancer.counters().reasons_since(&before);
        seen.keys()
            .try_for_each(|&answer| self.check(answer).with_context(|| format!("packets met: {}", counted())))
    }

    fn check(&self, verdict: u32) -> Result<()> {
        ensure!(
            verdict == self.expected.verdict,
            "{}: a packet met {} instead of {}; a figure for such packets would mean nothing",
            self.name(),
            verdict::name(verdict),
            verdict::name(self.expected.verdict)
        );
        Ok(())
    }

    /// For messages.
    fn name(&self) -> String {
        let setting = self.setting;
        let case = self.case.map_or("empty program", Case::name);
        format!("{case} ({setting:?}), IPv{}", self.traffic.family.number())
    }
}
