//! What the store does to the file system, one call for each point at which an agent can be killed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// A directory tree. Two implementations: the system's, and one that loses what was not synchronised.
pub trait Files: Send {
    /// The text of a file.
    fn read(&self, path: &Path) -> io::Result<String>;

    /// The names in a directory; none where it is missing.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// Makes a directory that only the owner can look into; one that is there is left as it is.
    fn make_directory(&mut self, directory: &Path) -> io::Result<()>;

    /// Makes a file anew with that text. Until [`sync`](Self::sync), a crash can leave any part of it.
    fn write(&mut self, path: &Path, text: &str) -> io::Result<()>;

    /// Returns once the file's text is on disk.
    fn sync(&mut self, path: &Path) -> io::Result<()>;

    /// Gives a file another name, which replaces what had it. Until [`sync_directory`](Self::sync_directory), a crash
    /// can undo it.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;

    /// Returns once the directory's names are on disk.
    fn sync_directory(&mut self, directory: &Path) -> io::Result<()>;

    /// Takes a file away.
    fn remove(&mut self, path: &Path) -> io::Result<()>;
}

/// The system's files.
#[derive(Clone, Copy, Debug)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<String> {
        let bytes = fs::read(path)?;
        // A flipped bit need not leave UTF-8: what cannot be read is damage like any other, and the checksum says so.
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn make_directory(&mut self, directory: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
    }

    fn write(&mut self, path: &Path, text: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())
    }

    fn sync(&mut self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_directory(&mut self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}
