//! Leftovers: what a run must not leave behind, and the sweep of what a killed run did.
//!
//! Everything that the fixtures put where others can see it carries the name `lbt-<pid>-...`, so leftovers name the
//! run they belong to.

use std::fmt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::netns::{self, NETNS_DIR, PREFIX, processes_inside};

/// The BPF file system, under which each agent gets a pin directory of its own.
pub const BPF_FS: &str = "/sys/fs/bpf";

/// One thing that a run left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    /// A named network namespace.
    Namespace(String),
    /// A process inside one of them.
    Process(u32),
    /// A pin directory under [`BPF_FS`].
    Pins(PathBuf),
    /// A file or directory in the temporary directory.
    Files(PathBuf),
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(name) => write!(f, "namespace {name}"),
            Self::Process(pid) => write!(f, "process {pid}"),
            Self::Pins(path) => write!(f, "pins {}", path.display()),
            Self::Files(path) => write!(f, "files {}", path.display()),
        }
    }
}

/// What the run with this process id has left behind up to now.
#[must_use]
pub fn of(pid: u32) -> Vec<Leftover> {
    leftovers(|owner| owner == pid)
}

/// Removes what earlier runs left that were killed before they could clean up: only of processes that are gone.
pub fn sweep() {
    for leftover in leftovers(|owner| !is_alive(owner)) {
        remove(&leftover);
    }
}

fn leftovers(wanted: impl Fn(u32) -> bool) -> Vec<Leftover> {
    let named = |directory: &Path| -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths
            .filter(|path| path.file_name().and_then(|name| owner(name.to_str()?)).is_some_and(&wanted))
            .collect()
    };
    let namespaces = named(Path::new(NETNS_DIR));
    let processes = namespaces.iter().flat_map(|path| processes_inside(path));
    let mut found: Vec<_> =
        processes.map(|pid| Leftover::Process(pid.as_raw_nonzero().get().unsigned_abs())).collect();
    found.extend(
        namespaces.iter().filter_map(|path| Some(Leftover::Namespace(path.file_name()?.to_str()?.into()))),
    );
    found.extend(named(Path::new(BPF_FS)).into_iter().map(Leftover::Pins));
    found.extend(named(&std::env::temp_dir()).into_iter().map(Leftover::Files));
    found
}

fn remove(leftover: &Leftover) {
    // Each may have gone meanwhile, by another run's sweep; what stays is reported by `of` and tried again next time.
    match leftover {
        Leftover::Process(pid) => {
            let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw);
            let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
        }
        Leftover::Namespace(name) => drop(netns::ip(&["netns", "del", name])),
        Leftover::Pins(path) | Leftover::Files(path) => {
            let _ = std::fs::remove_dir_all(path).or_else(|_| std::fs::remove_file(path));
        }
    }
}

/// The process id in `lbt-<pid>-...`.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

fn is_alive(pid: u32) -> bool {
    i32::try_from(pid).ok().and_then(Pid::from_raw).is_some_and(|pid| test_kill_process(pid).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_read_from_the_name_and_from_nothing_else() {
        assert_eq!(owner("lbt-4711-0-client"), Some(4711));
        assert_eq!(owner("lbt-0-client"), Some(0));
        assert_eq!(owner("lbt-client"), None);
        assert_eq!(owner("other-4711-0"), None);
    }

    #[test]
    fn a_sweep_leaves_alone_what_a_living_process_owns() {
        let mine = std::env::temp_dir().join(netns::unique_name("mine"));
        let stale = std::env::temp_dir().join(format!("{PREFIX}{}-0-stale", u32::from(u16::MAX) << 15));
        for path in [&mine, &stale] {
            std::fs::write(path, "").unwrap();
        }
        sweep();
        assert!(mine.exists() && !stale.exists());
        assert!(of(std::process::id()).contains(&Leftover::Files(mine.clone())));
        std::fs::remove_file(mine).unwrap();
    }
}
