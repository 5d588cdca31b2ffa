//! The BPF objects: `target/bpf/lb.bpf.o`, and `lb-log.bpf.o` with the logging of decisions compiled in.
//!
//! The same sources and compiler give the same bytes in any directory, so that the committed objects can be checked
//! against a rebuild.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::bpf_toolchain::{BpfToolchain, Compiler};
use crate::process::Step;
use crate::workspace;

const TARGET: &str = "bpfel-unknown-none";

/// One object and the features of `lb-ebpf` that it is built with.
pub(crate) struct Object {
    /// Its file name in `target/bpf` and `lb-ebpf/prebuilt`.
    pub(crate) file: &'static str,
    features: &'static [&'static str],
}

/// Every object that the agent embeds.
pub(crate) const OBJECTS: [Object; 2] =
    [Object { file: "lb.bpf.o", features: &[] }, Object { file: "lb-log.bpf.o", features: &["log"] }];

/// What LLVM calls where it does not inline a copy. The linker exports them, and the verifier checks each exported
/// function by itself, whatever its arguments, which these do not pass: hidden, they are checked where they are called.
const MEMORY_BUILTINS: [&str; 5] = ["bcmp", "memcmp", "memcpy", "memmove", "memset"];

/// Brings `target/bpf` up to date.
pub(crate) fn build(toolchain: &BpfToolchain) -> Result<()> {
    // The objects are linked to one path, one after the other.
    let _lock = workspace::lock("bpf")?;
    let directory = workspace::bpf_objects();
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    for object in &OBJECTS {
        let bytes = match toolchain {
            BpfToolchain::Compiler(compiler) => compile(compiler, object)?,
            BpfToolchain::Prebuilt => read(&workspace::prebuilt_objects().join(object.file))?,
        };
        write_if_changed(&directory.join(object.file), &bytes)?;
    }
    Ok(())
}

fn compile(compiler: &Compiler, object: &Object) -> Result<Vec<u8>> {
    let step = Step {
        name: "compile the BPF program",
        way_round: "see docs/setup.md, or set LB_EBPF=prebuilt to use the committed BPF object",
    };
    step.run(&mut cargo(compiler, "build", object)?)?;

    // DWARF is ten times the size of the rest, and nothing reads it: the verifier's messages use BTF, which stays.
    let linked = build_directory().join(TARGET).join("release/lb-xdp");
    let stripped = build_directory().join(object.file);
    let step = Step { name: "strip the BPF object", way_round: "repeat after `cargo xtask setup`" };
    let mut objcopy = compiler.objcopy()?;
    for builtin in MEMORY_BUILTINS {
        objcopy.arg(format!("--set-symbol-visibility={builtin}=hidden"));
    }
    step.run_quietly(objcopy.arg("--strip-debug").arg(&linked).arg(&stripped))?;
    read(&stripped)
}

/// A target directory of its own: flags and compiler differ from those of the host's builds, and each would throw away
/// what the other has built.
fn build_directory() -> PathBuf {
    workspace::products().join("bpf-build")
}

/// Cargo, to build or check the program as this object is built.
pub(crate) fn cargo(compiler: &Compiler, subcommand: &str, object: &Object) -> Result<Command> {
    let mut command = compiler.cargo()?;
    command
        .current_dir(workspace::root())
        .args([subcommand, "--release", "--package", "lb-ebpf", "--bin", "lb-xdp"])
        .args(["--target", TARGET, "--features", &object.features.join(",")])
        .arg("--target-dir")
        .arg(build_directory())
        .env("CARGO_ENCODED_RUSTFLAGS", encoded(&flags(compiler)?));
    if compiler.builds_core {
        command.arg("-Zbuild-std=core");
    }
    Ok(command)
}

fn flags(compiler: &Compiler) -> Result<Vec<OsString>> {
    // Not among them: allows-misaligned-mem-access. It would make loads of packet fields shorter, but LLVM then also
    // misaligns its accesses to the stack, which the verifier refuses everywhere.
    let mut flags: Vec<OsString> = vec![
        // Registers of the tracing helpers differ by architecture; aya-ebpf wants to know it.
        format!("--cfg=bpf_target_arch=\"{}\"", compiler.rustc.version.architecture()).into(),
        // Compare-and-swap came with the third version of the instruction set (Linux 5.12), also in kernels.
        "-Ctarget-cpu=v3".into(),
        // BTF is made from the debug information.
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        // Otherwise the linker turns even 32 bytes of zeros into a call, which the verifier does not follow.
        "-Clink-arg=--disable-expand-memcpy-in-order".into(),
    ];
    // BTF quotes the paths of sources; they must not depend on the machine. The last match counts.
    for (from, to) in [
        (compiler.cargo_home()?.as_path(), "/cargo"),
        (compiler.rustc.sysroot.as_path(), "/rust"),
        (workspace::root(), "/lb"),
    ] {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flags.push(flag);
    }
    Ok(flags)
}

/// Flags as `CARGO_ENCODED_RUSTFLAGS` wants them, so that paths may have spaces.
fn encoded(flags: &[OsString]) -> OsString {
    flags.join("\u{1f}".as_ref())
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// An unchanged object keeps its time stamp, so that the agent is not built again.
pub(crate) fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|existing| existing == bytes) {
        return Ok(());
    }
    // Renamed into place: a build of the agent at the same time sees one object or the other.
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes).with_context(|| format!("cannot write {}", partial.display()))?;
    fs::rename(&partial, path).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_joined_by_the_unit_separator() {
        assert_eq!(encoded(&["-Ca=b c".into(), "-D".into()]), OsString::from("-Ca=b c\u{1f}-D"));
    }
}
