//! Notices files that have changed since they were read.
//!
//! By looking, once a second: that finds also what is renamed into place, and what a symbolic link leads to
//! elsewhere, which a watch on a file or its directory would have to be taught one by one.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::Config;

/// Between two looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells one content of a file from the next without reading it; nothing where there is no file.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// Files that were read, and how they were then.
pub(super) struct Changed {
    paths: Vec<PathBuf>,
    read: Vec<Stamp>,
    /// At the last look.
    seen: Vec<Stamp>,
}

impl Changed {
    /// The configuration file, and the files that it names, as they are now.
    pub(super) fn since_now(file: &Path, config: &Config) -> Self {
        let http = config.http.iter().flat_map(|http| [&http.token_file, &http.cert_file, &http.key_file]);
        Self::of([file.to_owned()].into_iter().chain(http.flatten().cloned()).collect())
    }

    fn of(paths: Vec<PathBuf>) -> Self {
        let read: Vec<_> = paths.iter().map(|path| stamp(path)).collect();
        Self { seen: read.clone(), read, paths }
    }

    /// They are read now.
    pub(super) fn note(&mut self) {
        *self = Self::of(std::mem::take(&mut self.paths));
    }

    /// These are read now too.
    pub(super) fn also<'a>(&mut self, paths: impl Iterator<Item = &'a PathBuf>) {
        for path in paths.filter(|path| !self.paths.contains(path)).cloned().collect::<Vec<_>>() {
            let stamp = stamp(&path);
            self.paths.push(path);
            self.read.push(stamp);
            self.seen.push(stamp);
        }
    }

    /// Whether they have changed, and then stayed the same from one look to the next: what is being written is not
    /// read half-way.
    pub(super) fn look(&mut self) -> bool {
        let now: Vec<_> = self.paths.iter().map(|path| stamp(path)).collect();
        let before = std::mem::replace(&mut self.seen, now);
        self.seen != self.read && self.seen == before
    }
}

fn stamp(path: &Path) -> Stamp {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_noticed_once_it_stands_still() {
        let directory = std::env::temp_dir().join(format!("lb-agent-changed-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (file, other) = (directory.join("config.toml"), directory.join("new"));
        fs::write(&file, "a").unwrap();
        let mut changed = Changed::of(vec![file.clone()]);
        assert!(!changed.look());
        fs::write(&file, "ab").unwrap();
        assert!(!changed.look(), "it may be half of it");
        fs::write(&file, "abc").unwrap();
        assert!(!changed.look(), "it was");
        assert!(changed.look());
        assert!(changed.look(), "until it is read");
        // The same length and time, but another file.
        let mut changed = Changed::of(vec![file.clone()]);
        fs::write(&other, "abd").unwrap();
        fs::rename(&other, &file).unwrap();
        assert!(!changed.look() && changed.look());
        let mut changed = Changed::of(vec![file.clone()]);
        fs::remove_file(&file).unwrap();
        assert!(!changed.look() && changed.look());
        fs::remove_dir_all(&directory).unwrap();
    }
}
