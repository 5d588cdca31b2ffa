//! `lb-agent history` and `lb-agent rollback`: what the state was, and the way back.

use std::path::PathBuf;

use clap::Args;
use hyper::Method;

use super::apply::plan;
use super::condition::Condition;
use super::output::Output;
use super::table::{Column, render};
use crate::api::types::ChangedView;
use crate::client::Client;
use crate::model::Period;
use crate::store::{FileStore, RevisionInfo};

/// Lists the kept revisions of the state, or prints the state as it was at one.
#[derive(Debug, Args)]
#[command(after_long_help = HISTORY_EXAMPLES)]
pub(super) struct History {
    /// Prints that revision's state as a file, as `lb-agent export` prints the current one.
    #[arg(conflicts_with = "state_dir")]
    revision: Option<u64>,
    /// Reads the state directory itself, without a running agent.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// Makes the state what it was at a revision. That is a change like any other, and a revision of its own.
///
/// Services that it does not have are removed at once, backends when they have drained. `lb-agent history` lists the
/// revisions.
#[derive(Debug, Args)]
#[command(after_long_help = ROLLBACK_EXAMPLES)]
pub(super) struct Rollback {
    /// The revision's number.
    revision: u64,
    /// Prints what would change, and changes nothing.
    #[arg(long)]
    dry_run: bool,
    /// How long backends may drain that it does not have.
    #[arg(long, value_name = "TIME", default_value = "5m")]
    drain_timeout: Period,
    #[command(flatten)]
    condition: Condition,
    /// Works on the state directory itself, without a running agent: for a state that is damaged.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["dry_run", "drain_timeout", "if_revision"])]
    state_dir: Option<PathBuf>,
}

const HISTORY_EXAMPLES: &str = "\
Examples:
  lb-agent history
  lb-agent history 17 > state.toml
  lb-agent history --state-dir /var/lib/lb-agent";

const ROLLBACK_EXAMPLES: &str = "\
Examples:
  lb-agent rollback 17 --dry-run
  lb-agent rollback 17
  lb-agent rollback 17 --state-dir /var/lib/lb-agent";

impl History {
    pub(super) fn execute(self, client: &Client, output: &Output) -> anyhow::Result<()> {
        if let Some(number) = self.revision {
            let call = client.call(Method::GET, &["revisions", &number.to_string()]);
            return output.document(call);
        }
        let revisions = match self.state_dir {
            Some(directory) => FileStore::kept(&directory)?,
            None => client.call(Method::GET, &["revisions"]).read()?,
        };
        output.data(&revisions, |revisions| table(revisions))
    }
}

impl Rollback {
    pub(super) fn execute(self, client: &Client, output: &Output) -> anyhow::Result<()> {
        let number = self.revision;
        if let Some(directory) = self.state_dir {
            let made = FileStore::restore(&directory, number)?.info;
            let note = format!("the state is that of revision {number} again, as revision {}", made.revision);
            return output.done(&made, &note);
        }
        let call = client.call(Method::POST, &["revisions", &number.to_string(), "rollback"]);
        let call = self.condition.on(call).parameter("dry_run", Some(self.dry_run));
        let changed: ChangedView = call.parameter("drain_timeout", Some(self.drain_timeout)).read()?;
        if changed.changes.is_empty() {
            output.note("nothing to change");
        }
        output.data(&changed, plan)
    }
}

fn table(revisions: &[RevisionInfo]) -> String {
    let columns = [Column::Number("REVISION"), Column::Text("TIME"), Column::Text("CHANGES")];
    let changes = |changes: &[String]| match changes {
        [] => "-".to_owned(),
        [one] => one.clone(),
        [first, ..] => format!("{first}; and more ({} lines)", changes.len()),
    };
    let rows = revisions.iter().map(|revision| {
        [revision.revision.to_string(), revision.time.to_string(), changes(&revision.changes)]
    });
    render(columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_revision_is_a_line() {
        let revision = |revision, changes: &[&str]| RevisionInfo {
            revision,
            changes: changes.iter().map(|&change| change.to_owned()).collect(),
            ..RevisionInfo::default()
        };
        let revisions =
            [revision(12, &["rollback to revision 3", "b"]), revision(3, &["a"]), revision(0, &[])];
        let expected = "\
REVISION  TIME                  CHANGES
      12  1970-01-01T00:00:00Z  rollback to revision 3; and more (2 lines)
       3  1970-01-01T00:00:00Z  a
       0  1970-01-01T00:00:00Z  -
";
        assert_eq!(table(&revisions), expected);
    }
}
