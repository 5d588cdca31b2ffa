//! The demo's report for programs.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use super::judge::StepReport;
use crate::tally::Tally;

/// One step; the names are a contract.
#[derive(Debug, Serialize)]
struct Row<'a> {
    step: &'a str,
    requests: u64,
    failed: u64,
    spread: &'a BTreeMap<String, u64>,
}

impl<'a> From<&'a StepReport> for Row<'a> {
    fn from(report: &'a StepReport) -> Self {
        let Tally { requests, failed, spread } = &report.tally;
        Self { step: report.name, requests: *requests, failed: *failed, spread }
    }
}

/// The steps as a JSON array.
pub(super) fn text(reports: &[StepReport]) -> Result<String> {
    let rows: Vec<_> = reports.iter().map(Row::from).collect();
    Ok(serde_json::to_string_pretty(&rows)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_fields_that_are_promised() {
        let mut tally = Tally::default();
        tally.answered("b1");
        tally.failed();
        let report = StepReport {
            number: 1,
            name: "spread",
            title: "",
            tally,
            excused: 0,
            note: None,
            broken: Vec::new(),
        };
        let parsed: serde_json::Value = serde_json::from_str(&text(&[report]).unwrap()).unwrap();
        let expected =
            serde_json::json!([{ "step": "spread", "requests": 2, "failed": 1, "spread": { "b1": 1 } }]);
        assert_eq!(parsed, expected);
    }
}
