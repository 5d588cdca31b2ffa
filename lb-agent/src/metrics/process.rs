//! What the agent's process uses, as `/proc` has it (proc_pid_stat(5)), under the names that every Prometheus client gives it.

use std::fs;
use std::path::Path;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// What the process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// User and system time.
    pub cpu_seconds: f64,
    /// Of memory that is there.
    pub resident_bytes: u64,
    /// Of addresses.
    pub virtual_bytes: u64,
    /// Since 1970.
    pub start_seconds: f64,
    /// File descriptors.
    pub open_fds: u64,
    /// How many it may have; none where there is no bound.
    pub max_fds: Option<u64>,
    /// Threads.
    pub threads: u64,
}

impl Process {
    /// This one. Where `/proc` is not there, nothing is known.
    pub fn this() -> Option<Self> {
        let read = |path: &str| fs::read_to_string(path).ok();
        let process = parse(
            &read("/proc/self/stat")?,
            boot_seconds(&read("/proc/stat")?)?,
            (clock_ticks_per_second(), page_size() as u64),
        )?;
        Some(Self {
            // Without the one that lists them.
            open_fds: fs::read_dir(Path::new("/proc/self/fd")).ok()?.count().saturating_sub(1) as u64,
            max_fds: getrlimit(Resource::Nofile).current,
            ..process
        })
    }
}

/// When the machine was started, since 1970.
fn boot_seconds(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()
}

fn parse(stat: &str, boot_seconds: u64, (ticks_per_second, page_size): (u64, u64)) -> Option<Process> {
    // The second field is the program's name, in parentheses, and can hold anything.
    let fields: Vec<u64> = stat
        .rsplit_once(')')?
        .1
        .split_whitespace()
        .map(|field| field.parse::<i64>().map_or(0, |number| number.max(0) as u64))
        .collect();
    // The fields are counted from 1, and the first here is the third.
    let field = |number: usize| fields.get(number - 3).copied();
    let seconds = |ticks: u64| ticks as f64 / ticks_per_second.max(1) as f64;
    Some(Process {
        cpu_seconds: seconds(field(14)? + field(15)?),
        threads: field(20)?,
        start_seconds: boot_seconds as f64 + seconds(field(22)?),
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * page_size,
        open_fds: 0,
        max_fds: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_hostile_name_is_read_too() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 3 0 1000 4096000 12 18446744073709551615 1";
        let expected = Process {
            cpu_seconds: 4.0,
            threads: 3,
            start_seconds: 1010.0,
            virtual_bytes: 4_096_000,
            resident_bytes: 12 * 4096,
            open_fds: 0,
            max_fds: None,
        };
        assert_eq!(parse(stat, 1000, (100, 4096)), Some(expected));
        assert_eq!(parse("7 (x) S 1", 1000, (100, 4096)), None);
        assert_eq!(boot_seconds("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000));
    }

    #[test]
    fn this_process_is_found() {
        let process = Process::this().unwrap();
        assert!(
            process.resident_bytes > 1 << 20 && process.open_fds > 2 && process.threads > 0,
            "{process:?}"
        );
    }
}
