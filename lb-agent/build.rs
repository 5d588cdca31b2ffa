//! Brings the BPF objects to where the agent includes them from. No compiler runs here: `cargo xtask build` makes the
//! objects, and where it never ran, the committed ones are taken.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

const OBJECTS: [&str; 2] = ["lb.bpf.o", "lb-log.bpf.o"];

fn main() {
    println!("cargo::rerun-if-env-changed=LB_BPF_DIR");
    let prebuilt = variable("CARGO_MANIFEST_DIR").join("../lb-ebpf/prebuilt");
    let built = env::var_os("LB_BPF_DIR").map(PathBuf::from);
    for object in OBJECTS {
        if let Err(error) = place(object, built.as_deref(), &prebuilt) {
            println!("cargo::error={error}");
        }
    }
}

/// Copies one object to `OUT_DIR`.
fn place(object: &str, built: Option<&Path>, prebuilt: &Path) -> Result<(), String> {
    let candidates: Vec<PathBuf> =
        built.into_iter().chain([prebuilt]).map(|place| place.join(object)).collect();
    // Watched up to the one that is found: a file that is not there counts as changed, which is right for one that
    // would be preferred, and would build the agent again each time for one that is not looked at.
    let found = candidates.iter().find(|candidate| {
        println!("cargo::rerun-if-changed={}", candidate.display());
        candidate.is_file()
    });
    let Some(source) = found else {
        let places: Vec<_> = candidates.iter().map(|candidate| candidate.display().to_string()).collect();
        return Err(format!("no BPF object {object} at {}: run `cargo xtask build`", places.join(" or ")));
    };
    let destination = variable("OUT_DIR").join(object);
    fs::copy(source, &destination)
        .map(drop)
        .map_err(|error| format!("cannot copy {} to {}: {error}", source.display(), destination.display()))
}

/// A directory that cargo always names to build scripts.
fn variable(name: &str) -> PathBuf {
    PathBuf::from(env::var_os(name).unwrap_or_default())
}
