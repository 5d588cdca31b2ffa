//! Where the figures come from.

use std::process::Command;

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Keeps this thread on the last CPU it may use: interrupts prefer the first. Returns its number.
pub(super) fn stay_on_one_cpu() -> Result<usize> {
    let allowed = sched_getaffinity(None).context("cannot ask which CPUs may be used")?;
    let last = (0..CpuSet::MAX_CPU).rfind(|&cpu| allowed.is_set(cpu)).context("no CPU may be used")?;
    let mut set = CpuSet::new();
    set.set(last);
    sched_setaffinity(None, &set).with_context(|| format!("cannot stay on CPU {last}"))?;
    Ok(last)
}

/// Processor, kernel and date, in one line.
pub(super) fn describe() -> Result<String> {
    let processors = std::fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let system = rustix::system::uname();
    let kernel = system.release().to_string_lossy();
    // The C library's calendar is the only one at hand, and `date` its shortest door.
    let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output().context("cannot run `date`")?;
    let date = String::from_utf8_lossy(&date.stdout);
    Ok(format!("{} ({cpus} CPU{}), Linux {kernel}, {}", model(&processors), plural(cpus), date.trim()))
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// The processor's name, as far as `/proc/cpuinfo` has it: arm64 has none.
fn model(processors: &str) -> &str {
    let field = |name: &str| {
        let line = processors.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim())
    };
    field("model name").or_else(|| field("CPU part")).unwrap_or("unknown processor")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named() {
        assert_eq!(model("processor\t: 0\nmodel name\t: AMD EPYC\nflags\t: fpu\n"), "AMD EPYC");
        assert_eq!(model("processor\t: 0\nCPU part\t: 0xd0c\n"), "0xd0c");
        assert_eq!(model(""), "unknown processor");
    }
}
