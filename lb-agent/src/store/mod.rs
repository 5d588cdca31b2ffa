//! What outlives the agent: the desired state, and which checks failed last.

mod state;
mod verdicts;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tracing::warn;

use crate::health::Failing;
use crate::model::Desired;

/// Keeps a state. When [`save`](Self::save) has returned, the state is there after a crash.
pub trait Store: Send {
    /// The state that was saved last; an empty one if there never was any.
    ///
    /// # Errors
    /// Where it cannot be read or makes no sense. It is left as it is.
    fn load(&self) -> Result<Desired, StoreError>;

    /// Replaces what is kept, wholly or not at all.
    ///
    /// # Errors
    /// Where it cannot be written; the previous state is still there.
    fn save(&mut self, desired: &Desired) -> Result<(), StoreError>;

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
    /// The file is there but cannot be understood.
    #[error(
        "the saved state is damaged: {0}: restore the file, or move it away to start with an empty state"
    )]
    Damaged(String),
}

/// TOML files, each replaced atomically.
#[derive(Debug)]
pub struct FileStore {
    directory: PathBuf,
    /// Held for as long as the store is: two agents would overwrite each other's state.
    _lock: File,
}

const STATE: &str = "state.toml";
const VERDICTS: &str = "health.toml";
const LOCK: &str = "lock";

impl FileStore {
    /// Opens the store in a directory, which is made when missing, and keeps others out.
    ///
    /// # Errors
    /// Where the directory cannot be made or another agent has it.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |error| StoreError::Io { action, path, error }
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed("make the state directory", directory))?;
        match lock(directory) {
            Ok(Some(lock)) => Ok(Self { directory: directory.to_owned(), _lock: lock }),
            Ok(None) => Err(StoreError::InUse(directory.to_owned())),
            Err(error) => Err(failed("lock", &directory.join(LOCK))(error)),
        }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    fn replace(&self, file: &str, text: &str) -> Result<(), StoreError> {
        self.try_replace(file, text).map_err(|error| {
            let path = self.path(file);
            StoreError::Io { action: "save the state to", path, error }
        })
    }

    fn try_replace(&self, file: &str, text: &str) -> io::Result<()> {
        let temporary = self.path(&format!(".{file}.new"));
        let mut new =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        new.write_all(text.as_bytes())?;
        new.sync_all()?;
        fs::rename(&temporary, self.path(file))?;
        // Until the directory is written, a crash can bring the old name back.
        File::open(&self.directory)?.sync_all()
    }
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

impl Store for FileStore {
    fn load(&self) -> Result<Desired, StoreError> {
        let path = self.path(STATE);
        match fs::read_to_string(&path) {
            Ok(text) => state::parse(&text, &path.display().to_string()).map_err(StoreError::Damaged),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Desired::default()),
            Err(error) => Err(StoreError::Io { action: "read the saved state", path, error }),
        }
    }

    fn save(&mut self, desired: &Desired) -> Result<(), StoreError> {
        self.replace(STATE, &state::print(desired))
    }

    fn load_failing(&self) -> BTreeSet<Failing> {
        let path = self.path(VERDICTS);
        let Ok(text) = fs::read_to_string(&path) else { return BTreeSet::new() };
        verdicts::parse(&text, &path.display().to_string()).unwrap_or_else(|error| {
            warn!(%error, "cannot read which checks failed last; every backend takes traffic until checked");
            BTreeSet::new()
        })
    }

    fn save_failing(&mut self, failing: &BTreeSet<Failing>) -> Result<(), StoreError> {
        self.replace(VERDICTS, &verdicts::print(failing))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::model::{HealthType, Removing, Weight, file};

    /// A directory of one test's own, removed with it.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("lb-agent-store-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn state() -> Desired {
        let text = "[[service]]\nname = \"web\"\nvip = \"10.0.0.100:80\"\n";
        let mut desired = file::parse(text, "state").unwrap();
        let web = desired.service_mut(&"web".parse().unwrap()).unwrap();
        let deadline = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let removing = Removing { weight: Weight::from(3), deadline };
        web.removing.insert("10.0.1.11:80".parse().unwrap(), removing);
        desired
    }

    #[test]
    fn what_was_saved_is_there_for_the_next_agent() {
        let directory = Directory::new("saved");
        let mut store = FileStore::open(&directory.0).unwrap();
        assert_eq!(store.load().unwrap(), Desired::default());
        store.save(&state()).unwrap();
        drop(store);
        assert_eq!(FileStore::open(&directory.0).unwrap().load().unwrap(), state());
        let left: Vec<_> =
            fs::read_dir(&directory.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }

    #[test]
    fn what_failed_is_there_for_the_next_agent_and_damage_is_no_obstacle() {
        let directory = Directory::new("failing-checks");
        let mut store = FileStore::open(&directory.0).unwrap();
        assert_eq!(store.load_failing(), BTreeSet::new());
        let failing = [Failing { target: "10.0.1.11:80".parse().unwrap(), kind: HealthType::Tcp }].into();
        store.save_failing(&failing).unwrap();
        assert_eq!(store.load_failing(), failing);
        fs::write(store.path(VERDICTS), "nonsense").unwrap();
        assert_eq!(store.load_failing(), BTreeSet::new());
    }

    #[test]
    fn a_second_agent_is_kept_out() {
        let directory = Directory::new("locked");
        let first = FileStore::open(&directory.0).unwrap();
        let error = FileStore::open(&directory.0).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("another lb-agent uses the state directory {}: stop it first", directory.0.display())
        );
        drop(first);
        FileStore::open(&directory.0).unwrap();
    }

    #[test]
    fn a_damaged_file_is_named_with_its_line_and_left_alone() {
        let directory = Directory::new("damaged");
        let store = FileStore::open(&directory.0).unwrap();
        let damaged = "version = 1\n[[service]]\nname = \"we";
        fs::write(store.path(STATE), damaged).unwrap();
        assert_eq!(
            store.load().unwrap_err().to_string(),
            format!(
                "the saved state is damaged: {} line 3, `name = \"we`: invalid basic string, expected `\"`: restore the file, or move it away to start with an empty state",
                store.path(STATE).display()
            )
        );
        assert_eq!(fs::read_to_string(store.path(STATE)).unwrap(), damaged);
    }

    #[test]
    fn a_save_that_fails_leaves_the_last_state() {
        let directory = Directory::new("failing");
        let mut store = FileStore::open(&directory.0).unwrap();
        store.save(&state()).unwrap();
        // A directory in the way of the temporary file: root is not stopped by permissions.
        fs::create_dir(directory.0.join(format!(".{STATE}.new"))).unwrap();
        let error = store.save(&Desired::default()).unwrap_err().to_string();
        assert!(error.starts_with("cannot save the state to "), "{error}");
        assert_eq!(store.load().unwrap(), state());
    }
}
