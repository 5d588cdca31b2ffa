//! `lb-agent check`: what works, and what to mend.

use std::collections::BTreeSet;
use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use hyper::Method;

use super::output::Output;
use super::privilege;
use super::table::{Column, render};
use crate::api::Keys;
use crate::api::types::{BackendView, StatusView};
use crate::client::Client;
use crate::config::{Config, InterfaceName};
use crate::datapath::check::{Finding, Served, Verdict, interfaces, is_attached, machine, services};
use crate::model::{Desired, file};
use crate::store::FileStore;

/// Looks at kernel, interfaces, configuration, state, and the way to every backend, and says what to mend. Changes nothing;
/// works with and without a running agent.
///
/// Each line is `ok`, `warning` (packets are balanced, but not as well as could be) or `fault` (they are not), with
/// what to do. The exit status is 1 if there is a fault.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Examples:\n  lb-agent check\n  lb-agent check --interface eth0\n  lb-agent check -o json"
)]
pub(super) struct Arguments {
    /// The configuration file [default: /etc/lb-agent/config.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Looks at this one, instead of what the configuration says; can be given several times.
    #[arg(long = "interface", value_name = "NAME")]
    interfaces: Vec<InterfaceName>,
}

impl Arguments {
    pub(super) fn execute(
        self,
        client: impl FnOnce(PathBuf) -> Client,
        output: &Output,
    ) -> anyhow::Result<()> {
        let mut findings = vec![privileges()];
        let mut config = Config::load(self.config.as_deref()).unwrap_or_else(|error| {
            let fix = "correct it: the rest here is by the defaults";
            findings.push(Finding::fault("configuration", "", error.to_string(), fix));
            Config::default()
        });
        if !self.interfaces.is_empty() {
            config.interfaces = self.interfaces;
        }
        let client = client(config.socket.clone());
        let status: Option<StatusView> = client.call(Method::GET, &["status"]).read().ok();
        findings.extend(machine());
        findings.push(agent(&config, status.as_ref()));
        findings.extend(listening(&config, status.is_some()));
        findings.extend(interfaces(&config));
        match desired(&config, &client, status.is_some()) {
            Ok(desired) => {
                let count =
                    format!("{} services, {} backends", desired.services.len(), desired.backend_count());
                findings.push(Finding::ok("state", "", count));
                let (vips, served) = served(&desired, &client);
                findings.extend(services(&config, &vips, &served, is_attached(&config)));
            }
            Err(fault) => findings.push(fault),
        }
        output.data(&findings, |findings| list(findings))?;
        verdict(&findings)
    }
}

fn privileges() -> Finding {
    match privilege::require("run") {
        Ok(()) => Finding::ok("privileges", "", "enough to load and attach programs"),
        Err(error) => Finding::fault("privileges", "", error.to_string(), "sudo lb-agent check"),
    }
}

fn agent(config: &Config, status: Option<&StatusView>) -> Finding {
    match status {
        Some(status) if status.in_step => {
            Finding::ok("agent", "", format!("{} runs, in step", status.version))
        }
        Some(_) => Finding::fault(
            "agent",
            "",
            "it runs, and the data plane or the disk is not what it shall be",
            "`lb-agent events` says why",
        ),
        None => {
            Finding::ok("agent", "", format!("none answers at {}: `lb-agent run`", config.socket.display()))
        }
    }
}

/// Where the API over TCP is, or would be.
fn listening(config: &Config, is_running: bool) -> Vec<Finding> {
    let Some(http) = &config.http else { return Vec::new() };
    let object = http.listen.to_string();
    let mut findings = Vec::new();
    if !is_running {
        findings.push(match TcpListener::bind(http.listen) {
            Ok(_) => Finding::ok("http", &object, "free"),
            Err(error) => Finding::fault(
                "http",
                &object,
                format!("the API cannot listen there: {error}"),
                format!(
                    "ss -ltnp shows who has the port: end that one, or set another http.listen than {object}"
                ),
            ),
        });
    }
    if let Err(error) = Keys::default().load(http) {
        findings.push(Finding::fault("http", &object, error.to_string(), "correct the file, or its mode"));
    }
    findings
}

/// The state: the agent's, or what is on disk.
fn desired(config: &Config, client: &Client, is_running: bool) -> Result<Desired, Finding> {
    let fault =
        |error: String| Finding::fault("state", "", error, "`lb-agent history` and `lb-agent rollback`");
    let desired = match is_running {
        true => {
            let text = client.call(Method::GET, &["state"]).text("application/toml");
            file::parse(&text.map_err(|error| fault(error.to_string()))?, "state")
                .map_err(|error| fault(error.to_string()))?
        }
        false => FileStore::peek(&config.state_dir).map_err(|error| fault(error.to_string()))?,
    };
    desired.validate(&config.limits).map_err(|refusal| fault(refusal.to_string()))?;
    Ok(desired)
}

/// Virtual addresses, and every backend that packets may go to, with what the agent has counted.
fn served(desired: &Desired, client: &Client) -> (BTreeSet<IpAddr>, Vec<Served>) {
    let counted: Vec<BackendView> = client.call(Method::GET, &["backends"]).read().unwrap_or_default();
    let packets = |name: &str, address| {
        let found = counted.iter().find(|row| row.service.as_str() == name && row.address == address);
        found.map(|row| (row.traffic.rx_packets_total, row.traffic.tx_packets_total))
    };
    let all = desired.services.values().flat_map(|service| {
        service.endpoints().map(move |backend| Served {
            vip: service.vip.socket(),
            protocol: service.protocol,
            backend: backend.socket(),
            packets: packets(service.name.as_str(), backend),
        })
    });
    (desired.services.values().map(|service| service.vip.ip()).collect(), all.collect())
}

fn list(findings: &[Finding]) -> String {
    let columns =
        [Column::Text("VERDICT"), Column::Text("CHECK"), Column::Text("OBJECT"), Column::Text("WHAT")];
    let row = |finding: &Finding| {
        let verdict = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Fault => "FAULT",
        };
        let what = match &finding.fix {
            Some(fix) => format!("{}; to mend: {fix}", finding.detail),
            None => finding.detail.clone(),
        };
        let object = if finding.object.is_empty() { "-" } else { &finding.object };
        [verdict.to_owned(), finding.check.to_owned(), object.to_owned(), what]
    };
    render(columns, findings.iter().map(row))
}

fn verdict(findings: &[Finding]) -> anyhow::Result<()> {
    let faults: Vec<_> = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Fault)
        .map(|finding| format!("{} {}", finding.check, finding.object).trim().to_owned())
        .collect();
    match faults.len() {
        0 => Ok(()),
        1 => bail!("1 fault: {}", faults[0]),
        count => bail!("{count} faults: {}", faults.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_a_line_each_and_only_faults_fail() {
        let mut findings = vec![
            Finding::ok("link", "eth0", "up"),
            Finding::warning("jit", "", "interpreted", "sysctl -w x=1"),
        ];
        assert!(verdict(&findings).is_ok());
        findings.push(Finding::fault("route", "10.0.0.1:80", "no route", "ip route add"));
        assert_eq!(verdict(&findings).unwrap_err().to_string(), "1 fault: route 10.0.0.1:80");
        findings.push(Finding::fault("btf", "", "none", "another kernel"));
        assert_eq!(verdict(&findings).unwrap_err().to_string(), "2 faults: route 10.0.0.1:80, btf");
        let expected = "\
VERDICT  CHECK  OBJECT       WHAT
ok       link   eth0         up
warning  jit    -            interpreted; to mend: sysctl -w x=1
FAULT    route  10.0.0.1:80  no route; to mend: ip route add
FAULT    btf    -            none; to mend: another kernel
";
        assert_eq!(list(&findings), expected);
    }
}
