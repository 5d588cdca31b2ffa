//! A thousand changes of strategy, weights and backends while wrk loads the services.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::address::Family;
use lb_tests::api;
use lb_tests::held::Held;
use lb_tests::process::Process;
use lb_tests::setup::{Setup, web, web_vip};
use lb_tests::topology::{Host, Shape};
use lb_tests::{needs_program, needs_root};
use rustix::process::Signal;

use crate::traffic::{SOON, assert_no_checksum_errors};

const CHANGES: usize = 1000;
/// How long all of them may take.
const LIMIT: Duration = Duration::from_secs(60);
const STRATEGIES: [&str; 8] = [
    "consistent-hash",
    "round-robin",
    "least-connections",
    "least-latency",
    "source-hash",
    "random",
    "resource-based",
    "maglev",
];
/// Long-lived connections of each family.
const HELD: usize = 40;
/// The backend that is removed and added again: no long-lived connection is with it.
const COMING_AND_GOING: usize = 3;

/// wrk, a new connection for each request, until it is asked what came of it.
struct Wrk {
    process: Process,
    log: std::path::PathBuf,
}

impl Wrk {
    fn start(setup: &Setup, family: Family) -> Result<Self> {
        let log = setup.agent.directory().join(format!("wrk{}", family.number()));
        let mut command = setup.lab.client.command("wrk");
        command.args([
            "--threads",
            "1",
            "--connections",
            "8",
            "--duration",
            "10m",
            "-H",
            "Connection: close",
        ]);
        command.arg(format!("http://{}/", web_vip(family)));
        Ok(Self { process: Process::spawn(command, &log)?, log })
    }

    /// Ends it; returns how many requests were answered, none of which and no connection may have failed.
    fn stop(mut self) -> Result<u64> {
        self.process.signal(Signal::INT)?;
        self.process.wait(SOON)?;
        let report = std::fs::read_to_string(&self.log)?;
        ensure!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{report}");
        let words: Vec<_> = report.split_whitespace().collect();
        let at = words.iter().position(|&word| word == "requests").context("wrk made no report")?;
        words[at - 1].parse().with_context(|| report.clone())
    }
}

/// The n-th change: of one service or the other, and of what.
fn change(socket: &Path, setup: &Setup, number: usize) -> Result<&'static str> {
    let family = Family::BOTH[number % 2];
    let turn = number / 2;
    let service = format!("/v1/services/{}", web(family));
    let backend = |index| format!("{service}/backends/{}", setup.http(index, family));
    let (what, method, path, body) = match turn % 6 {
        0 => ("strategy", "PATCH", service.clone(), {
            format!("{{\"strategy\": \"{}\"}}", STRATEGIES[turn / 6 % STRATEGIES.len()])
        }),
        1 | 4 => {
            let weight = format!("{{\"weight\": {}}}", 1 + turn % 7);
            ("weight", "PATCH", backend(turn / 3 % 3), weight)
        }
        2 => ("drain", "PATCH", backend(turn / 6 % 3), "{\"admin\": \"draining\"}".into()),
        3 => ("enable", "PATCH", backend(turn / 6 % 3), "{\"admin\": \"enabled\"}".into()),
        _ if (turn / 6).is_multiple_of(2) => ("remove", "DELETE", backend(COMING_AND_GOING), String::new()),
        _ => {
            let address = setup.http(COMING_AND_GOING, family);
            ("add", "POST", format!("{service}/backends"), format!("{{\"address\": \"{address}\"}}"))
        }
    };
    api::change(socket, method, &path, &body)?;
    Ok(what)
}

#[test]
fn a_thousand_changes_under_load_fail_no_request_and_move_no_flow() {
    needs_root!();
    needs_program!("wrk");
    let setup = Setup::serving(Shape::TwoArmed, 4).unwrap();
    let socket = setup.agent.socket();
    for family in Family::BOTH {
        let list = format!("/v1/services/{}/backends/{}", web(family), setup.http(COMING_AND_GOING, family));
        api::change(&socket, "PATCH", &list, "{\"admin\": \"draining\"}").unwrap();
    }
    let held = Family::BOTH.map(|family| Held::open(&setup.lab.client, web_vip(family), HELD).unwrap());
    for family in Family::BOTH {
        let row = format!("/v1/services/{}/backends/{}", web(family), setup.http(COMING_AND_GOING, family));
        api::change(&socket, "PATCH", &row, "{\"admin\": \"enabled\"}").unwrap();
    }
    let spread: Vec<_> = held.iter().map(Held::spread).collect();
    let wrk = Family::BOTH.map(|family| Wrk::start(&setup, family).unwrap());

    let begun = Instant::now();
    let mut made = BTreeMap::<_, usize>::new();
    for number in 0..CHANGES {
        *made.entry(change(&socket, &setup, number).unwrap()).or_default() += 1;
    }
    let taken = begun.elapsed();

    for (family, wrk) in Family::BOTH.into_iter().zip(wrk) {
        let requests = wrk.stop().unwrap_or_else(|error| panic!("{family:?}, {made:?}: {error:#}"));
        // As many as changes, so that each of them was made while requests were under way.
        assert!(requests as usize > CHANGES, "{family:?}: {requests} requests");
        let served = |host: &Host| setup.servers[usize::from(host.name.as_bytes()[1] - b'1')][0].requests();
        assert!(setup.lab.backends.iter().all(|host| served(host) > 0));
    }
    for (held, before) in held.iter().zip(&spread) {
        let lost = held.lost().unwrap();
        assert!(lost.is_empty(), "{lost:?}");
        assert_eq!(&held.spread(), before);
    }
    assert!(taken < LIMIT, "{CHANGES} changes took {taken:?}");
    assert_eq!(made.values().sum::<usize>(), CHANGES);
    assert!(made.len() == 6 && made.values().all(|&count| count > CHANGES / 20), "{made:?}");
    assert_no_checksum_errors(&setup);
}
