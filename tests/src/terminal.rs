//! A terminal that a program runs in, and that a test looks at and types into: tmux, with a server of its own.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::unique_name;
use crate::process;
use crate::wait;

/// How long tmux may take for anything.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A terminal of 80 columns and 24 lines; dropping it ends what runs there.
#[derive(Debug)]
pub struct Terminal {
    server: String,
}

impl Terminal {
    /// Runs a line of shell.
    ///
    /// # Errors
    /// When tmux is not installed or does not start.
    pub fn run(line: &str) -> Result<Self> {
        let terminal = Self { server: unique_name("tmux") };
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", line])?;
        Ok(terminal)
    }

    /// What is on the screen.
    ///
    /// # Errors
    /// When what ran there has ended.
    pub fn screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Types keys, by the names that tmux has for them.
    ///
    /// # Errors
    /// When what ran there has ended.
    pub fn press(&self, keys: &[&str]) -> Result<()> {
        let line: Vec<_> = ["send-keys"].into_iter().chain(keys.iter().copied()).collect();
        self.tmux(&line).map(drop)
    }

    /// The shell's process.
    ///
    /// # Errors
    /// When what ran there has ended.
    pub fn pid(&self) -> Result<u32> {
        self.tmux(&["list-panes", "-F", "#{pane_pid}"])?.trim().parse().context("no process")
    }

    /// Whether a program has the whole screen, and what was there before waits behind it.
    ///
    /// # Errors
    /// When what ran there has ended.
    pub fn is_taken(&self) -> Result<bool> {
        Ok(self.tmux(&["display-message", "-p", "#{alternate_on}"])?.trim() == "1")
    }

    /// Waits until the screen is as it shall be.
    ///
    /// # Errors
    /// When it is not in time: with the screen.
    pub fn await_screen(
        &self,
        timeout: Duration,
        what: &str,
        is_so: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let mut last = String::new();
        let found = wait::until(timeout, what, || {
            last = self.screen()?;
            Ok(is_so(&last).then(|| last.clone()))
        });
        found.with_context(|| format!("the screen:\n{}", self.screen().unwrap_or_default()))
    }

    fn tmux(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("tmux");
        command.args(["-L", &self.server]).args(words).env_remove("TMUX").env("TERM", "xterm-256color");
        command.env("LC_ALL", "C.UTF-8");
        process::must(command, TIMEOUT)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has gone by itself if what ran there has ended.
        let _ = self.tmux(&["kill-server"]);
    }
}
