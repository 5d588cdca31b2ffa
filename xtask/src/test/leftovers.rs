//! What tests must not leave behind: namespaces, pins, files and agents.
//!
//! The fixtures call everything that others can see `lbt-PID-...` after the process that made it, so other runs on the
//! same machine are told apart: only what belongs to a process that has ended was *left*.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::Level;
use crate::process::{self, Step};

const PREFIX: &str = "lbt-";

/// What there is at one moment.
pub(super) struct Leftovers(BTreeSet<String>);

impl Leftovers {
    /// Looks around; levels without root can leave nothing.
    pub(super) fn now(level: Level) -> Result<Self> {
        let mut found = BTreeSet::new();
        if level.needs_root() {
            for directory in ["/run/netns", "/sys/fs/bpf", "/tmp"] {
                let names = list(Path::new(directory))?;
                found.extend(
                    names.iter().filter(|name| is_left(name)).map(|name| format!("{directory}/{name}")),
                );
            }
            found.extend(orphaned_agents());
        }
        Ok(Self(found))
    }

    /// What has come since.
    pub(super) fn since<'a>(&'a self, before: &'a Self) -> Vec<&'a String> {
        self.0.difference(&before.0).collect()
    }
}

/// Names in a directory; the BPF file system shows them to root only.
fn list(directory: &Path) -> Result<Vec<String>> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let step =
        Step { name: "look for what tests left behind", way_round: "look yourself: `ip netns`, /sys/fs/bpf" };
    let names = step.output(process::as_root("ls", &[])?.arg("-1").arg(directory))?;
    Ok(names.lines().map(str::to_owned).collect())
}

/// Whether the name is a fixture's whose process has ended.
fn is_left(name: &str) -> bool {
    owner(name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// The process id in `lbt-PID-...`.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

/// Agents whose parent has ended: a test keeps hold of its agents, so theirs have one.
fn orphaned_agents() -> Vec<String> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let orphan = |entry: fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let parent = fs::read_to_string(format!("/proc/{}/status", field(&status, "PPid")?)).ok()?;
        is_orphaned_agent(&status, &parent).then(|| format!("process {pid} (lb-agent)"))
    };
    processes.filter_map(|entry| orphan(entry.ok()?)).collect()
}

/// Orphans go to process 1, or to the service manager of the user's session.
fn is_orphaned_agent(status: &str, parent: &str) -> bool {
    field(status, "Name") == Some("lb-agent")
        && (field(status, "PPid") == Some("1") || field(parent, "Name") == Some("systemd"))
}

/// Reads a field of `/proc/PID/status`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_living_process_owns_is_not_left() {
        assert!(!is_left(&format!("lbt-{}-0-client", std::process::id())));
        // Larger than any process id (PID_MAX_LIMIT is 2^22).
        assert!(is_left("lbt-4194305-0-client"));
        assert!(!is_left("lbt-client"));
        assert!(!is_left("docker-4194305-0"));
    }

    #[test]
    fn only_orphaned_agents_count() {
        let agent = |parent| format!("Name:\tlb-agent\nUmask:\t0022\nPPid:\t{parent}\n");
        assert!(is_orphaned_agent(&agent(1), "Name:\tinit\n"));
        assert!(is_orphaned_agent(&agent(812), "Name:\tsystemd\n"));
        assert!(!is_orphaned_agent(&agent(42), "Name:\tend_to_end-1f2e\n"));
        assert!(!is_orphaned_agent("Name:\tsshd\nPPid:\t1\n", "Name:\tinit\n"));
    }

    #[test]
    fn only_what_is_new_counts() {
        let before = Leftovers(["/run/netns/lbt-1-a".to_owned()].into());
        let after = Leftovers(["/run/netns/lbt-1-a".to_owned(), "/sys/fs/bpf/lbt-2-b".to_owned()].into());
        assert_eq!(after.since(&before), ["/sys/fs/bpf/lbt-2-b"]);
    }
}
