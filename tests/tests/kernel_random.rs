//! The kernel's program and the host's pipeline are one: frame by frame the same verdict, bytes and counts.

use std::collections::BTreeMap;

use lb_common::reason::Reason;
use lb_tests::balancer::{Action, Balancer, Counters, Run};
use lb_tests::needs_root;
use lb_tests::packet::checksums_valid;
use lb_tests::random::{
    Random, any_frame, contradictory_lab as lab, later_contradictory_lab as later_lab, mutate, seed,
};

/// Frames in all.
const FRAMES: usize = 140_000;
/// Frames after which both start from empty tables.
const ROUND: usize = 2_000;
/// How often each reason must be met.
const EACH_REASON: u64 = 100;
/// What `BPF_PROG_TEST_RUN` takes: at least a link-layer header, at most what fits in a page beside the head- and
/// tailroom.
const LENGTHS: std::ops::RangeInclusive<usize> = 14..=3400;

/// Both sides, and what was counted on each.
struct Pair {
    host: Balancer,
    kernel: Balancer,
    counted: [Counters; 2],
}

impl Pair {
    fn new() -> Self {
        let lab = lab();
        Self { host: Balancer::host(&lab), kernel: Balancer::kernel(&lab), counted: Default::default() }
    }

    fn restart(&mut self) {
        self.host.restart(&lab());
        self.kernel.restart(&lab());
    }

    /// Half-way through a round: some backends are dead, flows stay.
    fn grow_older(&mut self) {
        self.host.configure(&later_lab());
        self.kernel.configure(&later_lab());
    }

    /// One frame through both.
    fn receive(&mut self, frame: &[u8]) -> Run {
        let host = self.host.receive_bytes(frame);
        let kernel = self.kernel.receive_bytes(frame);
        let same = host.action == kernel.action
            && host.counters == kernel.counters
            && (host.action == Action::Drop || host.output == kernel.output);
        assert!(same, "host: {}\nkernel: {}", host.report(None), kernel.report(None));
        for (counted, run) in self.counted.iter_mut().zip([&host, &kernel]) {
            for (name, count) in &run.counters {
                *counted.entry(name).or_default() += count;
            }
        }
        host
    }

    fn assert_same_tables(&mut self) {
        assert_eq!(self.host.flows(), self.kernel.flows(), "flow tables");
        let traffic = |side: &mut Balancer| (0..64).map(|backend| side.traffic(backend)).collect::<Vec<_>>();
        assert_eq!(traffic(&mut self.host), traffic(&mut self.kernel), "backends' traffic");
    }
}

#[test]
fn kernel_and_host_agree_on_every_frame_and_meet_every_reason() {
    needs_root!();
    let seed = seed();
    println!("LB_TEST_SEED={seed}");
    let mut random = Random::new(seed);
    let mut pair = Pair::new();
    for number in 0..FRAMES {
        if number % ROUND == 0 {
            pair.assert_same_tables();
            pair.restart();
        } else if number % ROUND == ROUND / 2 {
            pair.grow_older();
        }
        let mut frame = any_frame(&mut random).bytes();
        // Some rounds of valid frames alone, in which flows live long enough to fill their buckets.
        if (number / ROUND).is_multiple_of(2) && random.once_in(2) {
            mutate(&mut random, &mut frame);
        }
        if LENGTHS.contains(&frame.len()) {
            let run = pair.receive(&frame);
            assert_stays_valid(&run);
        }
    }
    for (side, counted) in ["host", "kernel"].into_iter().zip(&pair.counted) {
        let rare: BTreeMap<_, _> = Reason::ALL
            .iter()
            .map(|reason| (reason.name(), counted.get(reason.name()).copied().unwrap_or(0)))
            .filter(|(_, count)| *count < EACH_REASON)
            .collect();
        assert!(rare.is_empty(), "{side} met too rarely: {rare:?}");
    }
}

/// A frame with right checksums leaves with right checksums.
fn assert_stays_valid(run: &Run) {
    if run.action != Action::Drop && checksums_valid(&run.input).is_ok() {
        assert_eq!(checksums_valid(&run.output), Ok(()), "{}", run.report(None));
    }
}

#[test]
fn kernel_and_host_agree_on_frames_cut_off_anywhere() {
    needs_root!();
    let seed = seed();
    println!("LB_TEST_SEED={seed}");
    let mut random = Random::new(seed);
    let mut pair = Pair::new();
    for _ in 0..60 {
        let frame = any_frame(&mut random).bytes();
        for length in *LENGTHS.start()..frame.len() {
            pair.receive(&frame[..length]);
        }
    }
    pair.assert_same_tables();
}
