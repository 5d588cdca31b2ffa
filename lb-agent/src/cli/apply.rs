//! `lb-agent apply`: a file says what there shall be.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Args;
use hyper::Method;

use super::condition::Condition;
use super::output::Output;
use crate::api::MAX_STATE;
use crate::api::types::ChangedView;
use crate::client::Client;
use crate::datapath::Move;
use crate::model::{Period, file};

/// Declares services and backends as a file has them, all of it or none, and prints what that changes.
///
/// What the file does not mention stays as it is, unless --prune is given.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The state file, as `lb-agent export` prints it; `-` reads stdin.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Removes what the file does not mention: services at once, backends when they have drained.
    #[arg(long)]
    prune: bool,
    /// Prints what would change, and changes nothing.
    #[arg(long)]
    dry_run: bool,
    /// How long pruned backends may drain.
    #[arg(long, value_name = "TIME", default_value = "5m", requires = "prune")]
    drain_timeout: Period,
    #[command(flatten)]
    condition: Condition,
}

const EXAMPLES: &str = "\
Examples:
  lb-agent apply -f state.toml --dry-run
  lb-agent apply -f state.toml --prune
  lb-agent export | sed 's/weight = 1/weight = 2/' | lb-agent apply -f -";

impl Arguments {
    pub(super) fn execute(self, client: &Client, output: &Output) -> anyhow::Result<()> {
        let text = read(&self.file)?;
        let file = self.file.display();
        ensure!(
            text.len() <= MAX_STATE,
            "the state file {file} has {} bytes; a state has {MAX_STATE} at most",
            text.len()
        );
        // Read here too: whoever wrote the file wants to hear its name and line.
        file::parse(&text, &file.to_string())?;
        let call = self.condition.on(client.call(Method::PUT, &["state"]).toml(text));
        let call = call.parameter("prune", Some(self.prune)).parameter("dry_run", Some(self.dry_run));
        let changed: ChangedView = call.parameter("drain_timeout", Some(self.drain_timeout)).read()?;
        if changed.changes.is_empty() {
            output.note("nothing to change");
        }
        output.data(&changed, plan)
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read the state from stdin")?;
        return Ok(text);
    }
    std::fs::read_to_string(path).with_context(|| format!("cannot read the state file {}", path.display()))
}

/// What differs, below it what the data plane does for that, and what that moves.
pub(super) fn plan(changed: &ChangedView) -> String {
    let steps = changed.steps.iter().map(|step| format!("  {step}\n"));
    let moves = changed.moves.iter().flat_map(moved).map(|line| format!("  {line}\n"));
    changed.changes.iter().map(|change| format!("{change}\n")).chain(steps).chain(moves).collect()
}

fn moved(each: &Move) -> impl Iterator<Item = String> {
    let Move { service, slots, slots_total, flows_on_slots, flows_leaving, flows_total } = each;
    let on_slots = (*slots > 0).then(|| {
        format!(
            "service {service}: {slots} of {slots_total} slots move; about {flows_on_slots} of {flows_total} live flows came by them and stay with their backend"
        )
    });
    let leaving = (*flows_leaving > 0).then(|| {
        format!("service {service}: about {flows_leaving} of {flows_total} live flows lose their backend")
    });
    on_slots.into_iter().chain(leaving)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_shows_changes_then_steps_then_what_moves() {
        let of = |slots, flows_leaving| Move {
            service: "web".to_owned(),
            slots,
            slots_total: 65_537,
            flows_on_slots: 12,
            flows_leaving,
            flows_total: 40,
        };
        let changed = ChangedView {
            dry_run: true,
            revision: 3,
            changes: vec!["remove backend web 10.0.1.11:80".to_owned()],
            steps: vec!["backend 10.0.1.11:80/tcp: removed".to_owned()],
            moves: vec![of(21_845, 13), of(0, 0)],
        };
        let expected = "\
remove backend web 10.0.1.11:80
  backend 10.0.1.11:80/tcp: removed
  service web: 21845 of 65537 slots move; about 12 of 40 live flows came by them and stay with their backend
  service web: about 13 of 40 live flows lose their backend
";
        assert_eq!(plan(&changed), expected);
    }
}
