//! The only place that writes results: data to stdout, notes to stderr.

use std::fmt;
use std::io::{self, Write as _};
use std::mem;
use std::str::FromStr;

use serde::Serialize;

use super::table::{Column, Table};
use crate::client::Call;
use crate::model::Quoted;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Table,
    Json,
}

/// A format that is none.
#[derive(Clone, Debug, thiserror::Error)]
#[error("unknown format {}: valid are table, json", Quoted(.0))]
pub(super) struct UnknownFormat(String);

/// Stdout is gone. Not a failure where its reader went.
#[derive(Debug, thiserror::Error)]
#[error("cannot print the result: {0}")]
struct CannotPrint(io::Error);

/// Where results go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    format: Format,
    is_quiet: bool,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Table => "table",
            Self::Json => "json",
        })
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(word: &str) -> Result<Self, UnknownFormat> {
        match word {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            _ => Err(UnknownFormat(word.to_owned())),
        }
    }
}

impl Output {
    pub(super) fn new(format: Format, is_quiet: bool) -> Self {
        Self { format, is_quiet }
    }

    /// A state: as a file, or as JSON with the same keys.
    pub(super) fn document(&self, call: Call<'_>) -> anyhow::Result<()> {
        match self.format {
            Format::Table => self.text(&call.text("application/toml")?),
            Format::Json => {
                let state: serde_json::Value = call.read()?;
                self.data(&state, |_| String::new())
            }
        }
    }

    /// A result: for people, or as it is.
    pub(super) fn data<T: Serialize>(
        &self,
        value: &T,
        table: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Table => self.text(&table(value)),
            Format::Json => self.text(&(without_controls(&serde_json::to_string_pretty(value)?) + "\n")),
        }
    }

    /// A list of any length, printed while it comes.
    pub(super) fn list<T: Serialize, const N: usize>(
        &self,
        columns: [Column; N],
        row: fn(&T) -> [String; N],
    ) -> List<T, N> {
        List { output: *self, row, table: Table::new(columns), rows: Vec::new(), has_begun: false }
    }

    /// One of many results, on a line of its own in whatever format.
    pub(super) fn line<T: Serialize>(
        &self,
        value: &T,
        line: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Table => self.text(&(line(value) + "\n")),
            Format::Json => self.text(&(without_controls(&serde_json::to_string(value)?) + "\n")),
        }
    }

    /// What was done: a note for people, the object in JSON.
    pub(super) fn done<T: Serialize>(&self, value: &T, note: &str) -> anyhow::Result<()> {
        match self.format {
            Format::Table => self.note(note),
            Format::Json => self.data(value, |_| String::new())?,
        }
        Ok(())
    }

    /// Text that is a result in whatever format.
    pub(super) fn text(&self, text: &str) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(|error| CannotPrint(error).into())
    }

    /// Something worth knowing that is no result.
    pub(super) fn note(&self, note: &str) {
        if !self.is_quiet {
            // A closed stderr leaves nobody to tell.
            let _ = writeln!(io::stderr(), "{note}");
        }
    }
}

/// JSON in which no character is left that a terminal acts on: JSON has those below a space escaped, but not DEL and the
/// second set of controls (ECMA-48 section 5.3). They stand in strings only, where an escape means the same.
fn without_controls(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '\u{7f}'..='\u{9f}' => escaped.push_str(&format!("\\u{:04x}", u32::from(character))),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Rows that are printed together.
const ROWS: usize = 1000;

/// A list that is being printed: a table for people, an array in JSON.
pub(super) struct List<T, const N: usize> {
    output: Output,
    row: fn(&T) -> [String; N],
    table: Table<N>,
    rows: Vec<T>,
    has_begun: bool,
}

impl<T: Serialize, const N: usize> List<T, N> {
    pub(super) fn push(&mut self, row: T) -> anyhow::Result<()> {
        self.rows.push(row);
        if self.rows.len() < ROWS { Ok(()) } else { self.print() }
    }

    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        if !self.has_begun || !self.rows.is_empty() {
            self.print()?;
        }
        match self.output.format {
            Format::Table => Ok(()),
            Format::Json => self.output.text("\n]\n"),
        }
    }

    fn print(&mut self) -> anyhow::Result<()> {
        let rows = mem::take(&mut self.rows);
        let text = match self.output.format {
            Format::Table => self.table.render(rows.iter().map(self.row)),
            Format::Json => {
                let lines: Result<Vec<_>, _> = rows.iter().map(serde_json::to_string).collect();
                (if self.has_begun { ",\n" } else { "[\n" }).to_owned() + &lines?.join(",\n")
            }
        };
        self.has_begun = true;
        self.output.text(&text)
    }
}

/// Whether a result could not be printed because nobody reads any more.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<CannotPrint>();
    cause.is_some_and(|CannotPrint(error)| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_no_character_that_a_terminal_acts_on_and_means_the_same() {
        let hostile = "\u{9b}31m\u{7f}\x1b[2J\n\u{e9}";
        let json = without_controls(&serde_json::to_string(hostile).unwrap());
        assert_eq!(json, "\"\\u009b31m\\u007f\\u001b[2J\\n\u{e9}\"");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), hostile);
    }
}
