//! `lb-agent export`: the state as a file.

use clap::Args;
use hyper::Method;

use super::output::Output;
use crate::client::Client;

/// Prints the state as a file that `lb-agent apply` takes. The same state gives the same bytes.
///
/// Backends that are being removed are no longer part of it.
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  lb-agent export > state.toml")]
pub(super) struct Arguments {}

impl Arguments {
    pub(super) fn execute(self, client: &Client, output: &Output) -> anyhow::Result<()> {
        output.document(client.call(Method::GET, &["state"]))
    }
}
