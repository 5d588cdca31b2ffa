//! Which of the three ways to a BPF object this machine takes.
//!
//! 1. *Sources*: the compiler in use, with `rust-src` added by rustup, builds `core` itself.
//! 2. *Distribution*: Debian's packaged compiler, which has `core` ready-made for BPF.
//! 3. *Prebuilt*: the committed object, which CI has compared with a rebuild.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::linker::Linker;
use crate::packages::{self, Manager};
use crate::prebuilt;
use crate::process::{self, Step};
use crate::rustc::Rustc;
use crate::workspace;

/// Debian's compiler for the web packages: the one that has `core` for BPF; then its LLVM, with llvm-objcopy.
const DEBIAN_COMPILER: &str = "/usr/bin/rustc";
const DEBIAN_RUST: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];

/// The value of `LB_EBPF`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// Build where that can be had, else take the committed object.
    Auto,
    /// Build, or fail.
    Build,
    /// Take the committed object.
    Prebuilt,
}

/// How the BPF objects come about.
pub(crate) enum BpfToolchain {
    /// A compiler and its linker.
    Compiler(Compiler),
    /// The committed objects are copied.
    Prebuilt,
}

/// A compiler that can build for BPF, and its linker.
pub(crate) struct Compiler {
    pub(crate) rustc: Rustc,
    pub(crate) linker: Linker,
    /// Whether `core` has to be built from its sources, or is there.
    pub(crate) builds_core: bool,
}

impl Wish {
    fn from_environment() -> Result<Self> {
        match env::var("LB_EBPF") {
            Ok(value) => Self::parse(&value),
            Err(env::VarError::NotPresent) => Ok(Self::Auto),
            Err(error) => Err(error).context("LB_EBPF"),
        }
    }

    fn parse(value: &str) -> Result<Self> {
        match value {
            "" | "auto" => Ok(Self::Auto),
            "build" => Ok(Self::Build),
            "prebuilt" => Ok(Self::Prebuilt),
            other => bail!("LB_EBPF={other} is not known: use auto, build or prebuilt"),
        }
    }
}

/// Whether ways that failed before are tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// An explicit `setup`: try everything.
    Yes,
    /// A set-up in passing: what failed once, say without network, is not waited for each time.
    No,
}

/// Finds a way, bringing what it needs.
pub(crate) fn resolve(rustc: &Rustc, retry: Retry) -> Result<BpfToolchain> {
    let wish = Wish::from_environment()?;
    if wish == Wish::Prebuilt {
        return prebuilt();
    }
    let given_up = GivenUp::of(rustc);
    let is_patient = retry == Retry::Yes || wish == Wish::Build || !given_up.is_set();
    let from_sources = match sources(rustc, is_patient) {
        Ok(compiler) => return given_up.clear().map(|()| BpfToolchain::Compiler(compiler)),
        Err(error) => error,
    };
    let from_packages = match distribution(is_patient) {
        Ok(compiler) => {
            given_up.set()?;
            if is_patient {
                println!("setup: the BPF program is built by {DEBIAN_COMPILER}, because: {from_sources:#}");
            }
            return Ok(BpfToolchain::Compiler(compiler));
        }
        Err(error) => error,
    };
    let reasons =
        format!("with rust-src: {from_sources:#}\nwith the distribution's packages: {from_packages:#}");
    if wish == Wish::Build {
        bail!("LB_EBPF=build, but the BPF program cannot be built here\n{reasons}");
    }
    let toolchain = prebuilt().with_context(|| format!("the BPF program cannot be built here\n{reasons}"))?;
    if is_patient {
        println!(
            "setup: the committed BPF object is used (`cargo xtask setup` tries again), because\n{reasons}"
        );
    }
    Ok(toolchain)
}

/// The compiler in use, with the sources of `core`.
fn sources(rustc: &Rustc, is_patient: bool) -> Result<Compiler> {
    if !is_patient {
        bail!("it failed before; `cargo xtask setup` tries again");
    }
    if !rustc.has_sources() {
        if !rustc.is_from_rustup() {
            bail!("rustc {} does not come from rustup and has no sources of core", rustc.version.release);
        }
        println!("setup: adding rust-src to {} (rustup component add)", toolchain_name(rustc));
        let step = Step {
            name: "add the sources of core to the compiler",
            way_round: "check the network and repeat, or set LB_EBPF=prebuilt to use the committed BPF object",
        };
        step.run_quietly(
            Command::new("rustup").args(["component", "add", "rust-src"]).current_dir(workspace::root()),
        )?;
        if !rustc.has_sources() {
            bail!("rustup added rust-src, but it is not in {}", rustc.sysroot.display());
        }
    }
    with_linker(rustc.clone(), true)
}

fn toolchain_name(rustc: &Rustc) -> String {
    rustc.sysroot.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Debian's packaged compiler. It does not get into the way of rustup's: only its full path is used.
fn distribution(is_patient: bool) -> Result<Compiler> {
    let existing = || Rustc::at(DEBIAN_COMPILER.into()).ok().filter(Rustc::has_bpf_core);
    let rustc = match existing() {
        Some(rustc) => rustc,
        None if !is_patient => bail!("it failed before; `cargo xtask setup` tries again"),
        None => {
            install_debian_compiler()?;
            existing().with_context(|| {
                format!("the packages are installed, but {DEBIAN_COMPILER} has no core for BPF")
            })?
        }
    };
    with_linker(rustc, false)
}

fn install_debian_compiler() -> Result<()> {
    if Manager::of_this_machine() != Some(Manager::Apt) {
        bail!("only Debian and its derivatives package core for BPF");
    }
    println!("setup: installing {} and their LLVM (apt, as root)", DEBIAN_RUST.join(", "));
    packages::apt_install(&DEBIAN_RUST)?;
    let llvm = Rustc::at(DEBIAN_COMPILER.into())?.version.llvm;
    packages::apt_install(&[&format!("llvm-{llvm}-dev"), &format!("llvm-{llvm}")])
}

fn with_linker(rustc: Rustc, builds_core: bool) -> Result<Compiler> {
    let linker = Linker::of(&rustc);
    if linker.works() {
        return Ok(Compiler { rustc, linker, builds_core });
    }
    let _lock = workspace::lock("tools")?;
    // Another task may have built it meanwhile.
    if !linker.works() {
        println!(
            "setup: building bpf-linker against LLVM {} of rustc {}",
            rustc.version.llvm, rustc.version.release
        );
        linker.install(&rustc)?;
    }
    Ok(Compiler { rustc, linker, builds_core })
}

fn prebuilt() -> Result<BpfToolchain> {
    let object = workspace::prebuilt_objects().join("lb.bpf.o");
    if !object.is_file() {
        bail!("there is no prebuilt BPF object at {}", workspace::display(&object));
    }
    if !prebuilt::is_of_these_sources()? {
        eprintln!(
            "warning: lb-ebpf/prebuilt was built from other sources: changes to lb-ebpf or lb-common are not in it"
        );
    }
    Ok(BpfToolchain::Prebuilt)
}

impl Compiler {
    /// A cargo that compiles with this compiler for BPF: unstable features allowed, no flags from outside.
    pub(crate) fn cargo(&self) -> Result<Command> {
        let mut command = if self.builds_core {
            process::cargo()
        } else {
            let mut debian = Command::new("/usr/bin/cargo");
            debian.env("RUSTC", &self.rustc.program);
            debian
        };
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(std::iter::once(self.linker.bin()).chain(env::split_paths(&path)))
            .context("PATH cannot take the directory of the BPF linker")?;
        command.env("PATH", path).env("RUSTC_BOOTSTRAP", "1");
        for variable in ["RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTC_WRAPPER"] {
            command.env_remove(variable);
        }
        Ok(command)
    }

    /// The objcopy of the same LLVM.
    pub(crate) fn objcopy(&self) -> Result<Command> {
        let lib = self.rustc.sysroot.join("lib");
        let own = lib.join("rustlib").join(&self.rustc.version.host).join("bin/rust-objcopy");
        if own.is_file() {
            let mut command = Command::new(own);
            // It is linked against the compiler's LLVM, without saying where that is.
            command.env("LD_LIBRARY_PATH", &lib);
            return Ok(command);
        }
        let versioned = format!("llvm-objcopy-{}", self.rustc.version.llvm);
        process::find(&versioned).or_else(|| process::find("llvm-objcopy")).map(Command::new).with_context(
            || format!("neither {} nor {versioned} is there: install LLVM's tools", own.display()),
        )
    }

    /// Where cargo keeps the sources of crates.
    pub(crate) fn cargo_home(&self) -> Result<PathBuf> {
        if let Some(home) = env::var_os("CARGO_HOME") {
            return Ok(home.into());
        }
        let home = env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?;
        Ok(Path::new(&home).join(".cargo"))
    }
}

/// The note that this compiler could not be made to build for BPF here.
struct GivenUp(PathBuf);

impl GivenUp {
    fn of(rustc: &Rustc) -> Self {
        Self(workspace::products().join("tools").join(format!("{}.cannot-build-bpf", rustc.version.key())))
    }

    fn is_set(&self) -> bool {
        self.0.exists()
    }

    fn set(&self) -> Result<()> {
        let directory = self.0.parent().context("the note has no directory")?;
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        fs::write(&self.0, "").with_context(|| format!("cannot write {}", self.0.display()))
    }

    fn clear(&self) -> Result<()> {
        if self.is_set() {
            fs::remove_file(&self.0).with_context(|| format!("cannot remove {}", self.0.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wish_has_three_values_and_a_default() {
        assert_eq!(Wish::parse("").unwrap(), Wish::Auto);
        assert_eq!(Wish::parse("auto").unwrap(), Wish::Auto);
        assert_eq!(Wish::parse("build").unwrap(), Wish::Build);
        assert_eq!(Wish::parse("prebuilt").unwrap(), Wish::Prebuilt);
        assert!(Wish::parse("never").unwrap_err().to_string().contains("LB_EBPF=never"));
    }
}
