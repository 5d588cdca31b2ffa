//! What the kernel must be told so that packets which the program rewrites and leaves to it are forwarded.
//!
//! That happens while a neighbour's link-layer address is unknown. Settings are those of the network namespace of the
//! process that opens the file, and only what differs is written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tracing::info;

const ROOT: &str = "/proc/sys/net";

/// Reverse path filtering that asks only whether the source is reachable at all (RFC 3704 section 2.4).
const LOOSE: u32 = 2;
/// Reverse path filtering by the very interface (RFC 3704 section 2.2).
const STRICT: u32 = 1;

/// Lets the kernel forward IPv4 packets that come in by an interface.
pub(super) fn forward_ipv4(interface: &str) -> anyhow::Result<()> {
    let conf = Conf { root: Path::new(ROOT) };
    conf.set("ipv4", interface, "forwarding", 1)?;
    // A translated reply comes from the virtual address, which is an address of this host.
    conf.set("ipv4", interface, "accept_local", 1)?;
    // Its route back is local, by the interface that has the address: often not the one it came in by. The stricter
    // of the interface's own setting and that of all counts.
    let rp_filter = conf.get("ipv4", "all", "rp_filter")?.max(conf.get("ipv4", interface, "rp_filter")?);
    if rp_filter == STRICT {
        conf.set("ipv4", interface, "rp_filter", LOOSE)?;
    }
    Ok(())
}

/// Lets the kernel forward IPv6 packets. There is one switch for all interfaces, and it turns this host into a router.
pub(super) fn forward_ipv6() -> anyhow::Result<()> {
    let conf = Conf { root: Path::new(ROOT) };
    if !conf.file("ipv6", "all", "forwarding").exists() {
        // Without IPv6 there is nothing to forward.
        return Ok(());
    }
    // A router ignores router advertisements unless told otherwise: a default route learnt from one would expire.
    for interface in conf.interfaces("ipv6")? {
        if !["all", "lo"].contains(&interface.as_str()) && conf.get("ipv6", &interface, "accept_ra")? == 1 {
            conf.set("ipv6", &interface, "accept_ra", 2)?;
        }
    }
    conf.set("ipv6", "all", "forwarding", 1)
}

/// The tree of a namespace's settings.
struct Conf<'a> {
    root: &'a Path,
}

impl Conf<'_> {
    fn file(&self, family: &str, interface: &str, key: &str) -> PathBuf {
        self.root.join(family).join("conf").join(interface).join(key)
    }

    fn interfaces(&self, family: &str) -> anyhow::Result<Vec<String>> {
        let directory = self.root.join(family).join("conf");
        let read = || -> io::Result<Vec<String>> {
            fs::read_dir(&directory)?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect()
        };
        read().with_context(|| format!("cannot list {}", directory.display()))
    }

    fn get(&self, family: &str, interface: &str, key: &str) -> anyhow::Result<u32> {
        let file = self.file(family, interface, key);
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        text.trim().parse().with_context(|| format!("{} is not a number", file.display()))
    }

    fn set(&self, family: &str, interface: &str, key: &str, value: u32) -> anyhow::Result<()> {
        let before = self.get(family, interface, key)?;
        if before == value {
            return Ok(());
        }
        let file = self.file(family, interface, key);
        fs::write(&file, value.to_string())
            .with_context(|| format!("cannot write {value} to {}", file.display()))?;
        info!("net.{family}.conf.{interface}.{key}: {value} instead of {before}");
        Ok(())
    }
}
