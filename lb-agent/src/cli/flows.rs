//! `lb-agent flows`: who is connected to what.

use clap::Args;
use hyper::Method;

use super::output::Output;
use super::table::Column;
use crate::api::types::FlowView;
use crate::client::Client;
use crate::model::ServiceName;

/// Lists live flows, of one service or of all.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  lb-agent flows web\n  lb-agent flows web -o json --limit 10")]
pub(super) struct Arguments {
    /// The service's name.
    service: Option<ServiceName>,
    /// Lists so many at most.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    limit: usize,
}

impl Arguments {
    pub(super) fn execute(self, client: &Client, output: &Output) -> anyhow::Result<()> {
        use Column::{Number, Text};
        let columns = [
            Text("SERVICE"),
            Text("PROTOCOL"),
            Text("CLIENT"),
            Text("VIP"),
            Text("BACKEND"),
            Text("SOURCE"),
            Text("STATE"),
            Number("IDLE"),
        ];
        let call = client.call(Method::GET, &["flows"]).parameter("service", self.service);
        let (mut list, mut count) = (output.list(columns, row), 0);
        call.parameter("limit", Some(self.limit)).each(|flow: FlowView| {
            count += 1;
            list.push(flow)
        })?;
        list.finish()?;
        if count == self.limit {
            output.note(&format!("the first {count} flows; --limit shows more"));
        }
        Ok(())
    }
}

fn row(flow: &FlowView) -> [String; 8] {
    [
        flow.service.as_ref().map_or("-".to_owned(), ToString::to_string),
        flow.protocol.to_string(),
        flow.client.to_string(),
        flow.vip.to_string(),
        flow.backend.to_string(),
        flow.source.map_or("-".to_owned(), |source| source.to_string()),
        flow.state.clone(),
        format!("{}s", flow.idle_seconds),
    ]
}
