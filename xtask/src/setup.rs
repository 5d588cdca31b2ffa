//! `cargo xtask setup`: brings what is missing, and says what it does.
//!
//! Every other verb calls [`ensure`] first; with nothing missing it costs a few calls of the compiler.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::bpf_toolchain::{self, BpfToolchain, Retry};
use crate::packages;
use crate::process;
use crate::rustc::Rustc;

/// The oldest kernel that has all that the data plane uses, links to tracepoints last, as (major, minor). It has been run on
/// 6.1 and 6.18.
const OLDEST_KERNEL: (u32, u32) = (5, 15);

/// What to prepare for. Each includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Need {
    /// Building the BPF objects and the agent
    Build,
    /// A lab in network namespaces
    Demo,
    /// Every test
    Test,
    /// Everything that continuous integration checks
    Ci,
}

/// What to bring.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Bring only what this needs
    #[arg(long = "for", value_enum, default_value_t = Need::Test, value_name = "WHAT")]
    need: Need,
    /// Bring the system's packages alone: for machines that only serve or call
    #[arg(long)]
    packages_only: bool,
}

/// What a prepared machine has.
pub(crate) struct Ready {
    pub(crate) bpf: BpfToolchain,
}

/// Runs the verb.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    if arguments.packages_only {
        packages::ensure(arguments.need)?;
        println!("setup: packages ready ({:.1} s)", start.elapsed().as_secs_f32());
        return Ok(());
    }
    let ready = bring(arguments.need, Retry::Yes)?;
    let bpf = match ready.bpf {
        BpfToolchain::Compiler(compiler) => {
            format!("BPF program built by rustc {}", compiler.rustc.version.release)
        }
        BpfToolchain::Prebuilt => "BPF program taken from lb-ebpf/prebuilt".to_owned(),
    };
    println!("setup: ready ({bpf}; {:.1} s)", start.elapsed().as_secs_f32());
    Ok(())
}

/// Brings what is missing for a verb.
pub(crate) fn ensure(need: Need) -> Result<Ready> {
    bring(need, Retry::No)
}

fn bring(need: Need, retry: Retry) -> Result<Ready> {
    if !cfg!(target_os = "linux") {
        bail!("the load balancer runs on Linux only: use the virtual machines of vagrant/");
    }
    let rustc = Rustc::current()?;
    if need >= Need::Demo {
        check_kernel()?;
        check_privileges()?;
    }
    packages::ensure(need)?;
    Ok(Ready { bpf: bpf_toolchain::resolve(&rustc, retry)? })
}

fn check_kernel() -> Result<()> {
    let release =
        fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read the kernel's release")?;
    let release = release.trim();
    if kernel_version(release).is_none_or(|version| version < OLDEST_KERNEL) {
        bail!(
            "Linux {release} is too old: {}.{} or newer is needed; the virtual machines of vagrant/ have it",
            OLDEST_KERNEL.0,
            OLDEST_KERNEL.1
        );
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        bail!("this kernel has no BTF (CONFIG_DEBUG_INFO_BTF): use a distribution's kernel, or vagrant/");
    }
    Ok(())
}

fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

fn check_privileges() -> Result<()> {
    if process::is_root()? || process::find("sudo").is_some() {
        return Ok(());
    }
    bail!("network namespaces and XDP need root, and there is no sudo: run the same command in a root shell")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_include_the_smaller_ones() {
        assert!(Need::Build < Need::Demo && Need::Demo < Need::Test && Need::Test < Need::Ci);
    }

    #[test]
    fn kernel_releases_of_distributions_are_understood() {
        assert_eq!(kernel_version("6.1.0-43-cloud-amd64"), Some((6, 1)));
        assert_eq!(kernel_version("5.15.167.4-microsoft-standard-WSL2"), Some((5, 15)));
        assert_eq!(kernel_version("6.18.0"), Some((6, 18)));
        assert_eq!(kernel_version("unknown"), None);
        assert!(kernel_version("5.4.0").unwrap() < OLDEST_KERNEL);
    }
}
