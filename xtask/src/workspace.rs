//! Where things are in the checkout.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    // xtask is only ever run from the checkout that it was built in, one level below the root.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// What the task runner makes for itself: tools and BPF objects. They stay in `target/` of the checkout even
/// where `CARGO_TARGET_DIR` sends cargo's own products elsewhere, so that everyone finds them.
pub(crate) fn products() -> PathBuf {
    root().join("target")
}

/// The BPF objects that the agent embeds.
pub(crate) fn bpf_objects() -> PathBuf {
    products().join("bpf")
}

/// The committed BPF objects, for machines that cannot build them.
pub(crate) fn prebuilt_objects() -> PathBuf {
    root().join("lb-ebpf/prebuilt")
}

/// Waits until no other task of this checkout makes the product of this name; held until dropped.
pub(crate) fn lock(product: &str) -> Result<File> {
    let directory = products();
    let path = directory.join(format!("{product}.lock"));
    let failure = || format!("cannot lock {}", path.display());
    fs::create_dir_all(&directory).with_context(failure)?;
    let file = File::create(&path).with_context(failure)?;
    file.lock().with_context(failure)?;
    Ok(file)
}

/// A path as a user would type it from the root of the checkout.
pub(crate) fn display(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
