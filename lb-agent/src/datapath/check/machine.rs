//! The kernel, and what it lets this process do.

use std::path::Path;

use aya::util::KernelVersion;
use rustix::process::{Resource, getrlimit};

use super::Finding;
use crate::datapath::load;

/// The oldest kernel that has been tried.
const TRIED: KernelVersion = KernelVersion::new(6, 1, 0);
/// From here on BPF memory is counted by control groups, and the memory lock limit does not matter.
const COUNTED_BY_GROUP: KernelVersion = KernelVersion::new(5, 11, 0);

/// Kernel version, BTF, compiler, memory, and whether the kernel takes the programs: they are loaded and let go of.
pub fn machine() -> Vec<Finding> {
    vec![kernel(), btf(), jit(), memory_lock(), programs()]
}

fn kernel() -> Finding {
    const FIX: &str = "use Linux 6.1 or newer";
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = format!("Linux {}", release.trim());
    match KernelVersion::current() {
        Ok(version) if version >= TRIED => Finding::ok("kernel", "", release),
        Ok(_) => {
            let detail = format!("{release}: older than any that has been tried");
            Finding::warning("kernel", "", detail, FIX)
        }
        Err(error) => Finding::warning("kernel", "", format!("its version cannot be read: {error}"), FIX),
    }
}

fn btf() -> Finding {
    match Path::new("/sys/kernel/btf/vmlinux").exists() {
        true => Finding::ok("btf", "", "the kernel describes its types"),
        false => Finding::fault(
            "btf",
            "",
            "the kernel does not describe its types (no /sys/kernel/btf/vmlinux)",
            "use a kernel with CONFIG_DEBUG_INFO_BTF, as distributions' have",
        ),
    }
}

fn jit() -> Finding {
    const SETTING: &str = "net.core.bpf_jit_enable";
    match std::fs::read_to_string("/proc/sys/net/core/bpf_jit_enable") {
        Ok(text) if text.trim() == "0" => Finding::warning(
            "jit",
            "",
            "BPF programs are interpreted, which takes several times as long",
            format!("sysctl -w {SETTING}=1"),
        ),
        Ok(_) => Finding::ok("jit", "", "BPF programs are compiled"),
        // Only the first network namespace has the setting.
        Err(_) => Finding::ok("jit", "", format!("{SETTING} cannot be seen from here")),
    }
}

fn memory_lock() -> Finding {
    let limit = getrlimit(Resource::Memlock).current;
    let matters = KernelVersion::current().is_ok_and(|version| version < COUNTED_BY_GROUP);
    match limit {
        Some(bytes) if matters => Finding::fault(
            "memory-lock",
            "",
            format!("this kernel counts BPF maps against the memory lock limit of {bytes} bytes"),
            "set LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited",
        ),
        _ => Finding::ok("memory-lock", "", "no limit on the memory of BPF maps"),
    }
}

fn programs() -> Finding {
    match load::try_out() {
        Ok(count) => Finding::ok("programs", "", format!("the kernel takes all {count}")),
        Err(error) => Finding::fault(
            "programs",
            "",
            format!("{error:#}"),
            "run this as root; if it is root, this kernel cannot run this version: report the message",
        ),
    }
}
