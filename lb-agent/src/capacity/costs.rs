//! What a packet costs, as `cargo xtask bench --json` has measured it.

use anyhow::{Context as _, ensure};
use serde::Deserialize;

/// The figures of docs/benchmarks.md, as the bench wrote them.
const PUBLISHED: &str = include_str!("../../../docs/benchmarks.json");

/// Nanoseconds of CPU by kind of packet and number of flows; the driver's share is not in them.
#[derive(Clone, Debug, PartialEq)]
pub struct Costs {
    rows: Vec<Row>,
}

/// A row of the bench: what is read of it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Row {
    case: String,
    family: u8,
    flows: u64,
    strategy: Option<String>,
    track: Option<String>,
    net_ns: f64,
}

/// What is asked of the rows.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// 4 or 6.
    pub family: u8,
    /// Flows that packets belong to.
    pub flows: u64,
    /// Whether flows are tracked by exception.
    pub by_exception: bool,
}

impl Costs {
    /// Those of docs/benchmarks.md.
    ///
    /// # Errors
    /// Never in a release: a test reads them.
    pub fn published() -> anyhow::Result<Self> {
        Self::parse(PUBLISHED).context("the figures that this program was built with")
    }

    /// Those of a file that `cargo xtask bench --json` has written.
    ///
    /// # Errors
    /// Where it is something else, or lacks a case that a plan needs.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let rows = serde_json::from_str(text).context("not what `cargo xtask bench --json` writes")?;
        let costs = Self { rows };
        for case in ["request", "reply", "new-flow"] {
            for (family, by_exception) in [(4, false), (4, true), (6, false), (6, true)] {
                let traffic = Traffic { family, flows: 1, by_exception };
                ensure!(
                    costs.points(case, traffic).next().is_some(),
                    "no row for the case {case} of IPv{family}{}",
                    if by_exception { " by exception" } else { "" }
                );
            }
        }
        Ok(costs)
    }

    /// Nanoseconds for a packet of an established flow, requests and replies alike.
    pub fn packet(&self, traffic: Traffic) -> f64 {
        f64::midpoint(self.cost("request", traffic), self.cost("reply", traffic))
    }

    /// Nanoseconds for the first packet of a flow.
    pub fn new_flow(&self, traffic: Traffic) -> f64 {
        self.cost("new-flow", traffic)
    }

    /// The most flows that a packet's cost was measured with.
    pub fn measured_flows(&self) -> u64 {
        self.rows.iter().filter(|row| row.case == "request").map(|row| row.flows).max().unwrap_or(0)
    }

    fn points(&self, case: &str, traffic: Traffic) -> impl Iterator<Item = (u64, f64)> {
        let track = if traffic.by_exception { "exceptions" } else { "full" };
        let fits = move |row: &&Row| {
            row.case == case
                && row.family == traffic.family
                && row.track.as_deref() == Some(track)
                && row.strategy.as_deref() == Some("maglev")
        };
        let mut points: Vec<_> = self.rows.iter().filter(fits).map(|row| (row.flows, row.net_ns)).collect();
        points.sort_by_key(|(flows, _)| *flows);
        points.into_iter()
    }

    /// On a straight line over the logarithm of the flows between what was measured: each factor of flows leaves as much more
    /// of the caches. The last line goes on beyond the largest measurement; below the smallest, cost does not fall.
    fn cost(&self, case: &str, traffic: Traffic) -> f64 {
        let points: Vec<_> = self.points(case, traffic).collect();
        let [first, ..] = points.as_slice() else { return 0.0 };
        let flows = traffic.flows.max(first.0);
        let segment = points.windows(2).find(|pair| flows <= pair[1].0).or_else(|| points.windows(2).last());
        let Some([low, high]) = segment else { return first.1 };
        let logarithm = |flows: u64| (flows.max(1) as f64).ln();
        let share = (logarithm(flows) - logarithm(low.0)) / (logarithm(high.0) - logarithm(low.0));
        // Noise may make more flows look cheaper; they are not.
        low.1 + share * (high.1 - low.1).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(points: &[(u64, f64)]) -> Costs {
        let row = |case: &str, family, track: &str, flows, net_ns| Row {
            case: case.to_owned(),
            family,
            flows,
            strategy: Some("maglev".to_owned()),
            track: Some(track.to_owned()),
            net_ns,
        };
        let rows = points.iter().flat_map(|&(flows, ns)| {
            [row("request", 4, "full", flows, ns), row("reply", 4, "full", flows, ns + 10.0)]
        });
        Costs { rows: rows.collect() }
    }

    const V4: Traffic = Traffic { family: 4, flows: 1, by_exception: false };

    #[test]
    fn the_published_figures_are_whole() {
        let costs = Costs::published().unwrap();
        for family in [4, 6] {
            let at = |flows, by_exception| costs.packet(Traffic { family, flows, by_exception });
            assert!(at(1, false) > 0.0 && at(1_000_000, false) > at(1, false));
            assert!(at(1_000_000, true) < at(1_000_000, false));
        }
        assert_eq!(costs.measured_flows(), 1_000_000);
    }

    #[test]
    fn between_two_measurements_cost_grows_with_the_logarithm() {
        let costs = costs(&[(1, 20.0), (10_000, 40.0), (1_000_000, 140.0)]);
        for (flows, ns) in [(0, 25.0), (1, 25.0), (100, 35.0), (10_000, 45.0), (100_000, 95.0)] {
            assert!((costs.packet(Traffic { flows, ..V4 }) - ns).abs() < 0.001, "{flows} flows");
        }
        // Beyond the last one the line goes on.
        assert!((costs.packet(Traffic { flows: 100_000_000, ..V4 }) - 245.0).abs() < 0.001);
    }

    #[test]
    fn a_file_of_something_else_is_refused() {
        assert!(Costs::parse("{}").is_err());
        let error = Costs::parse("[]").unwrap_err();
        assert_eq!(error.to_string(), "no row for the case request of IPv4");
    }
}
