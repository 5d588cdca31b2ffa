//! What is said when something is wrong: one line on stderr.

use std::error::Error as _;
use std::io::Write as _;
use std::process::ExitCode;

use clap::error::{ContextKind, ErrorKind};

use crate::model::shorten;

/// Of a message, so that what somebody typed by the 100 kB does not come back by the 100 kB.
const MAX_LINE: usize = 1000;
const WRONG_USAGE: u8 = 2;

/// Prints a message as the one line it shall be.
pub(super) fn complain(message: &str) {
    // A closed stderr leaves nobody to tell.
    let _ = writeln!(std::io::stderr(), "lb-agent: {}", shorten(message, MAX_LINE));
}

/// Prints help where that was asked for, and else one line about what is wrong with the command line.
pub(super) fn report(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Whoever closed the pipe has seen enough.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(WRONG_USAGE)
        }
        _ => {
            complain(&line(error));
            ExitCode::from(WRONG_USAGE)
        }
    }
}

/// What clap says on several lines, on one: without the usage, which `--help` shows.
pub(super) fn line(error: &clap::Error) -> String {
    // A value's own error quotes it already, and not at length.
    if let (ErrorKind::ValueValidation, Some(cause)) = (error.kind(), error.source()) {
        let argument = error.get(ContextKind::InvalidArg).map(ToString::to_string).unwrap_or_default();
        return format!("{cause} (in {argument})");
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let text = text.split("\n\nUsage:").next().unwrap_or(text);
    let text = text.split("\n\nFor more information").next().unwrap_or(text);
    format!("{}; see --help", shorten(text, 400))
}
