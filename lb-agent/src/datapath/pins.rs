//! The pin directory: what outlives the agent, by path.
//!
//! ```text
//! <pin_dir>/SETTINGS, DIRECTORY, ...   the maps
//! <pin_dir>/ADDED_ADDRESSES            which addresses are there because of us
//! <pin_dir>/CHANGED_SETTINGS           which system settings are what they are because of us
//! <pin_dir>/link-<interface>           one attachment each; holds the program
//! <pin_dir>/program-<n>/               what belongs to one loaded program: its stages, its tracepoint links
//! ```

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock, statfs};
use rustix::mount::{MountFlags, mount};
use tracing::info;

/// Where distributions mount the BPF file system.
const BPFFS: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` of `linux/magic.h`.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

const LINK: &str = "link-";
const GENERATION: &str = "program-";

/// An open pin directory. While it is open no other agent uses it.
pub(super) struct PinDir {
    path: PathBuf,
    /// Holds the lock.
    _directory: File,
}

impl PinDir {
    /// Opens the directory; mounts the file system and creates the directory where they are missing.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        mount_bpffs(path)?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("cannot create pin_dir {}", path.display()))?;
        Self::lock(path)
    }

    /// Opens the directory if it is there.
    pub(super) fn existing(path: &Path) -> anyhow::Result<Option<Self>> {
        if path.is_dir() { Self::lock(path).map(Some) } else { Ok(None) }
    }

    fn lock(path: &Path) -> anyhow::Result<Self> {
        let directory = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _directory: directory }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                bail!("pin_dir {} is in use by an agent that is running: stop that one first", path.display())
            }
            Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }

    /// The directory itself.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a map is pinned.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where the attachment to an interface is pinned.
    pub(super) fn link(&self, interface: &str) -> PathBuf {
        self.path.join(format!("{LINK}{}", escape(interface)))
    }

    /// The interfaces that have attachments.
    pub(super) fn linked(&self) -> anyhow::Result<Vec<String>> {
        Ok(self.names()?.iter().filter_map(|name| unescape(name.strip_prefix(LINK)?)).collect())
    }

    /// The numbers of the program generations that are there, in order.
    pub(super) fn generations(&self) -> anyhow::Result<Vec<u32>> {
        let mut numbers: Vec<_> =
            self.names()?.iter().filter_map(|name| name.strip_prefix(GENERATION)?.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The directory of a program generation.
    pub(super) fn generation(&self, number: u32) -> PathBuf {
        self.path.join(format!("{GENERATION}{number}"))
    }

    /// Makes the directory of the next program generation.
    pub(super) fn next_generation(&self) -> anyhow::Result<(u32, PathBuf)> {
        let number = self.generations()?.last().map_or(1, |last| last.wrapping_add(1));
        let path = self.generation(number);
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok((number, path))
    }

    /// What is in the directory, in order.
    pub(super) fn names(&self) -> anyhow::Result<Vec<String>> {
        let read = || -> io::Result<Vec<String>> {
            fs::read_dir(&self.path)?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect()
        };
        let mut names = read().with_context(|| format!("cannot list {}", self.path.display()))?;
        names.sort_unstable();
        Ok(names)
    }

    /// Removes the directory, which must be empty.
    pub(super) fn remove(self) -> anyhow::Result<()> {
        fs::remove_dir(&self.path).with_context(|| format!("cannot remove {}", self.path.display()))
    }
}

/// The interfaces that have attachments in a pin directory, with where those are pinned. Takes no lock: only to look.
pub(super) fn links(directory: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let each = |entry: fs::DirEntry| {
        let name = entry.file_name();
        Some((unescape(name.to_str()?.strip_prefix(LINK)?)?, entry.path()))
    };
    Ok(fs::read_dir(directory)?.filter_map(|entry| each(entry.ok()?)).collect())
}

/// Takes a pin away. What it pinned goes with its last user.
pub(super) fn unpin(path: &Path) -> anyhow::Result<()> {
    fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
}

/// Takes a whole directory of pins away.
pub(super) fn unpin_all(path: &Path) -> anyhow::Result<()> {
    fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()))
}

/// Mounts the file system at its usual place if `path` lies there and it is missing.
fn mount_bpffs(path: &Path) -> anyhow::Result<()> {
    let there = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    let magic =
        statfs(there).with_context(|| format!("cannot ask for the file system of {}", there.display()))?;
    // The field's type differs between architectures; the magic number fits each.
    #[allow(clippy::unnecessary_cast, reason = "not unnecessary on every architecture")]
    if magic.f_type as i64 & 0xffff_ffff == BPF_FS_MAGIC {
        return Ok(());
    }
    if !path.starts_with(BPFFS) {
        bail!(
            "pin_dir {} is not on a BPF file system: choose one below {BPFFS}, or mount one there: mount -t bpf bpf {}",
            path.display(),
            there.display()
        );
    }
    mount("bpf", BPFFS, "bpf", MountFlags::empty(), None::<&std::ffi::CStr>)
        .with_context(|| format!("cannot mount the BPF file system at {BPFFS}"))?;
    info!("mounted the BPF file system at {BPFFS}");
    Ok(())
}

/// The BPF file system takes no dot in a name; interfaces' names may have one.
fn escape(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2e")
}

fn unescape(name: &str) -> Option<String> {
    let mut parts = name.split('%');
    let mut interface = parts.next()?.to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        interface.push(match code {
            "25" => '%',
            "2e" => '.',
            _ => return None,
        });
        interface.push_str(rest);
    }
    Some(interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_name_comes_back() {
        for name in ["eth0", "eth0.100", "a%b", "%2e", "..x", "wlan-ü"] {
            assert!(!escape(name).contains('.'));
            assert_eq!(unescape(&escape(name)).as_deref(), Some(name));
        }
        assert_eq!(unescape("a%zz"), None);
        assert_eq!(unescape("a%2"), None);
    }
}
