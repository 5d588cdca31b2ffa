//! `lb-agent service`: what clients connect to.

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Map, Value, json};

use super::backend::backend_table;
use super::condition::Condition;
use super::output::Output;
use super::table::{Column, render};
use crate::api::types::{ServiceDetail, ServiceView};
use crate::client::Client;
use crate::model::{
    Affinity, Checks, Damping, Endpoint, FlowLimit, HealthArgument, Mode, OnBackendDown, OnNoBackend,
    PanicThreshold, PoolAddress, Prefix, Protocol, Retry, ServiceName, SlowStart, Strategy, Track, listed,
};

/// Lists, adds, changes and removes services.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Lists the services.
    List,
    /// Shows a service with its backends.
    #[command(after_long_help = "Example:\n  lb-agent service show web -o json")]
    Show {
        /// The service's name.
        name: ServiceName,
    },
    /// Adds a service.
    #[command(after_long_help = ADD_EXAMPLES)]
    Add {
        /// Names it: letters, digits, `.`, `_` and `-`, at most 63.
        name: ServiceName,
        /// Virtual address and port that clients send to; IPv6 as `[addr]:port`.
        #[arg(long, value_name = "ADDR:PORT")]
        vip: Endpoint,
        /// `tcp` or `udp`.
        #[arg(long, default_value = "tcp")]
        protocol: Protocol,
        /// Which flows are remembered: `full`, all, or `exceptions`, with hash strategies, those whose slot has changed hands.
        #[arg(long, value_name = "WHICH", default_value = "full")]
        track: Track,
        #[command(flatten)]
        properties: Properties,
    },
    /// Changes properties of a service, live.
    #[command(after_long_help = SET_EXAMPLES)]
    Set {
        /// The service's name.
        name: ServiceName,
        #[command(flatten)]
        properties: RequiredProperties,
        #[command(flatten)]
        condition: Condition,
    },
    /// Removes a service with all its backends, at once.
    ///
    /// Its flows are no longer balanced. To let them finish, drain its backends first.
    #[command(after_long_help = "Example:\n  lb-agent service remove web")]
    Remove {
        /// The service's name.
        name: ServiceName,
        #[command(flatten)]
        condition: Condition,
    },
}

const ADD_EXAMPLES: &str = "\
Examples:
  lb-agent service add web --vip 10.0.0.100:80
  lb-agent service add web6 --vip '[fd00::100]:80' --strategy consistent-hash
  lb-agent service add dns --vip 10.0.0.100:53 --protocol udp --health tcp,interval=5s
  lb-agent service add app --vip 10.0.0.100:81 --mode full-nat --source-pool 10.0.1.5,10.0.1.6
  lb-agent service add raw --vip 10.0.0.100:9000 --health none --on-no-backend drop";

const SET_EXAMPLES: &str = "\
Examples:
  lb-agent service set web --strategy least-connections
  lb-agent service set web --on-backend-down reset
  lb-agent service set web --affinity 10m
  lb-agent service set web --slow-start 30s --damping 2m --panic-threshold 50%
  lb-agent service set web --limit-new-flows 5000/s,burst=10000 --limit-source 20/s,prefix=24
  lb-agent service set web --deny 198.51.100.0/24 --deny 203.0.113.7
  lb-agent service set web --unlist 203.0.113.7
  lb-agent service set web --health tcp,interval=500ms,fall=2
  lb-agent service set web --health http,path=/healthz,status=200,body=ok
  lb-agent service set web --health none";

/// What can be said of a service when it is added and later.
#[derive(Debug, Args)]
struct Properties {
    /// How new flows are spread: `maglev` (the default), `consistent-hash`, `source-hash`, `round-robin`, `random`,
    /// `least-connections`, `least-latency` (TCP only) or `resource-based`.
    #[arg(long, value_name = "S")]
    strategy: Option<Strategy>,
    /// How packets get to the backends: `dnat` (the default) or `full-nat`.
    ///
    /// `dnat`: the destination is rewritten; backends route replies through the balancer. `full-nat`: both ends are
    /// rewritten, backends see an address of the source pool. A change of mode ends the service's flows.
    #[arg(long, value_name = "M")]
    mode: Option<Mode>,
    /// With `--mode full-nat`: the addresses that stand for clients, of this host or to be added to it.
    ///
    /// Flows that go by an address that is taken out are lost.
    #[arg(long, value_name = "ADDR,...", value_delimiter = ',')]
    source_pool: Vec<PoolAddress>,
    /// A check that decides whether a backend is fit: `TYPE[,interval=2s][,timeout=1s][,rise=2][,fall=3][,port=N]...`, or
    /// `none`.
    ///
    /// Types are `tcp`, `http`, `https`, `grpc`, `udp` and `icmp`. All have `jitter=TIME`; `http` has `method=`, `path=`, `host=`,
    /// `status=200-399` and `body=`; `https` those and `verify=true|false` and `sni=`; `grpc` has `service=`; `udp` has `send=` and
    /// `expect=`. A comma within a value is written `\,`. Can be given several times: then all of them must pass. TCP services are
    /// checked by default, UDP services are not.
    #[arg(long, value_name = "SPEC")]
    health: Vec<HealthArgument>,
    /// What new flows meet while no backend takes traffic: `reset` (the default) or `drop`.
    #[arg(long, value_name = "WHAT")]
    on_no_backend: Option<OnNoBackend>,
    /// What a flow meets whose backend is dead or removed: `rebalance` (the default) or `reset`.
    ///
    /// `rebalance`: another backend, which resets the TCP connections that it does not know. `reset`: a TCP reset at
    /// once, or ICMP "port unreachable" for UDP.
    #[arg(long, value_name = "WHAT")]
    on_backend_down: Option<OnBackendDown>,
    /// Whether a TCP connection that its backend refuses or does not answer is given another: `off` (the default) or `on`.
    #[arg(long, value_name = "on|off")]
    retry: Option<Retry>,
    /// For how long after its last new flow a client's flows go where that one went: `off` (the default), or 1s to 24h.
    #[arg(long, value_name = "TIME|off")]
    affinity: Option<Affinity>,
    /// New flows a second that the service takes: `N/s[,burst=M]`, or `none`. The burst is a second's worth unless said.
    #[arg(long, value_name = "LIMIT")]
    limit_new_flows: Option<FlowLimit>,
    /// New flows a second that it takes from each source: `N/s[,burst=M][,prefix=L]`, or `none`.
    ///
    /// Sources are told apart by the first L bits of their addresses, 32 of IPv4's and 64 of IPv6's unless said.
    #[arg(long, value_name = "LIMIT")]
    limit_source: Option<FlowLimit>,
    /// Below which share of fit backends all of them take new flows, fit or not: `off` (the default), or a percentage.
    ///
    /// A few that are left would only be overrun by the traffic of the others. Backups do not count.
    #[arg(long, value_name = "PERCENT|off")]
    panic_threshold: Option<PanicThreshold>,
    /// How long a backend that is new or has recovered takes to grow into its weight: `off` (the default), or 2s to 1h.
    #[arg(long, value_name = "TIME|off")]
    slow_start: Option<SlowStart>,
    /// How long a backend that fails again and again is held out at most: `off` (the default), or 4s to 1h.
    ///
    /// From its third failure on, one that has recovered is held out for a sixteenth of that, and each time for twice as long
    /// as the last.
    #[arg(long, value_name = "TIME|off")]
    damping: Option<Damping>,
    /// Lets clients with this prefix in, and from then on nobody who is not let in by some prefix. Several times: all of them.
    ///
    /// Where a client has several prefixes on the lists, the longest decides.
    #[arg(long, value_name = "PREFIX")]
    allow: Vec<Prefix>,
    /// Turns clients with this prefix away, without an answer, also those with a flow. Several times: all of them.
    #[arg(long, value_name = "PREFIX")]
    deny: Vec<Prefix>,
}

/// The same, and something must be said.
#[derive(Debug, Args)]
#[group(required = true, multiple = true, args = ["strategy", "mode", "source_pool", "health", "on_no_backend", "on_backend_down", "retry", "affinity", "limit_new_flows", "limit_source", "panic_threshold", "slow_start", "damping", "allow", "deny", "unlist"])]
struct RequiredProperties {
    #[command(flatten)]
    properties: Properties,
    /// Takes this prefix off whichever list has it. Several times: all of them.
    #[arg(long, value_name = "PREFIX")]
    unlist: Vec<Prefix>,
}

impl Properties {
    /// As the API takes them, the prefixes under the keys `lists`.
    fn json(self, lists: [&str; 2]) -> anyhow::Result<Map<String, Value>> {
        let Self { strategy, mode, source_pool, health, on_no_backend, on_backend_down, affinity, .. } = self;
        let mut body = Map::new();
        let mut put = |key: &str, value: Option<&str>| {
            if let Some(value) = value {
                body.insert(key.to_owned(), value.into());
            }
        };
        put("strategy", strategy.map(Strategy::name));
        put("mode", mode.map(Mode::name));
        put("on-no-backend", on_no_backend.map(OnNoBackend::name));
        put("on-backend-down", on_backend_down.map(OnBackendDown::name));
        put("retry", self.retry.map(Retry::name));
        if !source_pool.is_empty() {
            body.insert("source_pool".to_owned(), json!(source_pool));
        }
        if let Some(affinity) = affinity {
            body.insert("affinity".to_owned(), json!(affinity));
        }
        if let Some(threshold) = self.panic_threshold {
            body.insert("panic-threshold".to_owned(), json!(threshold));
        }
        if let Some(slow_start) = self.slow_start {
            body.insert("slow-start".to_owned(), json!(slow_start));
        }
        if let Some(damping) = self.damping {
            body.insert("damping".to_owned(), json!(damping));
        }
        if !health.is_empty() {
            body.insert("health".to_owned(), json!(Checks::new(health)?));
        }
        let limits = [("limit-new-flows", self.limit_new_flows), ("limit-source", self.limit_source)];
        for (key, limit) in limits {
            if let Some(limit) = limit {
                body.insert(key.to_owned(), json!(limit));
            }
        }
        let [allow, deny] = lists;
        for (key, prefixes) in [(allow, self.allow), (deny, self.deny)] {
            if !prefixes.is_empty() {
                body.insert(key.to_owned(), json!(prefixes));
            }
        }
        Ok(body)
    }
}

impl Arguments {
    pub(super) fn execute(self, client: &Client, output: &Output) -> anyhow::Result<()> {
        match self.verb {
            Verb::List => {
                let services: Vec<ServiceView> = client.call(Method::GET, &["services"]).read()?;
                output.data(&services, |services| service_table(services))
            }
            Verb::Show { name } => {
                let service: ServiceDetail = client.call(Method::GET, &["services", name.as_str()]).read()?;
                output.data(&service, detail)
            }
            Verb::Add { name, vip, protocol, track, properties } => {
                let mut body = properties.json(["allow", "deny"])?;
                body.extend([("name".to_owned(), json!(name)), ("vip".to_owned(), json!(vip))]);
                body.extend([("protocol".to_owned(), json!(protocol)), ("track".to_owned(), json!(track))]);
                let call = client.call(Method::POST, &["services"]).json(&Value::Object(body));
                let service: ServiceDetail = call.read()?;
                output.done(&service, &format!("service {name} added: {protocol} {vip}"))
            }
            Verb::Set { name, properties, condition } => {
                let RequiredProperties { properties, unlist } = properties;
                let mut body = properties.json(["add-allow", "add-deny"])?;
                if !unlist.is_empty() {
                    body.insert("unlist".to_owned(), json!(unlist));
                }
                let body = Value::Object(body);
                let call = client.call(Method::PATCH, &["services", name.as_str()]).json(&body);
                let service: ServiceDetail = condition.on(call).read()?;
                output.done(&service, &format!("service {name} changed"))
            }
            Verb::Remove { name, condition } => {
                condition.on(client.call(Method::DELETE, &["services", name.as_str()])).send()?;
                output.done(&json!({ "name": name, "removed": true }), &format!("service {name} removed"))
            }
        }
    }
}

fn service_table(services: &[ServiceView]) -> String {
    use Column::{Number, Text};
    let columns = [
        Text("NAME"),
        Text("VIP"),
        Text("PROTOCOL"),
        Text("STRATEGY"),
        Text("MODE"),
        Number("HEALTHY"),
        Number("ACTIVE"),
        Number("TOTAL"),
    ];
    let row = |service: &ServiceView| {
        [
            service.name.to_string(),
            service.vip.to_string(),
            service.protocol.to_string(),
            service.strategy.to_string(),
            service.mode.to_string(),
            healthy(service),
            service.active_connections.to_string(),
            service.connections_total.to_string(),
        ]
    };
    render(columns, services.iter().map(row))
}

/// How many are fit, with a mark where all are used although they are not.
fn healthy(ServiceView { healthy_backends, backends, panicking, .. }: &ServiceView) -> String {
    format!("{healthy_backends}/{backends}{}", if *panicking { " panic" } else { "" })
}

fn detail(detail: &ServiceDetail) -> String {
    let service = &detail.service;
    let properties = [
        ("name", service.name.to_string()),
        ("vip", service.vip.to_string()),
        ("protocol", service.protocol.to_string()),
        ("strategy", service.strategy.to_string()),
        ("mode", service.mode.to_string()),
        ("source_pool", service.source_pool.to_string()),
        ("track", service.track.to_string()),
        ("on-no-backend", service.on_no_backend.to_string()),
        ("on-backend-down", service.on_backend_down.to_string()),
        ("retry", service.retry.to_string()),
        ("affinity", service.affinity.to_string()),
        ("limit-new-flows", detail.limit_new_flows.to_string()),
        ("limit-source", detail.limit_source.to_string()),
        ("allow", listed(&detail.allow)),
        ("deny", listed(&detail.deny)),
        ("panic-threshold", detail.panic_threshold.to_string()),
        ("slow-start", detail.slow_start.to_string()),
        ("damping", detail.damping.to_string()),
        ("health", service.health.to_string()),
        ("revision", service.revision.to_string()),
    ];
    let properties: String =
        properties.iter().map(|(key, value)| format!("{:17}{value}\n", format!("{key}:"))).collect();
    format!("{properties}\n{}", backend_table(&detail.backend_list))
}
