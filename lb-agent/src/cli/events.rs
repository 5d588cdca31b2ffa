//! `lb-agent events`: what happened, and what happens.

use anyhow::bail;
use clap::Args;
use hyper::Method;

use super::figures::{plain, uptime};
use super::output::Output;
use crate::client::Client;
use crate::events::{Event, Happening};

/// Prints what happened lately: changes of the state, changes of health, what the data plane did about them.
///
/// With `-o json` each event is an object on a line of its own.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Goes on with what happens, until it is interrupted.
    #[arg(short, long)]
    follow: bool,
    /// Only what came after the event of that number.
    #[arg(long, value_name = "ID", default_value_t = 0, hide_default_value = true)]
    after: u64,
}

const EXAMPLES: &str = "\
Examples:
  lb-agent events
  lb-agent events --follow
  lb-agent events --follow -o json | jq 'select(.type == \"health-changed\")'";

impl Arguments {
    pub(super) fn execute(self, client: &Client, output: &Output) -> anyhow::Result<()> {
        let call = client.call(Method::GET, &["events"]).parameter("follow", Some(self.follow));
        call.parameter("after", Some(self.after)).listen(|data| {
            let event: Event = serde_json::from_str(data)?;
            output.line(&event, line)
        })?;
        if self.follow {
            bail!("the agent stopped; packets are still balanced");
        }
        Ok(())
    }
}

/// What happened, without when.
pub(super) fn summary(event: &Event) -> String {
    let text = match &event.what {
        Happening::Started { version, revision, unattended_seconds } => {
            let away =
                unattended_seconds.map(|seconds| format!(", after {} without an agent", uptime(seconds)));
            format!("version {version}, revision {revision}{}", away.unwrap_or_default())
        }
        Happening::StateChanged { revision, changes } => {
            format!("revision {revision}: {}", changes.join("; "))
        }
        Happening::HealthChanged { service, backend, from, to, reason } => {
            format!("{backend} of {service}: {from} -> {to}: {reason}")
        }
        Happening::PanicChanged { service, panicking, fit, backends } => match panicking {
            true => format!("{service}: {fit} of {backends} backends are fit: all of them take traffic"),
            false => format!("{service}: {fit} of {backends} backends are fit: enough again"),
        },
        Happening::Reconciled { steps } => steps.join("; "),
        Happening::OutOfStep { error } | Happening::ConfigurationRefused { error } => error.clone(),
        Happening::ConfigurationReloaded { now, at_restart } => {
            format!("now: {}; at the next start: {}", list(now), list(at_restart))
        }
        Happening::InterfaceChanged { interface, mode, problem } => match problem {
            Some(problem) => format!("{interface} ({mode}): {problem}"),
            None => format!("{interface} ({mode}): in use"),
        },
        Happening::InStep {} => String::new(),
        Happening::Missed { events } => format!("{events} events: this terminal was too slow"),
    };
    format!("{:15} {text}", event.what.name()).trim_end().to_owned()
}

fn line(event: &Event) -> String {
    format!("{}  {}", event.time, plain(&summary(event)))
}

fn list(keys: &[String]) -> String {
    if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") }
}

#[cfg(test)]
mod tests {
    use crate::model::Timestamp;

    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let print = |what| line(&Event { id: 1, time: Timestamp::default(), what });
        let changes = vec!["add service web".to_owned(), "add service dns".to_owned()];
        assert_eq!(
            print(Happening::StateChanged { revision: 3, changes }),
            "1970-01-01T00:00:00Z  state-changed   revision 3: add service web; add service dns"
        );
        assert_eq!(print(Happening::InStep {}), "1970-01-01T00:00:00Z  in-step");
    }
}
