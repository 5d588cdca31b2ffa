//! The compiler in use: its version, its LLVM, its place.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::Step;

/// The oldest compiler that builds the workspace, as (major, minor).
const OLDEST: (u32, u32) = (1, 95);

/// A Rust compiler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rustc {
    /// How it is called.
    pub(crate) program: PathBuf,
    /// What it says of itself.
    pub(crate) version: Version,
    /// The directory of its libraries and sources.
    pub(crate) sysroot: PathBuf,
}

/// The parts of `rustc -vV` that decide how the BPF program is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    /// As in "1.95.0" or "1.97.0-nightly".
    pub(crate) release: String,
    /// The commit, or the release where a distribution's build does not know it.
    pub(crate) commit: String,
    /// The target triple that it runs on.
    pub(crate) host: String,
    /// Major version of its LLVM, which the BPF linker must share.
    pub(crate) llvm: u32,
}

impl Rustc {
    /// The compiler that cargo uses here, after `rust-toolchain.toml`.
    pub(crate) fn current() -> Result<Self> {
        let rustc = Self::at(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()).into())?;
        if !rustc.version.is_at_least(OLDEST) {
            bail!(
                "rustc {} is too old: {}.{} or newer is needed; run `rustup update`, or see https://rustup.rs",
                rustc.version.release,
                OLDEST.0,
                OLDEST.1
            );
        }
        Ok(rustc)
    }

    /// The compiler at a path.
    pub(crate) fn at(program: PathBuf) -> Result<Self> {
        let step = Step {
            name: "ask the compiler for its version",
            way_round: "install Rust as https://rustup.rs says, then repeat",
        };
        let version = Version::parse(&step.output(Command::new(&program).arg("-vV"))?)?;
        let sysroot = step.output(Command::new(&program).args(["--print", "sysroot"]))?;
        Ok(Self { program, version, sysroot: PathBuf::from(sysroot.trim()) })
    }

    /// Whether the sources of `core` are there, from which it is built for the BPF target.
    pub(crate) fn has_sources(&self) -> bool {
        self.sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file()
    }

    /// Whether `core` is there ready-made for the BPF target, as some distributions have it.
    pub(crate) fn has_bpf_core(&self) -> bool {
        self.sysroot.join("lib/rustlib/bpfel-unknown-none/lib").is_dir()
    }

    /// Whether rustup keeps this compiler, so that components can be added to it.
    pub(crate) fn is_from_rustup(&self) -> bool {
        // As rustup lays out its directory: ~/.rustup/toolchains/NAME.
        self.sysroot.parent().and_then(Path::file_name).is_some_and(|name| name == "toolchains")
    }
}

impl Version {
    /// Reads the output of `rustc -vV`.
    fn parse(text: &str) -> Result<Self> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .map(str::trim)
                .with_context(|| format!("`rustc -vV` does not name its {name}: {text:?}"))
        };
        let release = field("release")?;
        let llvm = field("LLVM version")?;
        let commit = match field("commit-hash")? {
            "unknown" => release,
            hash => hash,
        };
        Ok(Self {
            release: release.to_owned(),
            commit: commit.to_owned(),
            host: field("host")?.to_owned(),
            llvm: llvm
                .split('.')
                .next()
                .and_then(|major| major.parse().ok())
                .with_context(|| format!("LLVM version {llvm:?} does not start with a number"))?,
        })
    }

    fn is_at_least(&self, oldest: (u32, u32)) -> bool {
        let mut numbers = self.release.split(['.', '-']).map_while(|part| part.parse().ok());
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= oldest
    }

    /// The architecture of the machine, the first part of the triple.
    pub(crate) fn architecture(&self) -> &str {
        self.host.split('-').next().unwrap_or(&self.host)
    }

    /// A directory name that changes with the compiler.
    pub(crate) fn key(&self) -> &str {
        self.commit.get(..12).unwrap_or(&self.commit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STABLE: &str = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\n\
        commit-hash: 59807616e1fa2540724bfbac14d7976d7e4a3860\ncommit-date: 2026-04-14\n\
        host: x86_64-unknown-linux-gnu\nrelease: 1.95.0\nLLVM version: 22.1.2\n";

    #[test]
    fn version_of_a_rustup_compiler() {
        let version = Version::parse(STABLE).unwrap();
        assert_eq!(version.release, "1.95.0");
        assert_eq!(version.key(), "59807616e1fa");
        assert_eq!(version.architecture(), "x86_64");
        assert_eq!(version.llvm, 22);
    }

    #[test]
    fn version_of_a_distribution_compiler_is_keyed_by_release() {
        let text = STABLE.replace("59807616e1fa2540724bfbac14d7976d7e4a3860", "unknown");
        assert_eq!(Version::parse(&text).unwrap().key(), "1.95.0");
    }

    #[test]
    fn a_compiler_without_llvm_is_refused_by_name() {
        let text = STABLE.replace("LLVM version: 22.1.2\n", "");
        assert!(Version::parse(&text).unwrap_err().to_string().contains("LLVM version"));
    }

    #[test]
    fn age_is_judged_by_major_and_minor() {
        for (release, old_enough) in
            [("1.95.0", true), ("1.97.0-nightly", true), ("2.0.0", true), ("1.94.9", false), ("junk", false)]
        {
            let version = Version { release: release.to_owned(), ..Version::parse(STABLE).unwrap() };
            assert_eq!(version.is_at_least(OLDEST), old_enough, "{release}");
        }
    }
}
