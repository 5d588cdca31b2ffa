//! Traffic that the other modules put on the balancer, and what they ask of it.

use std::time::Duration;

use lb_tests::address::Family;
use lb_tests::checksum_errors;
use lb_tests::held::Held;
use lb_tests::load::{Load, Plan, Transport};
use lb_tests::setup::{Setup, echo, echo_vip, web, web_vip};
use lb_tests::tally::Tally;
use lb_tests::wait;

/// Long enough for anything that should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Long-lived connections of each family.
const HELD: usize = 20;

/// Load on all four services, and long-lived connections to the `web` services.
pub(crate) struct Traffic {
    loads: Vec<(Transport, Load)>,
    held: Vec<Held>,
}

impl Traffic {
    pub(crate) fn start(setup: &Setup) -> Self {
        let mut traffic = Self { loads: Vec::new(), held: Vec::new() };
        for family in Family::BOTH {
            traffic.held.push(Held::open(&setup.lab.client, web_vip(family), HELD).unwrap());
            for (transport, target) in [(Transport::Tcp, web_vip(family)), (Transport::Udp, echo_vip(family))]
            {
                let plan = Plan { transport, target, workers: 4, per_second: 200 };
                traffic.loads.push((transport, Load::start(&setup.lab.client, plan).unwrap()));
            }
        }
        traffic
    }

    /// Waits until that many more requests have ended, and returns what came of them.
    pub(crate) fn next(&self, requests: u64) -> Tally {
        let before = self.tally();
        let what = format!("{requests} more requests have ended");
        wait::until_true(Duration::from_secs(60), &what, || {
            self.tally().requests >= before.requests + requests
        })
        .unwrap();
        self.tally().since(&before)
    }

    /// [`Traffic::next`] of requests that were begun after the call.
    pub(crate) fn next_begun(&self, requests: u64) -> Tally {
        self.loads.iter().for_each(|(_, load)| load.settle().unwrap());
        self.next(requests)
    }

    /// Waits until that many more requests over TCP have ended that were begun after the call, and returns what came
    /// of them.
    pub(crate) fn next_connections(&self, requests: u64) -> Tally {
        self.loads.iter().for_each(|(_, load)| load.settle().unwrap());
        let before = self.tally_of(Transport::Tcp);
        let what = format!("{requests} more connections have ended");
        let ended = || self.tally_of(Transport::Tcp).requests - before.requests;
        wait::until_true(Duration::from_secs(60), &what, || ended() >= requests).unwrap();
        self.tally_of(Transport::Tcp).since(&before)
    }

    fn tally_of(&self, transport: Transport) -> Tally {
        let mut sum = Tally::default();
        let loads = self.loads.iter().filter(|(of, _)| *of == transport);
        loads.for_each(|(_, load)| sum += load.tally());
        sum
    }

    pub(crate) fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        self.loads.iter().for_each(|(_, load)| sum += load.tally());
        sum
    }

    /// Long-lived connections that stand, by backend.
    pub(crate) fn standing(&self, backend: &str) -> usize {
        self.held.iter().map(|held| held.spread().get(backend).copied().unwrap_or(0)).sum()
    }

    /// Closes the long-lived connections to a backend.
    pub(crate) fn hang_up(&self, backend: &str) {
        self.held.iter().for_each(|held| held.hang_up(backend));
    }

    /// No request failed, and no long-lived connection broke or moved.
    pub(crate) fn assert_undisturbed(&self) {
        let failures: Vec<_> = self.loads.iter().flat_map(|(_, load)| load.failures_from(0)).collect();
        assert!(failures.is_empty(), "{} requests failed, such as {}", failures.len(), failures[0]);
        self.assert_lost_only_with(&[]);
    }

    /// No long-lived connection broke or moved, other than those that broke with these backends.
    pub(crate) fn assert_lost_only_with(&self, backends: &[&str]) {
        for held in &self.held {
            let lost = held.lost().unwrap();
            let unexpected = |lost: &&lb_tests::held::Lost| {
                !backends.contains(&lost.backend.as_str()) || lost.reason.starts_with("moved")
            };
            let unexpected: Vec<_> = lost.iter().filter(unexpected).collect();
            assert!(unexpected.is_empty(), "{unexpected:?}");
        }
    }
}

/// No end host has counted a wrong checksum.
pub(crate) fn assert_no_checksum_errors(setup: &Setup) {
    for (name, host) in setup.lab.end_hosts() {
        assert_eq!(checksum_errors::count(host).unwrap(), 0, "{name} got packets with wrong checksums");
    }
}

/// Runs a `backend` verb for the same backend of all four services.
pub(crate) fn everywhere(setup: &Setup, verb: &str, backend: usize, options: &[&str]) {
    for family in Family::BOTH {
        let rows = [(web(family), setup.http(backend, family)), (echo(family), setup.udp(backend, family))];
        for (service, endpoint) in rows {
            setup.agent.must(["backend", verb, &service, &endpoint].iter().chain(options)).unwrap();
        }
    }
}
