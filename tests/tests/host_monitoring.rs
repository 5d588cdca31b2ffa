//! The alert rules and the Grafana dashboard of `docs/monitoring`, as Prometheus itself reads them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lb_tests::needs_program;
use lb_tests::netns::unique_name;
use lb_tests::process;
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(60);

fn monitoring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring")
}

fn promtool(words: &[&str]) -> String {
    let mut command = Command::new("promtool");
    command.args(words).current_dir(monitoring());
    process::must(command, TIMEOUT).expect("promtool finds nothing wrong")
}

#[test]
fn each_alert_fires_when_it_shall_and_not_else() {
    needs_program!("promtool");
    promtool(&["check", "rules", "alerts.yml"]);
    promtool(&["test", "rules", "alerts_test.yml"]);
}

#[test]
fn each_alert_is_tested() {
    let text = |file| std::fs::read_to_string(monitoring().join(file)).unwrap();
    let (rules, tests) = (text("alerts.yml"), text("alerts_test.yml"));
    let names: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        // Alone on its line: with what is expected below it.
        let fires = tests.lines().any(|line| line.trim() == format!("- alertname: {name}"));
        assert!(fires, "no test has {name} fire");
    }
}

fn expressions(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().into_iter().flatten();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    targets.map(|target| target["expr"].as_str().unwrap_or_default().to_owned()).collect()
}

/// As recording rules, with values for what Grafana fills in: what Prometheus takes for a rule, it can compute.
#[test]
fn every_panel_of_the_dashboard_can_be_computed() {
    needs_program!("promtool");
    let text = std::fs::read_to_string(monitoring().join("grafana-dashboard.json")).unwrap();
    let expressions = expressions(&serde_json::from_str(&text).unwrap());
    assert!(expressions.len() > 20, "{expressions:?}");
    let rule = |(number, expression): (usize, &String)| {
        let filled = expression.replace("$__rate_interval", "1m").replace("$instance", ".*");
        json!({ "record": format!("panel:{number}"), "expr": filled.replace("$service", ".*") })
    };
    let rules: Vec<_> = expressions.iter().enumerate().map(rule).collect();
    let file = std::env::temp_dir().join(unique_name("panels"));
    // JSON is YAML.
    let groups = json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    std::fs::write(&file, groups.to_string()).unwrap();
    let checked = std::panic::catch_unwind(|| promtool(&["check", "rules", file.to_str().unwrap()]));
    std::fs::remove_file(&file).unwrap();
    let said = checked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert!(said.contains(&format!("{} rules found", expressions.len())), "{said}");
}
