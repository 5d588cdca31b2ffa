//! `bpf-linker`, linked against the LLVM of one given compiler.
//!
//! The linker reads the bitcode that the compiler wrote, so the two must share one LLVM. A linker from elsewhere fails
//! with "Invalid record" as soon as its LLVM is the older one; this one cannot.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process::{self, Step};
use crate::rustc::Rustc;
use crate::workspace;

/// The release of `bpf-linker`.
pub(crate) const VERSION: &str = "0.13.0";

/// The major versions of LLVM that this version of the linker can be linked with.
const LLVM_VERSIONS: [u32; 3] = [21, 22, 23];

/// The linker that belongs to one compiler.
pub(crate) struct Linker {
    /// `target/tools/KEY`: a newer compiler gets a newly built linker.
    directory: PathBuf,
}

impl Linker {
    /// Where the linker of this compiler is, or will be.
    pub(crate) fn of(rustc: &Rustc) -> Self {
        Self { directory: workspace::products().join("tools").join(rustc.version.key()) }
    }

    /// The directory to put first in `PATH`.
    pub(crate) fn bin(&self) -> PathBuf {
        self.directory.join("bin")
    }

    /// Whether it is there and starts; it does not when the checkout was moved or the compiler's LLVM is gone.
    pub(crate) fn works(&self) -> bool {
        Command::new(self.bin().join("bpf-linker"))
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    /// Builds it against the shared library that the compiler itself uses.
    pub(crate) fn install(&self, rustc: &Rustc) -> Result<()> {
        let llvm = rustc.version.llvm;
        if !LLVM_VERSIONS.contains(&llvm) {
            bail!(
                "bpf-linker {VERSION} knows LLVM {LLVM_VERSIONS:?}, rustc {} has {llvm}",
                rustc.version.release
            );
        }
        let prefix = self.llvm_prefix(rustc)?;
        let build = self.directory.join("build");
        let mut command = process::cargo();
        command
            .args([
                "install",
                "bpf-linker",
                "--version",
                VERSION,
                "--locked",
                "--debug",
                "--force",
                "--quiet",
            ])
            .args(["--no-default-features", "--features", &format!("llvm-{llvm}")])
            .arg("--root")
            .arg(&self.directory)
            .arg("--target-dir")
            .arg(&build)
            .env("LLVM_PREFIX", &prefix)
            .env("RUSTC", &rustc.program)
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        let step = Step {
            name: "build bpf-linker (needs a C compiler as linker and the crate registry)",
            way_round: "install gcc or check the network and repeat, or set LB_EBPF=prebuilt to use the committed BPF object",
        };
        step.run_quietly(&mut command)?;
        // The linker is there; what it was made of is 200 MB of no further use.
        fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))
    }

    /// A directory that looks like an LLVM installation to the linker's build: it wants `lib/libLLVM.so`, and at run
    /// time the library under its own name. No headers, no llvm-config.
    fn llvm_prefix(&self, rustc: &Rustc) -> Result<PathBuf> {
        let Some(library) = llvm_library(&rustc.sysroot.join("lib"))? else {
            return distribution_llvm(rustc.version.llvm);
        };
        let prefix = self.directory.join("llvm");
        let lib = prefix.join("lib");
        fs::create_dir_all(&lib).with_context(|| format!("cannot create {}", lib.display()))?;
        let own_name = library.file_name().context("the LLVM library has no name")?;
        for name in ["libLLVM.so".as_ref(), own_name] {
            replace_link(&library, &lib.join(name))?;
        }
        Ok(prefix)
    }
}

/// rustup's compilers carry their LLVM as `libLLVM.so.MAJOR.MINOR-rust-RELEASE`; the `libLLVM-MAJOR-*.so` beside it is a
/// linker script of one line.
fn llvm_library(lib: &Path) -> Result<Option<PathBuf>> {
    let entries = fs::read_dir(lib).with_context(|| format!("cannot list {}", lib.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", lib.display()))?;
        if entry.file_name().to_string_lossy().starts_with("libLLVM.so.") {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// A distribution's compiler uses the distribution's LLVM.
fn distribution_llvm(version: u32) -> Result<PathBuf> {
    // Debian and Ubuntu keep each version apart; others have one, in the ordinary place.
    let own = PathBuf::from(format!("/usr/lib/llvm-{version}"));
    if own.join("lib/libLLVM.so").exists() {
        return Ok(own);
    }
    let Some(config) =
        process::find(&format!("llvm-config-{version}")).or_else(|| process::find("llvm-config"))
    else {
        bail!("LLVM {version}, which the compiler uses, is not installed with its development files");
    };
    let step =
        Step { name: "ask llvm-config for its directory", way_round: "reinstall the LLVM development files" };
    let found = step.output(Command::new(&config).arg("--version"))?;
    if found.split('.').next() != Some(&version.to_string()) {
        bail!("{} has version {}, the compiler uses {version}", config.display(), found.trim());
    }
    Ok(PathBuf::from(step.output(Command::new(&config).arg("--prefix"))?.trim()))
}

fn replace_link(target: &Path, link: &Path) -> Result<()> {
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", link.display()));
        }
        _ => {}
    }
    symlink(target, link).with_context(|| format!("cannot link {} to {}", link.display(), target.display()))
}
