//! What is exported against what is documented, and against what Prometheus can read.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::control::fake::World;
use crate::metrics::exposition::Kind;
use crate::metrics::families::Family;
use crate::model::{Desired, file};

/// A series: its name, and its labels with their values.
type Series = (String, BTreeMap<String, String>);

async fn snapshot(services: usize, backends: usize) -> Snapshot {
    let world = World::default();
    world.lock().saved = state(services, backends);
    world.run().snapshot().await.unwrap()
}

fn state(services: usize, backends: usize) -> Desired {
    let backend = |host: usize| format!("[[service.backend]]\naddress = \"10.1.0.{}:80\"\n", host + 1);
    let service = |number: usize| {
        format!(
            "[[service]]\nname = \"s{number}\"\nvip = \"10.0.0.1:{}\"\nhealth = \"none\"\n{}",
            number + 1,
            (0..backends).map(backend).collect::<String>()
        )
    };
    file::parse(&(0..services).map(service).collect::<String>(), "state").unwrap()
}

fn exported(snapshot: &Snapshot, format: Format) -> String {
    text(&Source { snapshot, http: HttpCounts::default(), process: Process::this() }, format)
}

/// Reads a line as strictly as the format is written down.
fn series(line: &str) -> Option<(Series, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        None => (series, ""),
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
    };
    let mut found = BTreeMap::new();
    let mut rest = labels;
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        found.insert(label.to_owned(), value);
        rest = after[end + 1..].strip_prefix(',').unwrap_or(&after[end + 1..]);
    }
    let is_name = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    is_name.then_some(((name.to_owned(), found), value.parse().ok()?))
}

fn all_series(text: &str) -> BTreeMap<Series, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut all = BTreeMap::new();
    for line in lines {
        let (series, value) = series(line).unwrap_or_else(|| panic!("not a sample: {line}"));
        assert_eq!(all.insert(series, value), None, "twice: {line}");
    }
    all
}

#[tokio::test]
async fn what_is_exported_can_be_read_and_is_what_the_snapshot_says() {
    let world = World::default();
    world.lock().saved = state(2, 3);
    world.lock().active.insert("10.1.0.2:80".parse().unwrap(), 5);
    let snapshot = world.run().snapshot().await.unwrap();
    let all = all_series(&exported(&snapshot, Format::Classic));
    let value = |name: &str, labels: &[(&str, &str)]| {
        let labels: BTreeMap<String, String> =
            labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
        *all.get(&(name.to_owned(), labels.clone()))
            .unwrap_or_else(|| panic!("no {name} {labels:?} in {all:?}"))
    };
    let backend = |address| [("service", "s1"), ("backend", address)];
    assert_eq!(value("lb_backend_active_connections", &backend("10.1.0.2:80")), 5.0);
    assert_eq!(value("lb_backend_connections_total", &backend("10.1.0.2:80")), 35.0);
    assert_eq!(value("lb_backend_connections_total", &backend("10.1.0.1:80")), 0.0);
    assert_eq!(value("lb_service_backends", &[("service", "s0")]), 3.0);
    assert_eq!(value("lb_packets_total", &[("reason", "request_forwarded")]), 9.0);
    assert_eq!(value("lb_in_step", &[]), 1.0);
    let states: f64 = ["unknown", "healthy", "unhealthy", "ejected"]
        .map(|state| {
            value("lb_backend_health", &[("service", "s1"), ("backend", "10.1.0.2:80"), ("state", state)])
        })
        .iter()
        .sum();
    assert_eq!(states, 1.0, "it has one state");
    let open = exported(&snapshot, Format::OpenMetrics);
    let without_end = open.strip_suffix("# EOF\n").unwrap();
    let names = |all: &BTreeMap<Series, f64>| all.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&all_series(without_end)), names(&all), "the series do not depend on the format");
}

#[test]
fn names_follow_the_conventions() {
    let mut names = BTreeSet::new();
    for Family { head, .. } in FAMILIES {
        let name = head.name;
        assert!(names.insert(name), "{name} is there twice");
        assert_eq!(name.ends_with("_total"), head.kind == Kind::Counter, "{name}");
        assert!(name.starts_with("lb_") || name.starts_with("process_"), "{name}");
        assert!(head.help.ends_with('.') && !head.help.contains('\n'), "{name}: {}", head.help);
        let words: Vec<_> = name.split('_').collect();
        let odd = ["ms", "milliseconds", "microseconds", "kilobytes", "percent"];
        assert!(!words.iter().any(|word| odd.contains(word)), "{name} is not in base units");
        assert!(!head.labels.contains(&"le"), "{name}");
    }
}

#[test]
fn the_documentation_lists_them_all_and_no_others() {
    let row = |Family { head, .. }: &Family| {
        let labels: Vec<_> = head.labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{}` | {} | {} | {} |", head.name, head.kind.name(), labels.join(", "), head.help)
    };
    let expected: Vec<_> = FAMILIES.iter().map(row).collect();
    let page = include_str!("../../../docs/metrics.md");
    let rows: Vec<_> =
        page.lines().filter(|line| line.starts_with("| `lb_") || line.starts_with("| `process_")).collect();
    assert_eq!(rows, expected, "docs/metrics.md has these rows to have:\n{}", expected.join("\n"));
}

/// How many series there are for each service, each backend and besides, as the documentation has it.
#[tokio::test]
async fn the_number_of_series_is_bounded_as_documented() {
    let count = async |services, backends| {
        all_series(&exported(&snapshot(services, backends).await, Format::Classic)).len()
    };
    let (none, services, backends) = (count(0, 0).await, count(2, 0).await, count(2, 3).await);
    let each_service = (services - none) / 2;
    // What the data plane in memory does not measure.
    let connect_times = lb_common::latency::MAGNITUDES + 2;
    let (reported, checked) = (1, 2);
    let each_backend = (backends - services) / 6 + connect_times + reported + checked;
    let page = include_str!("../../../docs/metrics.md");
    for text in
        [format!("{each_service} series for each service"), format!("{each_backend} for each backend")]
    {
        assert!(page.contains(&text), "docs/metrics.md does not say: {text}");
    }
    assert!(none < 300, "{none} series besides");
}

/// Words of a text that begin as the names of metrics do.
fn names(text: &str) -> BTreeSet<&str> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let words = text.split(|character| !is_part(character));
    words.filter(|word| word.starts_with("lb_") || word.starts_with("process_")).collect()
}

#[test]
fn alert_rules_and_dashboard_ask_for_nothing_that_is_not_there() {
    let mut known = BTreeSet::from(["lb_agent".to_owned()]);
    for Family { head, .. } in FAMILIES {
        known.insert(head.name.to_owned());
        if head.kind == Kind::Histogram {
            known.extend(["bucket", "sum", "count"].map(|suffix| format!("{}_{suffix}", head.name)));
        }
    }
    let rules = include_str!("../../../docs/monitoring/alerts.yml");
    let cases = include_str!("../../../docs/monitoring/alerts_test.yml");
    let board = include_str!("../../../docs/monitoring/grafana-dashboard.json");
    for (file, text) in [("alerts.yml", rules), ("alerts_test.yml", cases), ("grafana-dashboard.json", board)]
    {
        let asked = names(text);
        assert!(asked.len() > 8, "{file}: {asked:?}");
        let unknown: Vec<_> = asked.iter().filter(|name| !known.contains(**name)).collect();
        assert!(unknown.is_empty(), "{file} asks for {unknown:?}, which nobody exports");
    }
    // The words that rules name as reasons and events are there too.
    use lb_common::reason::{Event, Reason};
    for word in ["drop_denied", "drop_service_limit", "drop_source_limit", "drop_internal"] {
        assert!(rules.contains(word) && Reason::ALL.iter().any(|reason| reason.name() == word), "{word}");
    }
    assert!(
        rules.contains("flow_untracked") && Event::ALL.iter().any(|event| event.name() == "flow_untracked")
    );
}
