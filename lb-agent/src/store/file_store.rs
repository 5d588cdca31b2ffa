//! A directory as store: one file for the latest revision, one for each that is kept, all of them readable.
//!
//! ```text
//! <state_dir>/state.toml            the latest revision; whoever names it is acknowledged
//! <state_dir>/revisions/17.toml     the last revisions, the latest included: a second copy of it
//! <state_dir>/health.toml           which checks failed last
//! <state_dir>/lock
//! ```
//!
//! A revision is written to its own file first and to `state.toml` then, each time under another name, synchronised,
//! renamed, and the directory synchronised. A crash in between leaves a file in `revisions` with a number beyond
//! `state.toml`'s: nobody was told of it, and the next agent removes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::sync::watch;
use tracing::warn;

use super::files::{Disk, Files};
use super::revision::{Draft, Revision, RevisionInfo};
use super::state::{self, Damage, first_difference};
use super::{Store, StoreError, verdicts};
use crate::health::Failing;
use crate::model::{Desired, Quoted, Timestamp};

const STATE: &str = "state.toml";
const REVISIONS: &str = "revisions";
const VERDICTS: &str = "health.toml";
const LOCK: &str = "lock";
/// Ends the name of a file that is being written.
const NEW: &str = ".new";

/// TOML files, each replaced atomically.
#[derive(Debug)]
pub struct FileStore<F: Files = Disk> {
    directory: Directory<F>,
    latest: Revision,
    /// Revisions that have a file.
    kept: BTreeMap<u64, RevisionInfo>,
    /// How many may.
    keep: usize,
    /// The highest number that was ever tried: one that failed is not used again.
    highest: u64,
    changed: watch::Sender<u64>,
    /// Held for as long as the store is: two agents would overwrite each other's state.
    _lock: Option<File>,
}

/// The files, and where they are.
#[derive(Debug)]
struct Directory<F> {
    path: PathBuf,
    files: F,
}

impl FileStore {
    /// Opens the store in a directory, which is made when missing, and keeps others out. So many revisions are kept.
    ///
    /// # Errors
    /// Where the directory cannot be made, another agent has it, or what is in it is damaged.
    pub fn open(path: &Path, keep: usize) -> Result<Self, StoreError> {
        let (directory, lock) = Directory::lock(path)?;
        let store = Self::over(directory, keep)?;
        Ok(Self { _lock: Some(lock), ..store })
    }

    /// The latest state in a directory, whoever has it; nothing is made or changed.
    ///
    /// # Errors
    /// Where it cannot be read, or is damaged.
    pub fn peek(path: &Path) -> Result<Desired, StoreError> {
        let directory = Directory { path: path.to_owned(), files: Disk };
        let kept = if path.join(REVISIONS).is_dir() { directory.kept()? } else { BTreeMap::new() };
        Ok(directory.latest(&kept)?.map(|latest| Desired::clone(&latest.desired)).unwrap_or_default())
    }

    /// The revisions in a directory, without an agent; the latest first.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for damage: what cannot be read is left out.
    pub fn kept(path: &Path) -> Result<Vec<RevisionInfo>, StoreError> {
        let (directory, _lock) = Directory::lock(path)?;
        Ok(directory.kept()?.into_values().rev().collect())
    }

    /// Makes a revision the latest without an agent, whatever has become of `state.toml`.
    ///
    /// # Errors
    /// Where it is not kept or damaged itself, or cannot be written.
    pub fn restore(path: &Path, number: u64) -> Result<Revision, StoreError> {
        let (directory, _lock) = Directory::lock(path)?;
        Self::restore_in(directory, number)
    }
}

impl<F: Files> FileStore<F> {
    /// The store in a directory that is there and nobody else's.
    fn over(mut directory: Directory<F>, keep: usize) -> Result<Self, StoreError> {
        let kept = directory.kept()?;
        let latest = match directory.latest(&kept)? {
            Some(latest) => latest,
            // From now on a directory without `state.toml` has lost it.
            None => directory.put_state(Revision::default())?,
        };
        let highest = kept.keys().next_back().copied().unwrap_or_default().max(latest.info.revision);
        let (changed, _) = watch::channel(latest.info.revision);
        let mut store = Self { directory, latest, kept, keep: keep.max(1), highest, changed, _lock: None };
        store.drop_unacknowledged()?;
        store.keep_copy()?;
        Ok(store)
    }

    fn restore_in(mut directory: Directory<F>, number: u64) -> Result<Revision, StoreError> {
        let target = directory.read_revision(number)?;
        let kept = directory.kept()?;
        let latest = directory.latest(&kept).ok().flatten();
        let highest = kept.keys().copied().chain(latest.iter().map(|latest| latest.info.revision)).max();
        let reason = format!("rollback to revision {number}, without an agent");
        let draft = Draft {
            desired: target.desired,
            time: Timestamp::from_system(std::time::SystemTime::now()),
            reason: Some(reason),
        };
        // What was damaged is not known: what is restored counts as changed, all of it.
        let next = latest.unwrap_or_default().succeeded_by(highest.unwrap_or_default() + 1, draft);
        directory.put_revision(&next)?;
        directory.put_state(next)
    }

    /// What a crash or a failure left half-way: with a later revision above it, it would look like one that was made.
    fn drop_unacknowledged(&mut self) -> Result<(), StoreError> {
        while let Some((&number, _)) = self.kept.last_key_value()
            && number > self.latest.info.revision
        {
            self.directory.discard(&revision_file(number))?;
            self.kept.remove(&number);
        }
        Ok(())
    }

    /// The first revision, and that of an earlier version, have no copy yet.
    fn keep_copy(&mut self) -> Result<(), StoreError> {
        let info = &self.latest.info;
        if !self.kept.contains_key(&info.revision) {
            self.directory.put_revision(&self.latest)?;
            self.kept.insert(info.revision, info.clone());
        }
        Ok(())
    }

    fn try_swap(&mut self, next: Revision) -> Result<Revision, StoreError> {
        // Noted before it is tried: what fails may be there all the same.
        self.kept.insert(next.info.revision, next.info.clone());
        self.directory.put_revision(&next)?;
        self.directory.put_state(next)
    }

    /// Old revisions go only after the new one is safe; one that cannot be removed is tried again with the next.
    fn prune(&mut self) {
        while self.kept.len() > self.keep
            && let Some((&oldest, _)) = self.kept.first_key_value()
        {
            if let Err(error) = self.directory.discard(&revision_file(oldest)) {
                warn!(%error, "an old revision of the state stays");
                return;
            }
            self.kept.remove(&oldest);
        }
    }
}

impl<F: Files> Store for FileStore<F> {
    fn latest(&self) -> Result<Revision, StoreError> {
        Ok(self.latest.clone())
    }

    fn swap(&mut self, expected: u64, draft: Draft) -> Result<Revision, StoreError> {
        let latest = self.latest.info.revision;
        if latest != expected {
            return Err(StoreError::Conflict { expected, latest });
        }
        self.drop_unacknowledged()?;
        self.highest += 1;
        let next = self.latest.succeeded_by(self.highest, draft);
        self.latest = self.try_swap(next)?;
        self.prune();
        self.changed.send_replace(self.latest.info.revision);
        Ok(self.latest.clone())
    }

    fn settle(&mut self) -> Result<(), StoreError> {
        self.directory.put_state(self.latest.clone())?;
        self.drop_unacknowledged()
    }

    fn history(&self) -> Result<Vec<RevisionInfo>, StoreError> {
        let latest = self.latest.info.revision;
        Ok(self.kept.range(..=latest).rev().map(|(_, info)| info.clone()).collect())
    }

    fn revision(&self, number: u64) -> Result<Revision, StoreError> {
        match number == self.latest.info.revision {
            true => Ok(self.latest.clone()),
            false => self.directory.read_revision(number),
        }
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn load_failing(&self) -> BTreeSet<Failing> {
        let path = self.directory.path.join(VERDICTS);
        let Ok(text) = self.directory.files.read(&path) else { return BTreeSet::new() };
        verdicts::parse(&text, &path.display().to_string()).unwrap_or_else(|error| {
            warn!(%error, "cannot read which checks failed last; every backend takes traffic until checked");
            BTreeSet::new()
        })
    }

    fn save_failing(&mut self, failing: &BTreeSet<Failing>) -> Result<(), StoreError> {
        self.directory.replace(VERDICTS, &verdicts::print(failing))
    }
}

impl Directory<Disk> {
    /// Makes the directory where it is missing, and keeps others out of it.
    fn lock(path: &Path) -> Result<(Self, File), StoreError> {
        let mut directory = Self { path: path.to_owned(), files: Disk };
        directory.files.make_directory(path).map_err(failed("make the state directory", path))?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            directory.files.sync_directory(parent).map_err(failed("write", parent))?;
        }
        match lock(path) {
            Ok(Some(lock)) => Ok((directory, lock)),
            Ok(None) => Err(StoreError::InUse(path.to_owned())),
            Err(error) => Err(failed("lock", &path.join(LOCK))(error)),
        }
    }
}

impl<F: Files> Directory<F> {
    /// What is in `state.toml`; nothing where there never was anything.
    fn latest(&self, kept: &BTreeMap<u64, RevisionInfo>) -> Result<Option<Revision>, StoreError> {
        let path = self.path.join(STATE);
        let text = match self.files.read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && kept.is_empty() => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(self.damaged(format!("{} is missing", path.display()), kept));
            }
            Err(error) => return Err(failed("read the saved state", &path)(error)),
        };
        let origin = path.display().to_string();
        state::parse(&text, &origin).map(Some).map_err(|damage| {
            let place = match damage {
                Damage::Found(place) => place,
                Damage::Altered => self.altered(&text, &origin),
            };
            self.damaged(place, kept)
        })
    }

    /// Where a file differs from what was written, by the copy that is kept of the revision.
    fn altered(&self, text: &str, origin: &str) -> String {
        let copy = || {
            let number = state::parse_info(text, origin).ok()?.revision;
            let copy = self.files.read(&self.path.join(revision_file(number))).ok()?;
            state::parse(&copy, "copy").ok()?;
            Some(copy)
        };
        match copy().as_deref().and_then(|copy| first_difference(text, copy)) {
            Some((line, now, then)) => {
                format!("{origin} line {line}, {}: it was written as {}", Quoted(now), Quoted(then))
            }
            None => format!("{origin} is not what was written: its checksum is another"),
        }
    }

    /// The error with the way back to the last revision that is in order.
    fn damaged(&self, place: String, kept: &BTreeMap<u64, RevisionInfo>) -> StoreError {
        let good = kept.keys().rev().find_map(|&number| self.read_revision(number).ok());
        let way_out = match good {
            Some(Revision { info: RevisionInfo { revision, time, .. }, .. }) => format!(
                "revision {revision} of {time} is in order: `lb-agent rollback {revision} --state-dir {}` goes back to it",
                self.path.display()
            ),
            None => {
                "no earlier revision is kept: restore the file, or move it away to start with an empty state"
                    .to_owned()
            }
        };
        StoreError::Damaged { place, way_out }
    }

    /// What is told of each revision that has a file. One that cannot be read is as good as none.
    fn kept(&self) -> Result<BTreeMap<u64, RevisionInfo>, StoreError> {
        let directory = self.path.join(REVISIONS);
        let names = self.files.list(&directory).map_err(failed("list", &directory))?;
        let numbers = names.iter().filter_map(|name| name.strip_suffix(".toml")?.parse::<u64>().ok());
        let info = |number| {
            let path = self.path.join(revision_file(number));
            let text = self.files.read(&path).map_err(|error| error.to_string());
            let info = text.and_then(|text| state::parse_info(&text, &path.display().to_string()));
            let info = info.inspect_err(|error| warn!(error, "a revision of the state cannot be read"));
            Some((number, info.ok()?))
        };
        Ok(numbers.filter_map(info).collect())
    }

    fn read_revision(&self, number: u64) -> Result<Revision, StoreError> {
        let path = self.path.join(revision_file(number));
        let text = match self.files.read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoreError::NotKept(number)),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let origin = path.display().to_string();
        state::parse(&text, &origin).map_err(|damage| StoreError::Damaged {
            place: match damage {
                Damage::Found(place) => place,
                Damage::Altered => format!("{origin} is not what was written: its checksum is another"),
            },
            way_out: "choose another revision: `lb-agent history` shows them".to_owned(),
        })
    }

    fn put_revision(&mut self, revision: &Revision) -> Result<(), StoreError> {
        let directory = self.path.join(REVISIONS);
        self.files.make_directory(&directory).map_err(failed("make", &directory))?;
        self.replace(&revision_file(revision.info.revision), &state::print(revision))
    }

    fn put_state(&mut self, revision: Revision) -> Result<Revision, StoreError> {
        self.replace(STATE, &state::print(&revision))?;
        Ok(revision)
    }

    fn replace(&mut self, file: &str, text: &str) -> Result<(), StoreError> {
        let path = self.path.join(file);
        self.try_replace(&path, text).map_err(failed("save the state to", &path))
    }

    fn try_replace(&mut self, path: &Path, text: &str) -> io::Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(NEW);
        let new = path.with_file_name(name);
        self.files.write(&new, text)?;
        self.files.sync(&new)?;
        self.files.rename(&new, path)?;
        // Until the directory is written, a crash can bring the old name back.
        self.files.sync_directory(path.parent().unwrap_or(&self.path))
    }

    /// Removes a file that is of no use any more, if it is there.
    fn discard(&mut self, file: &str) -> Result<(), StoreError> {
        let path = self.path.join(file);
        match self.files.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(error)),
            _ => Ok(()),
        }
    }
}

fn revision_file(number: u64) -> String {
    format!("{REVISIONS}/{number}.toml")
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |error| StoreError::Io { action, path, error }
}

/// Takes the lock; nothing where somebody else holds it. The kernel frees it when its holder ends, however it ends.
fn lock(directory: &Path) -> io::Result<Option<File>> {
    let path = directory.join(LOCK);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
#[path = "file_store_tests.rs"]
mod tests;
