//! The committed BPF objects in `lb-ebpf/prebuilt`: how they are made, and that they are what the sources say.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::bpf;
use crate::bpf_toolchain::{BpfToolchain, Compiler};
use crate::linker;
use crate::workspace;

/// What the objects are built from, as paths in the checkout.
const SOURCES: [&str; 4] = ["lb-common/Cargo.toml", "lb-common/src", "lb-ebpf/Cargo.toml", "lb-ebpf/src"];

/// What a comparison with a rebuild came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// Every object is what the sources give.
    Same,
    /// It cannot be said here, and why.
    Unknown(String),
}

/// Puts freshly built objects into the tree, and writes down where they come from.
pub(crate) fn update(toolchain: &BpfToolchain) -> Result<()> {
    let BpfToolchain::Compiler(compiler) = toolchain else {
        bail!("the prebuilt objects can only be refreshed where the BPF program is built: set LB_EBPF=build");
    };
    if !compiler.builds_core {
        bail!("the prebuilt objects are made with rust-src: see docs/setup.md, and set LB_EBPF=build");
    }
    let directory = workspace::prebuilt_objects();
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    for object in &bpf::OBJECTS {
        let bytes = bpf::read(&workspace::bpf_objects().join(object.file))?;
        bpf::write_if_changed(&directory.join(object.file), &bytes)?;
    }
    let provenance = directory.join("PROVENANCE");
    bpf::write_if_changed(&provenance, provenance_of(compiler)?.as_bytes())?;
    println!("updated {}", workspace::display(&directory));
    Ok(())
}

fn provenance_of(compiler: &Compiler) -> Result<String> {
    let mut text =
        format!("{}\nbpf-linker {}\nsources {}\n", built_by(compiler), linker::VERSION, digest_of_sources()?);
    for object in &bpf::OBJECTS {
        let bytes = bpf::read(&workspace::prebuilt_objects().join(object.file))?;
        text.push_str(&format!("{} {}\n", object.file, sha256(&bytes)?));
    }
    Ok(text)
}

/// The line of PROVENANCE that names the compiler: another one gives other bytes.
fn built_by(compiler: &Compiler) -> String {
    let version = &compiler.rustc.version;
    format!("rustc {} {} {}", version.release, version.commit, version.architecture())
}

/// Compares the committed objects with those just built.
pub(crate) fn compare(toolchain: &BpfToolchain) -> Result<Comparison> {
    let directory = workspace::prebuilt_objects();
    let BpfToolchain::Compiler(compiler) = toolchain else {
        return Ok(Comparison::Unknown("the BPF program was not built here".to_owned()));
    };
    let provenance = fs::read_to_string(directory.join("PROVENANCE"))
        .with_context(|| format!("cannot read {}/PROVENANCE", directory.display()))?;
    let expected = provenance.lines().next().unwrap_or_default();
    if expected != built_by(compiler) {
        return Ok(Comparison::Unknown(format!(
            "they were built by {expected}, this is {}",
            built_by(compiler)
        )));
    }
    for object in &bpf::OBJECTS {
        let committed = bpf::read(&directory.join(object.file))?;
        if committed != bpf::read(&workspace::bpf_objects().join(object.file))? {
            bail!(
                "{} is not what the sources give: run `cargo xtask build --update-prebuilt` and commit the result",
                workspace::display(&directory.join(object.file))
            );
        }
    }
    if provenance != provenance_of(compiler)? {
        bail!(
            "lb-ebpf/prebuilt/PROVENANCE is out of date: run `cargo xtask build --update-prebuilt` and commit it"
        );
    }
    Ok(Comparison::Same)
}

/// Whether the committed objects were built from these very sources.
pub(crate) fn is_of_these_sources() -> Result<bool> {
    let path = workspace::prebuilt_objects().join("PROVENANCE");
    let provenance = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let digest = digest_of_sources()?;
    Ok(provenance.lines().any(|line| line.strip_prefix("sources ") == Some(&digest)))
}

fn digest_of_sources() -> Result<String> {
    let mut files = BTreeSet::new();
    for source in SOURCES {
        collect(&workspace::root().join(source), &mut files)?;
    }
    let mut text = Vec::new();
    for file in files {
        let bytes = bpf::read(&file)?;
        // Name and length keep bytes from wandering between files unseen.
        text.extend(format!("{} {}\n", workspace::display(&file), bytes.len()).into_bytes());
        text.extend(bytes);
    }
    sha256(&text)
}

fn collect(path: &Path, files: &mut BTreeSet<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.insert(path.to_owned());
        return Ok(());
    }
    let context = || format!("cannot list {}", path.display());
    for entry in fs::read_dir(path).with_context(context)? {
        collect(&entry.with_context(context)?.path(), files)?;
    }
    Ok(())
}

/// By coreutils: the task runner has no use for a hash function of its own.
fn sha256(bytes: &[u8]) -> Result<String> {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start sha256sum: install coreutils")?;
    let mut input = child.stdin.take().context("sha256sum has no input")?;
    input.write_all(bytes).context("cannot write to sha256sum")?;
    drop(input);
    let output = child.wait_with_output().context("cannot read from sha256sum")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().next().map(str::to_owned).context("sha256sum gave no digest")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_sha256() {
        // FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc").unwrap(), expected);
    }

    #[test]
    fn sources_are_all_there() {
        for source in SOURCES {
            assert!(workspace::root().join(source).exists(), "{source}");
        }
    }
}
