//! What installing packages asks of a machine, so that tests can be of another one.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::process;

/// Where distributions say what they are (os-release(5)), in the order in which they are asked.
const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// Makes a command that runs a program as root, with these variables.
type AsRoot = fn(&OsStr, &[(OsString, OsString)]) -> Result<Command>;

/// A machine: what it calls itself, where its programs are, and how something is run as root.
pub(super) struct Machine {
    /// The text of its os-release; empty where it has none.
    pub(super) os_release: String,
    pub(super) directories: Vec<PathBuf>,
    pub(super) as_root: AsRoot,
}

impl Machine {
    /// The one that this runs on.
    pub(super) fn this() -> Self {
        let os_release = OS_RELEASE.iter().find_map(|file| fs::read_to_string(file).ok());
        Self {
            os_release: os_release.unwrap_or_default(),
            directories: process::search_path().collect(),
            as_root: |program, variables| process::as_root(program, variables),
        }
    }

    pub(super) fn find(&self, program: &str) -> Option<PathBuf> {
        process::find_in(self.directories.iter().cloned(), program)
    }

    /// Whether nginx can be a TCP proxy: as a module, or compiled in, which it tells with its version.
    pub(super) fn has_stream_module(&self) -> bool {
        let modules = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules"];
        let as_module = modules
            .iter()
            .any(|directory| fs::exists(format!("{directory}/ngx_stream_module.so")).unwrap_or(false));
        let options = || {
            let output = Command::new(self.find("nginx")?).arg("-V").output().ok()?;
            String::from_utf8(output.stderr).ok()
        };
        as_module || options().is_some_and(|text| text.split_whitespace().any(|word| word == "--with-stream"))
    }

    /// What the distribution is called, then those that it is like, nearest first.
    pub(super) fn distributions(&self) -> impl Iterator<Item = &str> {
        ["ID", "ID_LIKE"].into_iter().flat_map(|key| self.value(key).split_whitespace())
    }

    /// A value of the os-release; empty where there is none. Those that matter here have no escapes.
    fn value(&self, key: &str) -> &str {
        let assigned = |line: &'_ str| line.trim().split_once('=').is_some_and(|(name, _)| name == key);
        let line = self.os_release.lines().rfind(|line| assigned(line)).unwrap_or_default();
        line.trim().split_once('=').map_or("", |(_, value)| value.trim_matches(['"', '\'']))
    }
}
