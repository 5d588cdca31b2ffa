//! `lb-agent export`: the state as a file.

use clap::Args;
use hyper::Method;

use super::output::{Format, Output};
use crate::client::Client;

/// Prints the state as a file that `lb-agent apply` takes. The same state gives the same bytes.
///
/// Backends that are being removed are no longer part of it.
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  lb-agent export > state.toml")]
pub(super) struct Arguments {}

impl Arguments {
    pub(super) fn execute(self, client: &Client, output: &Output) -> anyhow::Result<()> {
        match output.format() {
            Format::Table => output.text(&client.call(Method::GET, &["state"]).text("application/toml")?),
            Format::Json => {
                let state: serde_json::Value = client.call(Method::GET, &["state"]).read()?;
                output.data(&state, |_| String::new())
            }
        }
    }
}
