//! `lb-agent backend`: the servers behind a service.

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Map, Value, json};

use super::condition::Condition;
use super::output::Output;
use super::table::{Column, render};
use crate::api::types::BackendView;
use crate::client::Client;
use crate::model::{Admin, Endpoint, Load, Period, ServiceName, Weight};

/// Lists, adds, drains, changes and removes backends.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Lists the backends of a service, or all.
    #[command(after_long_help = "Examples:\n  lb-agent backend list\n  lb-agent backend list web -o json")]
    List {
        /// The service's name.
        service: Option<ServiceName>,
    },
    /// Adds a backend. It takes traffic at once, and is checked at once.
    ///
    /// One that is being removed is kept after all.
    #[command(
        after_long_help = "Examples:\n  lb-agent backend add web 10.0.1.11:8080\n  lb-agent backend add web6 '[fd00:1::11]:8080' --weight 5"
    )]
    Add {
        #[command(flatten)]
        backend: Name,
        /// Its share of new flows relative to the others, 0 to 65535.
        #[arg(long, value_name = "N", default_value_t)]
        weight: Weight,
        /// Gives it traffic only while no other backend is fit.
        #[arg(long)]
        backup: bool,
    },
    /// Changes a backend's weight or administrative state, live.
    #[command(
        after_long_help = "Examples:\n  lb-agent backend set web 10.0.1.11:8080 --weight 2\n  lb-agent backend set web 10.0.1.11:8080 --admin maintenance"
    )]
    Set {
        #[command(flatten)]
        backend: Name,
        #[command(flatten)]
        change: Change,
    },
    /// Gives a backend no new flows; those that it has stay.
    #[command(after_long_help = "Example:\n  lb-agent backend drain web 10.0.1.11:8080")]
    Drain {
        #[command(flatten)]
        backend: Name,
    },
    /// Gives a backend new flows again; keeps one that is being removed.
    #[command(after_long_help = "Example:\n  lb-agent backend enable web 10.0.1.11:8080")]
    Enable {
        #[command(flatten)]
        backend: Name,
    },
    /// Says how loaded a backend is, for `resource-based`; to be repeated while it holds.
    ///
    /// New flows follow the mean of the last two reports. One that holds no more has its backend taken for an average one.
    #[command(
        after_long_help = "Examples:\n  lb-agent backend report web 10.0.1.11:8080 --load 0.35\n  lb-agent backend report web 10.0.1.11:8080 --load 0.9 --ttl 10s"
    )]
    Report {
        /// The service's name.
        service: ServiceName,
        /// The backend's address and port; IPv6 as `[addr]:port`.
        #[arg(value_name = "ADDR:PORT")]
        address: Endpoint,
        /// From 0, idle, to 1, full; more is full too.
        #[arg(long, value_name = "LOAD")]
        load: Load,
        /// How long that holds, 1s to 1h.
        #[arg(long, value_name = "TIME", default_value = "30s")]
        ttl: Period,
    },
    /// Drains a backend and removes it with its last flow; returns at once.
    #[command(
        after_long_help = "Examples:\n  lb-agent backend remove web 10.0.1.11:8080\n  lb-agent backend remove web 10.0.1.11:8080 --drain-timeout 30s\n  lb-agent backend remove web 10.0.1.11:8080 --force"
    )]
    Remove {
        #[command(flatten)]
        backend: Name,
        /// How long it may drain before it goes with the flows that it has.
        #[arg(long, value_name = "TIME", default_value = "5m")]
        drain_timeout: Period,
        /// Removes it now; its flows are balanced anew.
        #[arg(long, conflicts_with = "drain_timeout")]
        force: bool,
    },
}

/// Which backend.
#[derive(Debug, Args)]
struct Name {
    /// The service's name.
    service: ServiceName,
    /// The backend's address and port; IPv6 as `[addr]:port`.
    #[arg(value_name = "ADDR:PORT")]
    address: Endpoint,
    #[command(flatten)]
    condition: Condition,
}

/// What changes; something must.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Change {
    /// Its share of new flows relative to the others, 0 to 65535.
    #[arg(long, value_name = "N")]
    weight: Option<Weight>,
    /// `enabled`, `draining` or `maintenance` (drains, and is not checked).
    #[arg(long, value_name = "STATE")]
    admin: Option<Admin>,
    /// Whether it takes traffic only while no other backend is fit.
    #[arg(long, value_name = "true|false")]
    backup: Option<bool>,
}

impl Change {
    fn admin(admin: Admin) -> Self {
        Self { weight: None, admin: Some(admin), backup: None }
    }
}

impl Arguments {
    pub(super) fn execute(self, client: &Client, output: &Output) -> anyhow::Result<()> {
        match self.verb {
            Verb::List { service } => list(client, output, service.as_ref()),
            Verb::Add { backend: Name { service, address, condition }, weight, backup } => {
                let call = client.call(Method::POST, &["services", service.as_str(), "backends"]);
                let body = json!({ "address": address, "weight": weight, "backup": backup });
                let call = condition.on(call.json(&body));
                let backend: BackendView = call.read()?;
                output.done(&backend, &format!("backend {address} added to {service}"))
            }
            Verb::Set { backend, change } => backend.set(client, output, change, "changed"),
            Verb::Drain { backend } => backend.set(client, output, Change::admin(Admin::Draining), "drains"),
            Verb::Enable { backend } => backend.set(client, output, Change::admin(Admin::Enabled), "enabled"),
            Verb::Report { service, address, load, ttl } => {
                let at = address.to_string();
                let call = client.call(Method::PUT, &["services", service.as_str(), "backends", &at, "load"]);
                let backend: BackendView = call.json(&json!({ "load": load, "ttl": ttl })).read()?;
                output.done(&backend, &format!("load of backend {address} of {service}: {load}, for {ttl}"))
            }
            Verb::Remove { backend, drain_timeout, force } => {
                backend.remove(client, output, drain_timeout, force)
            }
        }
    }
}

fn list(client: &Client, output: &Output, service: Option<&ServiceName>) -> anyhow::Result<()> {
    let call = match service {
        Some(service) => client.call(Method::GET, &["services", service.as_str(), "backends"]),
        None => client.call(Method::GET, &["backends"]),
    };
    let backends: Vec<BackendView> = call.read()?;
    output.data(&backends, |backends| backend_table(backends))
}

impl Name {
    fn set(self, client: &Client, output: &Output, change: Change, done: &str) -> anyhow::Result<()> {
        let Self { service, address, condition } = self;
        let mut body = Map::new();
        if let Some(weight) = change.weight {
            body.insert("weight".to_owned(), json!(weight));
        }
        if let Some(admin) = change.admin {
            body.insert("admin".to_owned(), json!(admin));
        }
        if let Some(backup) = change.backup {
            body.insert("backup".to_owned(), json!(backup));
        }
        let at = address.to_string();
        let call = client.call(Method::PATCH, &["services", service.as_str(), "backends", &at]);
        let backend: BackendView = condition.on(call.json(&Value::Object(body))).read()?;
        output.done(&backend, &format!("backend {address} of {service} {done}"))
    }

    fn remove(self, client: &Client, output: &Output, timeout: Period, force: bool) -> anyhow::Result<()> {
        let Self { service, address, condition } = self;
        let at = address.to_string();
        let call = client.call(Method::DELETE, &["services", service.as_str(), "backends", &at]);
        let call = match force {
            true => call.parameter("force", Some(true)),
            false => call.parameter("drain_timeout", Some(timeout)),
        };
        let answer = condition.on(call).send()?;
        let note = match force {
            true => format!("backend {address} of {service} removed"),
            false => format!(
                "backend {address} of {service} drains and goes with its last flow, in {timeout} at most"
            ),
        };
        match serde_json::from_str::<BackendView>(&answer) {
            Ok(draining) => output.done(&draining, &note),
            // Nothing is answered when there is nothing left to show.
            Err(_) => output.done(&json!({ "service": service, "address": address, "removed": true }), &note),
        }
    }
}

/// What a backend has reported of its load, if that still holds.
fn load(backend: &BackendView) -> String {
    match backend.load {
        Some(load) if load.fresh => format!("{:.2}", load.reported.get()),
        Some(_) => "stale".to_owned(),
        None => "-".to_owned(),
    }
}

/// How long connecting to a backend takes, in milliseconds.
fn connect_time(backend: &BackendView) -> String {
    match &backend.connect_time {
        Some(time) => format!("{:.2}ms", time.smoothed_microseconds as f64 / 1000.0),
        None => "-".to_owned(),
    }
}

/// What somebody wants of a backend.
fn admin(backend: &BackendView) -> String {
    match (backend.removing, backend.backup) {
        (true, _) => "removing".to_owned(),
        (false, true) => format!("{} (backup)", backend.admin),
        (false, false) => backend.admin.to_string(),
    }
}

/// Backends, one a line.
pub(super) fn backend_table(backends: &[BackendView]) -> String {
    use Column::{Number, Text};
    let columns = [
        Text("SERVICE"),
        Text("ADDRESS"),
        Number("WEIGHT"),
        Number("EFFECTIVE"),
        Number("LOAD"),
        Number("CONNECT"),
        Text("ADMIN"),
        Text("HEALTH"),
        Text("STATE"),
        Number("ACTIVE"),
        Number("TOTAL"),
        Number("RX BYTES"),
        Number("TX BYTES"),
    ];
    let row = |backend: &BackendView| {
        [
            backend.service.to_string(),
            backend.address.to_string(),
            backend.weight.to_string(),
            backend.effective_weight.to_string(),
            load(backend),
            connect_time(backend),
            admin(backend),
            backend.health.to_string(),
            backend.condition.to_string(),
            backend.traffic.active_connections.to_string(),
            backend.traffic.connections_total.to_string(),
            backend.traffic.rx_bytes_total.to_string(),
            backend.traffic.tx_bytes_total.to_string(),
        ]
    };
    render(columns, backends.iter().map(row))
}
