//! Affinity, and the strategies that go by what they are told or measure.

use std::collections::BTreeMap;
use std::time::Duration;

use lb_tests::address::Family;
use lb_tests::delay::Delay;
use lb_tests::http_client::HttpClient;
use lb_tests::setup::{Setup, web, web_vip};
use lb_tests::topology::Shape;
use lb_tests::{needs_root, wait};

use crate::traffic::SOON;

/// Connections, one after the other, by the backend that answered.
fn connect(setup: &Setup, family: Family, count: usize) -> BTreeMap<String, usize> {
    let work = move || {
        let mut answers = BTreeMap::new();
        for _ in 0..count {
            let answer = HttpClient::connect(web_vip(family), SOON).unwrap().get_and_close().unwrap();
            *answers.entry(answer).or_default() += 1;
        }
        answers
    };
    setup.lab.client.handle().spawn("client", work).unwrap().join().unwrap()
}

#[test]
fn with_affinity_a_client_stays_with_its_backend() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 3).unwrap();
    for family in Family::BOTH {
        let name = web(family);
        setup.agent.must(["service", "set", &name, "--strategy", "round-robin"]).unwrap();
        assert_eq!(connect(&setup, family, 30).len(), 3);
        setup.agent.must(["service", "set", &name, "--affinity", "10m"]).unwrap();
        let answers = connect(&setup, family, 30);
        assert_eq!(answers.len(), 1, "{answers:?}");
        setup.agent.must(["service", "set", &name, "--affinity", "off"]).unwrap();
        assert_eq!(connect(&setup, family, 30).len(), 3);
    }
}

#[test]
fn connect_times_are_measured_and_shown() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 3).unwrap();
    for family in Family::BOTH {
        let name = web(family);
        let list = || setup.agent.json(["backend", "list", &name]).unwrap();
        let count = |list: &serde_json::Value| {
            let of =
                |row: &serde_json::Value| row["connect_time"]["count_total"].as_u64().unwrap_or_default();
            list.as_array().unwrap().iter().map(of).sum::<u64>()
        };
        connect(&setup, family, 160);
        // 20 are expected with another strategy; four standard deviations are 17.
        let sampled = count(&list());
        assert!((3..=37).contains(&sampled), "{sampled} of 160");
        setup.agent.must(["service", "set", &name, "--strategy", "least-latency"]).unwrap();
        connect(&setup, family, 100);
        let list = list();
        let rows = list.as_array().unwrap();
        // One moment in 65,536 looks like none.
        assert!((95..=100).contains(&(count(&list) - sampled)), "{list}");
        for row in rows {
            let time = row["connect_time"]["smoothed_microseconds"].as_u64();
            assert!(time.is_some_and(|time| time < 1_000_000), "each was tried: {list}");
        }
    }
}

#[test]
fn a_backend_that_reports_load_gets_less() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 2).unwrap();
    let family = Family::V4;
    let (name, loaded) = (web(family), setup.http(0, family));
    setup.agent.must(["service", "set", &name, "--strategy", "resource-based"]).unwrap();
    for (backend, load) in [(&loaded, "0.9"), (&setup.http(1, family), "0.0")] {
        setup.agent.must(["backend", "report", &name, backend, "--load", load, "--ttl", "1h"]).unwrap();
    }
    wait::until_true(Duration::from_secs(10), "the loaded one's weight is a tenth", || {
        let list = setup.agent.json(["backend", "list", &name]).unwrap();
        let row = list.as_array().unwrap().iter().find(|row| row["address"] == loaded).cloned();
        row.is_some_and(|row| row["effective_weight"] == 0.1)
    })
    .unwrap();
    let answers = connect(&setup, family, 330);
    // 30 expected; five standard deviations are 26.
    let least = answers.values().min().copied().unwrap_or_default();
    assert!(answers.len() == 2 && (4..=56).contains(&least), "{answers:?}");
}

/// How much longer connecting to the first backend takes.
const DELAY: Duration = Duration::from_millis(20);
/// Clients that connect at the same time, and how often each does.
const CLIENTS: usize = 8;
const EACH: usize = 60;

/// The share of connections that a backend gets whose answers take longer than those of two others, in parts of a third.
fn share_of_the_delayed(family: Family, strategy: &str) -> f64 {
    let setup = Setup::serving(Shape::TwoArmed, 3).unwrap();
    setup.agent.must(["service", "set", &web(family), "--strategy", strategy]).unwrap();
    let delayed = &setup.lab.backends[0];
    let _delay = Delay::start(delayed, family, DELAY).unwrap();
    let counts: Vec<_> = std::thread::scope(|scope| {
        let clients = [(); CLIENTS].map(|()| scope.spawn(|| connect(&setup, family, EACH)));
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let of_the_delayed: usize = counts.iter().filter_map(|count| count.get(&delayed.name)).sum();
    3.0 * of_the_delayed as f64 / (CLIENTS * EACH) as f64
}

#[test]
fn least_latency_sends_a_slow_answering_backend_under_half_of_its_share() {
    needs_root!();
    for family in Family::BOTH {
        let share = share_of_the_delayed(family, "least-latency");
        assert!(share < 0.5, "{family:?}: {share:.2} of its share");
        assert!(share > 0.0, "{family:?}: nobody would notice that it is fast again");
    }
}

/// What the test above measures is not so by itself.
#[test]
fn random_sends_a_slow_answering_backend_its_share() {
    needs_root!();
    let share = share_of_the_delayed(Family::V4, "random");
    assert!((0.7..1.3).contains(&share), "{share:.2} of its share");
}
