//! `lb-agent status`: the whole on one screen.

use clap::Args;
use hyper::Method;

use super::figures::uptime;
use super::output::Output;
use super::table::{Column, render};
use crate::api::types::{AttentionView, ServiceRates, StatusView};
use crate::client::Client;
use crate::datapath::{InterfaceStatus, SourceAddress};
use crate::model::Track;

/// Shows interfaces, services with their rates, the flow table, how packets ended and what happened to them, on one screen.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Examples:\n  lb-agent status\n  watch lb-agent status\n  lb-agent status -o json"
)]
pub(super) struct Arguments {}

impl Arguments {
    pub(super) fn execute(self, client: &Client, output: &Output) -> anyhow::Result<()> {
        let status: StatusView = client.call(Method::GET, &["status"]).read()?;
        output.data(&status, screen)
    }
}

fn screen(status: &StatusView) -> String {
    let interfaces: Vec<_> = status
        .interfaces
        .iter()
        .map(|InterfaceStatus { name, mode, problem }| match problem {
            None => format!("{name} ({mode})"),
            Some(problem) => format!("{name} ({mode}; {problem})"),
        })
        .collect();
    let head = format!(
        "lb-agent {}, up {}{}{}\ninterfaces: {}\nservices: {}, backends: {}, revision {}\nflows: {} of {}{}\n",
        status.version,
        uptime(status.uptime_seconds),
        status.unattended_seconds.filter(|&seconds| seconds >= LONG_AWAY).map_or(String::new(), unattended),
        if status.in_step { "" } else { "; OUT OF STEP: `lb-agent events` says why" },
        if interfaces.is_empty() { "none".to_owned() } else { interfaces.join(", ") },
        status.services,
        status.backends,
        status.revision,
        status.flows.active,
        status.flows.capacity,
        share(status.flows.active, status.flows.capacity),
    );
    let sources = sources(&status.source_addresses);
    let attention = attention(&status.attention);
    let parts = [head, services(&status.service_rates), attention, sources, reasons(status), events(status)];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

/// Seconds without an agent from which on it is said: a restart takes fewer.
const LONG_AWAY: u64 = 60;

fn unattended(seconds: u64) -> String {
    format!(" after {} without an agent: health, drain and expiry stood still meanwhile", uptime(seconds))
}

fn services(services: &[ServiceRates]) -> String {
    use Column::{Number, Text};
    if services.is_empty() {
        return String::new();
    }
    let columns = [
        Text("SERVICE"),
        Text("VIP"),
        Number("HEALTHY"),
        Number("ACTIVE"),
        Number("CONN/S"),
        Number("RX B/S"),
        Number("TX B/S"),
    ];
    let row = |rates: &ServiceRates| {
        let service = &rates.service;
        [
            service.name.to_string(),
            format!("{}/{}", service.vip, service.protocol),
            format!("{}/{}", service.healthy_backends, service.backends),
            format!("{}{}", service.active_connections, if by_exception(rates) { "*" } else { "" }),
            format!("{:.1}", rates.rates.connections_per_second),
            format!("{:.0}", rates.rates.rx_bytes_per_second),
            format!("{:.0}", rates.rates.tx_bytes_per_second),
        ]
    };
    let table = render(columns, services.iter().map(row));
    if services.iter().any(by_exception) { table + BY_EXCEPTION } else { table }
}

/// Backends that something is the matter with, at most: the screen is one.
const ATTENTION: usize = 20;

/// The backends that something is the matter with, the worst first.
fn attention(backends: &[AttentionView]) -> String {
    use Column::Text;
    if backends.is_empty() {
        return String::new();
    }
    let columns = [Text("NOT IN ORDER"), Text("SERVICE"), Text("BACKEND"), Text("WHY")];
    let row = |each: &AttentionView| {
        let reason = each.reason.as_deref().unwrap_or_default();
        [each.condition.to_string(), each.service.to_string(), each.backend.to_string(), reason.to_owned()]
    };
    let table = render(columns, backends.iter().take(ATTENTION).map(row));
    match backends.len().checked_sub(ATTENTION) {
        None | Some(0) => table,
        Some(more) => format!("{table}... and {more} more: `lb-agent backend list`\n"),
    }
}

/// What is not to be had where most flows are not remembered.
const BY_EXCEPTION: &str = "\
* tracked by exception: only remembered flows are counted and listed; a draining backend goes at its drain timeout;
  no affinity, no retry, no reset of flows whose backend is down
";

fn by_exception(rates: &ServiceRates) -> bool {
    rates.service.track == Track::Exceptions
}

/// How much of each source address of full NAT is in use.
fn sources(addresses: &[SourceAddress]) -> String {
    use Column::{Number, Text};
    if addresses.is_empty() {
        return String::new();
    }
    let columns = [Text("SOURCE ADDRESS"), Number("PORTS"), Number("USED"), Number("RESTING")];
    let row = |source: &SourceAddress| {
        let SourceAddress { address, ports, used, resting } = source;
        [address.to_string(), ports.to_string(), used.to_string(), resting.to_string()]
    };
    render(columns, addresses.iter().map(row))
}

/// The ways in which packets ended.
fn reasons(status: &StatusView) -> String {
    let rows = status.reasons.iter().map(|row| (&row.reason, row.packets, row.packets_per_second));
    counters("PACKETS", rows)
}

/// What happened to packets on their way.
fn events(status: &StatusView) -> String {
    let rows = status.events.iter().map(|row| (&row.event, row.count, row.per_second));
    counters("EVENTS", rows)
}

/// Those that ever happened: the rate says whether they still do.
fn counters<'a>(title: &'static str, rows: impl Iterator<Item = (&'a String, u64, f64)>) -> String {
    let happened: Vec<_> = rows
        .filter(|(_, count, _)| *count > 0)
        .map(|(name, count, rate)| [name.clone(), count.to_string(), format!("{rate:.1}")])
        .collect();
    if happened.is_empty() {
        return String::new();
    }
    render([Column::Text(title), Column::Number("COUNT"), Column::Number("PER S")], happened)
}

fn share(part: u64, whole: u64) -> String {
    match whole {
        0 => String::new(),
        _ => format!(" ({:.1} %)", 100.0 * part as f64 / whole as f64),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_screen_shows_what_happened_and_nothing_else() {
        let status: StatusView = serde_json::from_value(json!({
            "version": "0.1.0", "revision": 17, "in_step": false, "http": {"requests_total": 9, "refused_no_token_total": 1, "refused_wrong_token_total": 0, "refused_read_only_total": 0}, "uptime_seconds": 3720, "unattended_seconds": 11_520, "services": 1, "backends": 2,
            "interfaces": [{"name": "eth0", "mode": "native"}, {"name": "eth1", "mode": "generic", "problem": "it has no link"}],
            "flows": {"active": 250, "capacity": 1000, "sweep_cpu_microseconds": 5},
            "source_addresses": [{"address": "10.0.1.5", "ports": 31744, "used": 120, "resting": 7}],
            "service_rates": [{
                "name": "web", "vip": "10.0.0.100:80", "protocol": "tcp", "strategy": "maglev", "mode": "dnat",
                "track": "full", "on_no_backend": "reset", "on_backend_down": "rebalance", "retry": "off", "affinity": "off", "health": "none", "backends": 2, "healthy_backends": 1,
                "revision": 3,
                "active_backends": 1, "active_connections": 250, "connections_total": 1000,
                "connections_per_second": 12.34, "rx_packets_per_second": 30.0, "tx_packets_per_second": 20.0, "rx_bytes_per_second": 5.6, "tx_bytes_per_second": 0.0,
            }],
            "attention": [
                {"service": "web", "backend": "10.0.1.12:8080", "condition": "down", "reason": "tcp connect: \u{1b}[31mrefused\n"},
                {"service": "web", "backend": "10.0.1.13:8080", "condition": "draining", "reason": "1 connection left"},
            ],
            "reasons": [
                {"reason": "request_forwarded", "packets": 9000, "packets_per_second": 120.04},
                {"reason": "reply_forwarded", "packets": 0, "packets_per_second": 0.0},
                {"reason": "drop_malformed", "packets": 7, "packets_per_second": 0.0},
            ],
            "events": [
                {"event": "flow_created", "count": 41, "per_second": 0.5},
                {"event": "flow_evicted", "count": 0, "per_second": 0.0},
            ],
        }))
        .unwrap();
        let expected = "\
lb-agent 0.1.0, up 1h 2m after 3h 12m without an agent: health, drain and expiry stood still meanwhile; OUT OF STEP: `lb-agent events` says why
interfaces: eth0 (native), eth1 (generic; it has no link)
services: 1, backends: 2, revision 17
flows: 250 of 1000 (25.0 %)

SERVICE  VIP                HEALTHY  ACTIVE  CONN/S  RX B/S  TX B/S
web      10.0.0.100:80/tcp      1/2     250    12.3       6       0

NOT IN ORDER  SERVICE  BACKEND         WHY
down          web      10.0.1.12:8080  tcp connect: \\u{1b}[31mrefused\\n
draining      web      10.0.1.13:8080  1 connection left

SOURCE ADDRESS  PORTS  USED  RESTING
10.0.1.5        31744   120        7

PACKETS            COUNT  PER S
request_forwarded   9000  120.0
drop_malformed         7    0.0

EVENTS        COUNT  PER S
flow_created     41    0.5
";
        assert_eq!(screen(&status), expected);
    }

    #[test]
    fn what_tracking_by_exception_cannot_have_is_said_where_it_is_used() {
        let rates = |name: &str, track: &str| {
            json!({
                "name": name, "vip": "10.0.0.100:80", "protocol": "tcp", "strategy": "maglev", "mode": "dnat",
                "track": track, "on_no_backend": "reset", "on_backend_down": "rebalance", "retry": "off", "affinity": "off", "health": "none",
                "backends": 2, "healthy_backends": 2, "revision": 3, "active_backends": 2,
                "active_connections": 7, "connections_total": 9, "connections_per_second": 0.0,
                "rx_packets_per_second": 0.0, "tx_packets_per_second": 0.0, "rx_bytes_per_second": 0.0, "tx_bytes_per_second": 0.0,
            })
        };
        let table = |rows: &[serde_json::Value]| {
            let rates: Vec<ServiceRates> = serde_json::from_value(json!(rows)).unwrap();
            services(&rates)
        };
        let without = table(&[rates("web", "full")]);
        assert!(!without.contains('*'), "{without}");
        let with = table(&[rates("web", "full"), rates("dns", "exceptions")]);
        let of = |name: &str| with.lines().find(|line| line.starts_with(name)).unwrap().contains("7*");
        assert!(!of("web") && of("dns") && with.ends_with(BY_EXCEPTION), "{with}");
    }
}
