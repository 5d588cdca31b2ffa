//! Millions of broken frames through the pipeline: it neither panics nor touches what is not its own.

use std::collections::HashMap;

use lb_common::reason::Reason;
use lb_ebpf::memory::{MemoryFrame, MemoryTables};
use lb_ebpf::verdict::Verdict;
use lb_tests::balancer::{reconfigure, tables};
use lb_tests::lab::INGRESS_INDEX;
use lb_tests::packet::{checksums_valid, describe};
use lb_tests::random::{Random, any_frame, lab, later_lab, mutate, seed, valid_request};

/// Broken frames in all.
const FRAMES: usize = 10_000_000;
/// Threads that share them.
const THREADS: usize = 2;
/// Frames after which a thread starts from empty tables.
const ROUND: usize = 50_000;
/// Valid frames that a round's broken ones are made from.
const VALID: usize = 500;
/// Every so many frames the checksums are checked, which costs more than all the rest.
const CHECKED: usize = 16;

fn run(tables: &MemoryTables, bytes: Vec<u8>) -> (Verdict, Vec<u8>) {
    let mut frame = MemoryFrame { bytes, ingress: INGRESS_INDEX };
    let verdict = tables.run(&mut frame);
    (verdict, frame.bytes)
}

/// Whether the packet is left as it is: everything that passes, but for what was rewritten first.
fn leaves_untouched(verdict: Verdict) -> bool {
    use Reason::{PassForFragmentation, PassForRouting, PassNeighbourUnknown};
    matches!(verdict, Verdict::Pass(reason)
        if !matches!(reason, PassForFragmentation | PassForRouting | PassNeighbourUnknown))
}

fn round(random: &mut Random) {
    let mut tables = tables(&lab());
    let valid: Vec<Vec<u8>> = (0..VALID).map(|_| any_frame(random).bytes()).collect();
    // A few valid ones first, for flows that the broken ones may hit.
    for frame in &valid {
        run(&tables, frame.clone());
    }
    reconfigure(&mut tables, &later_lab());
    for number in 0..ROUND {
        let mut input = valid[random.below(VALID)].clone();
        mutate(random, &mut input);
        let (verdict, output) = run(&tables, input.clone());
        let report = || format!("{verdict:?}\nin: {}out: {}", describe(&input), describe(&output));
        assert!(!leaves_untouched(verdict) || output == input, "{}", report());
        assert_ne!(verdict, Verdict::INTERNAL, "{}", report());
        let checked = number % CHECKED == 0 && !matches!(verdict, Verdict::Drop(_));
        if checked && checksums_valid(&input).is_ok() {
            assert_eq!(checksums_valid(&output), Ok(()), "{}", report());
        }
    }
}

#[test]
fn ten_million_broken_frames_panic_nowhere_and_what_is_not_ours_stays_as_it_is() {
    let seed = seed();
    println!("LB_TEST_SEED={seed}");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let mut random = Random::new(seed + thread as u64);
                for _ in 0..FRAMES / THREADS / ROUND {
                    round(&mut random);
                }
            });
        }
    });
}

#[test]
fn valid_frames_cut_off_at_any_length_panic_nowhere() {
    let mut random = Random::new(seed());
    let tables = tables(&lab());
    for _ in 0..300 {
        let frame = any_frame(&mut random).bytes();
        for length in 0..frame.len() {
            let (verdict, output) = run(&tables, frame[..length].to_vec());
            assert!(!leaves_untouched(verdict) || output == frame[..length], "{}", describe(&output));
        }
    }
}

#[test]
fn what_leaves_has_valid_checksums_where_what_came_had() {
    let seed = seed();
    println!("LB_TEST_SEED={seed}");
    let mut random = Random::new(seed);
    let mut judged = 0;
    for _ in 0..10 {
        let tables = tables(&lab());
        for _ in 0..5_000 {
            let input = any_frame(&mut random).bytes();
            let (verdict, output) = run(&tables, input.clone());
            if !matches!(verdict, Verdict::Drop(_)) && output != input && checksums_valid(&input).is_ok() {
                judged += 1;
                let report = || format!("{verdict:?}\nin: {}out: {}", describe(&input), describe(&output));
                assert_eq!(checksums_valid(&output), Ok(()), "{}", report());
            }
        }
    }
    assert!(judged > 10_000, "only {judged} frames were changed");
}

#[test]
fn a_flow_keeps_its_backend() {
    let seed = seed();
    println!("LB_TEST_SEED={seed}");
    let mut random = Random::new(seed);
    let tables = tables(&lab().flow_buckets(4096));
    // Who sends what to whom, and to which backend that went.
    let mut backends: HashMap<Vec<u8>, [u8; 6]> = HashMap::new();
    for _ in 0..50_000 {
        let input = valid_request(&mut random).bytes();
        let (verdict, output) = run(&tables, input.clone());
        if !matches!(
            verdict,
            Verdict::Transmit(Reason::RequestForwarded) | Verdict::Redirect(Reason::RequestForwarded, _)
        ) {
            continue;
        }
        let (header, protocol) =
            if input[12..14] == [0x08, 0x00] { (20, input[23]) } else { (40, input[20]) };
        // The IP packet's source address to the transport header's ports, and the protocol.
        let addresses = if header == 20 { 26..34 } else { 22..54 };
        let mut flow = input[addresses].to_vec();
        flow.extend(&input[14 + header..14 + header + 4]);
        flow.push(protocol);
        let backend = *output.first_chunk().expect("a link-layer header");
        assert_eq!(*backends.entry(flow).or_insert(backend), backend, "{}", describe(&input));
    }
    let used: std::collections::HashSet<_> = backends.values().collect();
    assert_eq!(used.len(), 3, "all three backends take part");
    assert!(backends.len() > 200);
}
