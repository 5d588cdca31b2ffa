//! What is written down: rows for programs, a table for people.

use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;

use super::balancer::Setting;
use super::statistics::Figure;

/// What is measured. The names are a contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Case {
    /// Parses and transmits.
    Floor,
    /// Parses, looks the flow up in a kernel LRU hash table, transmits.
    LruLookup,
    /// The same with an insertion into a full table.
    LruInsert,
    /// A packet of an established flow to its backend.
    Request,
    /// A packet of an established flow to its client.
    Reply,
    /// The SYN of a flow never seen.
    NewFlow,
    /// A packet to no service and from no backend.
    NotOurs,
}

impl Case {
    /// The name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::LruLookup => "lru-lookup",
            Self::LruInsert => "lru-insert",
            Self::Request => "request",
            Self::Reply => "reply",
            Self::NewFlow => "new-flow",
            Self::NotOurs => "not-ours",
        }
    }

    /// Whether the balancer is what runs.
    const fn is_ours(self) -> bool {
        matches!(self, Self::Request | Self::Reply | Self::NewFlow | Self::NotOurs)
    }
}

impl Setting {
    /// As `strategy` of a service.
    const fn strategy(self) -> &'static str {
        match self {
            Self::Maglev | Self::Exceptions | Self::Crowd => "maglev",
            Self::LeastConnections => "least-connections",
        }
    }

    /// As `track` of a service.
    const fn track(self) -> &'static str {
        match self {
            Self::Maglev | Self::LeastConnections | Self::Crowd => "full",
            Self::Exceptions => "exceptions",
        }
    }

    /// What the table says behind the case.
    const fn remark(self) -> &'static str {
        match self {
            Self::Maglev => "",
            Self::Exceptions => ", by exception",
            Self::LeastConnections => ", least-connections",
            Self::Crowd => ", 500 services",
        }
    }
}

/// One figure.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) case: Case,
    /// How the services balanced.
    pub(super) setting: Setting,
    pub(super) family: u8,
    pub(super) flows: u32,
    /// Nanoseconds per packet, the empty program's taken off.
    pub(super) net: Figure,
    /// Against `lru-lookup` over the same flows; `new-flow` against `lru-insert`.
    pub(super) ratio_lru: Option<f64>,
    /// Against `floor` over the same flows.
    pub(super) ratio_floor: Option<f64>,
    /// What sampled packets met.
    pub(super) saw: String,
}

/// A row as programs read it; the names are a contract. References have no strategy.
#[derive(Serialize)]
struct JsonRow {
    case: String,
    family: u8,
    flows: u32,
    strategy: Option<&'static str>,
    mode: Option<&'static str>,
    track: Option<&'static str>,
    net_ns: f64,
    ratio_lru: Option<f64>,
    ratio_floor: Option<f64>,
}

impl From<&Row> for JsonRow {
    fn from(row: &Row) -> Self {
        let ours = |value| row.case.is_ours().then_some(value);
        Self {
            // No setting of a service: a case of its own.
            case: row.case.name().to_owned()
                + if row.setting == Setting::Crowd { "-500-services" } else { "" },
            family: row.family,
            flows: row.flows,
            strategy: ours(row.setting.strategy()),
            mode: ours("dnat"),
            track: ours(row.setting.track()),
            net_ns: rounded(row.net.median, 10.0),
            ratio_lru: row.ratio_lru.map(|ratio| rounded(ratio, 1000.0)),
            ratio_floor: row.ratio_floor.map(|ratio| rounded(ratio, 1000.0)),
        }
    }
}

fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

/// The rows as a JSON array.
pub(super) fn json(rows: &[Row]) -> Result<String> {
    let rows: Vec<_> = rows.iter().map(JsonRow::from).collect();
    Ok(serde_json::to_string_pretty(&rows)? + "\n")
}

/// The rows as a table, in Markdown, so that it can be pasted into `docs/benchmarks.md`.
pub(super) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| case                        | IPv |   flows | net ns | 10 % .. 90 %   | of lru | of floor | saw |\n\
         |-----------------------------|----:|--------:|-------:|----------------|-------:|---------:|-----|\n",
    );
    for row in rows {
        let ratio = |ratio: Option<f64>| ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"));
        let range = format!("{:.1} .. {:.1}", row.net.low, row.net.high);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {:<27} | {:>3} | {:>7} | {:>6.1} | {range:<14} | {:>6} | {:>8} | {} |",
            row.case.name().to_owned() + row.setting.remark(),
            row.family,
            row.flows,
            row.net.median,
            ratio(row.ratio_lru),
            ratio(row.ratio_floor),
            row.saw
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(case: Case) -> Row {
        let net = Figure { low: 1.0, median: 26.04, high: 30.0 };
        Row {
            case,
            setting: Setting::default(),
            family: 4,
            flows: 10_000,
            net,
            ratio_lru: Some(0.51249),
            ratio_floor: None,
            saw: "TX 32/32".into(),
        }
    }

    #[test]
    fn a_row_has_the_fields_that_are_promised() {
        let parsed: serde_json::Value =
            serde_json::from_str(&json(&[row(Case::Request), row(Case::LruLookup)]).unwrap()).unwrap();
        let expected = serde_json::json!([
            { "case": "request", "family": 4, "flows": 10_000, "strategy": "maglev", "mode": "dnat",
              "track": "full", "net_ns": 26.0, "ratio_lru": 0.512, "ratio_floor": null },
            { "case": "lru-lookup", "family": 4, "flows": 10_000, "strategy": null, "mode": null,
              "track": null, "net_ns": 26.0, "ratio_lru": 0.512, "ratio_floor": null },
        ]);
        assert_eq!(parsed, expected);
    }

    #[test]
    fn the_table_has_one_line_for_each_row() {
        let text = table(&[row(Case::Request), row(Case::NotOurs)]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|line| line.matches('|').count() == 9), "{text}");
    }
}
