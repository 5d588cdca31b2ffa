//! `lb-agent explain`: where would this packet go?

use clap::Args;
use hyper::Method;

use super::output::Output;
use crate::api::types::ExplainView;
use crate::client::Client;
use crate::model::{Endpoint, Protocol};

/// Tells which backend a client's packet would go to, and why. It asks the tables that packets follow.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    /// `tcp` or `udp`.
    #[arg(long)]
    protocol: Protocol,
    /// The client's address and port.
    #[arg(value_name = "CLIENT:PORT")]
    client: Endpoint,
    /// The service's virtual address and port.
    #[arg(value_name = "VIP:PORT")]
    vip: Endpoint,
}

const EXAMPLES: &str = "\
Examples:
  lb-agent explain --protocol tcp 192.0.2.7:40000 10.0.0.100:80
  lb-agent explain --protocol udp '[fd00:9::7]:5353' '[fd00::100]:53'

Reasons: `flow` (the flow is known), `half-open` (known, its handshake is not done), `slot` (new: the service's table
decides), `candidates` (new: chance or load decides), `no-service`, `no-backend`, `contradiction` (the service's table names
what is not its backend: a bug).";

impl Arguments {
    pub(super) fn execute(self, client: &Client, output: &Output) -> anyhow::Result<()> {
        let call = client.call(Method::GET, &["explain"]).parameter("protocol", Some(self.protocol));
        let call = call.parameter("client", Some(self.client)).parameter("vip", Some(self.vip));
        let explained: ExplainView = call.read()?;
        output.data(&explained, sentence)
    }
}

fn sentence(explained: &ExplainView) -> String {
    let ExplainView { service, backend, source, reason, slot, candidates } = explained;
    let service = service.as_ref().map_or("-".to_owned(), ToString::to_string);
    let backend = backend.map_or("-".to_owned(), |backend| backend.to_string());
    let source = source.map_or(String::new(), |source| format!("source:  {source}\n"));
    let slot = slot.map_or(String::new(), |slot| format!("slot:    {slot}\n"));
    let candidates = candidates.iter().map(|candidate| {
        let share = f64::from(candidate.share_basis_points) / 100.0;
        format!("may be:  {} ({share:.2} %)\n", candidate.backend)
    });
    let candidates: String = candidates.collect();
    let advice = if reason == "contradiction" { CONTRADICTION } else { "" };
    format!("service: {service}\nbackend: {backend}\n{source}reason:  {reason}\n{slot}{candidates}{advice}")
}

/// What it means, and what to do.
const CONTRADICTION: &str = "\
The service's table names what is not a backend of it that takes traffic: such packets are dropped as `drop_internal`.
This is a bug: please report it with `lb-agent export` and `lb-agent status -o json`.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(reason: &str) -> String {
        let service = Some("web".parse().unwrap());
        let reason = reason.to_owned();
        sentence(&ExplainView {
            service,
            backend: None,
            source: None,
            reason,
            slot: None,
            candidates: Vec::new(),
        })
    }

    #[test]
    fn a_contradiction_is_said_to_be_a_bug_and_nothing_else_is() {
        assert_eq!(explained("no-backend"), "service: web\nbackend: -\nreason:  no-backend\n");
        let text = explained("contradiction");
        assert!(text.starts_with("service: web\nbackend: -\nreason:  contradiction\n"), "{text}");
        assert!(text.contains("`drop_internal`") && text.contains("report it"), "{text}");
    }
}
