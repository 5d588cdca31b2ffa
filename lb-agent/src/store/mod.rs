//! What outlives the agent: the desired state with its revisions, and which checks failed last.

mod file_store;
mod files;
mod revision;
mod state;
mod verdicts;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
pub mod simulated;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use tokio::sync::watch;

use crate::health::Failing;
pub use file_store::FileStore;
pub use revision::{Draft, Revision, RevisionInfo};

/// Keeps revisions of a state.
///
/// Made so that a store which several nodes share fits behind it as well as a directory does: a change is a
/// compare-and-swap, so that nobody overwrites what he has not seen, and revisions that others make are told by
/// [`watch`](Self::watch). Calls may block; one task makes them, on a thread of its own.
pub trait Store: Send {
    /// The revision that was kept last; an empty one if there never was any.
    ///
    /// # Errors
    /// Where it cannot be read or makes no sense. It is left as it is.
    fn latest(&self) -> Result<Revision, StoreError>;

    /// Keeps a new revision, wholly or not at all, if the latest is still `expected`. When this has returned well, it
    /// is there after a crash.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where the latest is another. Where it cannot be written, the latest is what it was,
    /// but a crash may leave the new one: [`settle`](Self::settle) makes certain.
    fn swap(&mut self, expected: u64, draft: Draft) -> Result<Revision, StoreError>;

    /// After a swap that failed: makes certain that the latest revision is what a crash would leave.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn settle(&mut self) -> Result<(), StoreError>;

    /// The revisions that are kept, the latest first.
    ///
    /// # Errors
    /// Where they cannot be read.
    fn history(&self) -> Result<Vec<RevisionInfo>, StoreError>;

    /// One of them.
    ///
    /// # Errors
    /// Where it is not kept, or damaged.
    fn revision(&self, number: u64) -> Result<Revision, StoreError>;

    /// The number of the latest revision, whoever makes it.
    fn watch(&self) -> watch::Receiver<u64>;

    /// Which checks failed when that was last saved. A hint: none, where it cannot be read.
    fn load_failing(&self) -> BTreeSet<Failing>;

    /// Keeps that for the next agent.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn save_failing(&mut self, failing: &BTreeSet<Failing>) -> Result<(), StoreError>;
}

/// Why a state cannot be kept or read. One line.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An operation on a file failed.
    #[error("cannot {action} {}: {error}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Somebody else has it.
    #[error("another lb-agent uses the state directory {}: stop it first", .0.display())]
    InUse(PathBuf),
    /// The file is there but cannot be understood, or is gone. Nothing was changed.
    #[error("the saved state is damaged: {place}: {way_out}")]
    Damaged {
        /// The file, the line, and what is wrong there.
        place: String,
        /// What to do.
        way_out: String,
    },
    /// Somebody else was faster.
    #[error("the state is at revision {latest} by now, not {expected}")]
    Conflict {
        /// What it was thought to be.
        expected: u64,
        /// What it is.
        latest: u64,
    },
    /// There is no such revision, or none any more.
    #[error("revision {0} is not kept: `lb-agent history` shows those that are")]
    NotKept(u64),
}
