//! What stands between this machine and balanced packets: found without changing anything.
//!
//! | file | what it looks at |
//! |---|---|
//! | `machine` | the kernel and what it lets us do |
//! | `interface` | each interface: link, program, mode, offloads, settings |
//! | `way` | addresses of services, and the way to each backend and back |

mod interface;
mod machine;
mod way;

use serde::Serialize;

pub use interface::{interfaces, is_attached};
pub use machine::machine;
pub use way::{Served, services};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it shall be.
    Ok,
    /// Packets are balanced, but not as well as could be, or not for long.
    Warning,
    /// Packets are not balanced.
    Fault,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: a stable name.
    pub check: &'static str,
    /// Which one, where there are several.
    pub object: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub fix: Option<String>,
}

impl Finding {
    /// As it shall be.
    pub fn ok(check: &'static str, object: &str, detail: impl Into<String>) -> Self {
        Self { check, object: object.to_owned(), verdict: Verdict::Ok, detail: detail.into(), fix: None }
    }

    /// Worth mending.
    pub fn warning(
        check: &'static str,
        object: &str,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Warning, fix: Some(fix.into()), ..Self::ok(check, object, detail) }
    }

    /// To be mended.
    pub fn fault(
        check: &'static str,
        object: &str,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Fault, ..Self::warning(check, object, detail, fix) }
    }
}
