//! `lb-agent top`: the whole, live, in a terminal.
//!
//! [`feed`] brings what the agent says and what is typed, [`app`] makes of it what is to be seen, [`view`] draws that. Only
//! [`feed`] and this file do I/O.

mod app;
mod feed;
mod rows;
mod view;

#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _};

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::client::Client;
use crate::model::ServiceName;
use app::{App, Next};

/// Shows services, backends, health and events in the terminal, live.
///
/// Keys: arrows move, Enter shows a service's backends, Esc goes back, s sorts by the next column, r turns the order round, / filters,
/// e shows events, q quits.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  lb-agent top\n  lb-agent top web")]
pub(super) struct Arguments {
    /// Begins with the backends of this service.
    service: Option<ServiceName>,
}

impl Arguments {
    pub(super) fn execute(self, client: Client) -> anyhow::Result<()> {
        let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        ensure!(is_terminal, "top needs a terminal: `lb-agent status` prints one screen");
        // What cannot work is said before the screen is taken.
        let first = feed::ask(&client)?;
        let mut app = App::new(self.service, std::env::var_os("NO_COLOR").is_some());
        app.take(feed::Message::Data(Ok(first)));
        show(&mut app, client).context("the terminal failed")
    }
}

/// The terminal, until it is given back: also where drawing fails, and, by the hook that it comes with, where something panics.
struct Screen(ratatui::DefaultTerminal);

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let _ = ratatui::try_restore();
    }
}

fn show(app: &mut App, client: Client) -> io::Result<()> {
    let mut screen = Screen(ratatui::try_init()?);
    let messages = feed::start(client)?;
    loop {
        screen.0.draw(|frame| view::draw(app, frame))?;
        // Never closed: the feed holds on to its end.
        let Ok(first) = messages.recv() else { return Ok(()) };
        for message in std::iter::once(first).chain(messages.try_iter()) {
            if app.take(message) == Next::Quit {
                return Ok(());
            }
        }
    }
}
