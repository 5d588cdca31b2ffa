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
    Conf { root: Path::new(ROOT) }.forward_ipv4(interface)
}

/// Lets the kernel forward IPv6 packets. There is one switch for all interfaces, and it turns this host into a router.
pub(super) fn forward_ipv6() -> anyhow::Result<()> {
    Conf { root: Path::new(ROOT) }.forward_ipv6()
}

/// The tree of a namespace's settings.
struct Conf<'a> {
    root: &'a Path,
}

impl Conf<'_> {
    fn forward_ipv4(&self, interface: &str) -> anyhow::Result<()> {
        self.set("ipv4", interface, "forwarding", 1)?;
        // A translated reply comes from the virtual address, which is an address of this host.
        self.set("ipv4", interface, "accept_local", 1)?;
        // Its route back is local, by the interface that has the address: often not the one it came in by. The stricter
        // of the interface's own setting and that of all counts.
        let rp_filter =
            self.get("ipv4", "all", "rp_filter")?.max(self.get("ipv4", interface, "rp_filter")?);
        if rp_filter == STRICT {
            self.set("ipv4", interface, "rp_filter", LOOSE)?;
        }
        Ok(())
    }

    fn forward_ipv6(&self) -> anyhow::Result<()> {
        if !self.file("ipv6", "all", "forwarding").exists() {
            // Without IPv6 there is nothing to forward.
            return Ok(());
        }
        // A router ignores router advertisements unless told otherwise: a default route learnt from one would expire.
        for interface in self.interfaces("ipv6")? {
            if !["all", "lo"].contains(&interface.as_str()) && self.get("ipv6", &interface, "accept_ra")? == 1
            {
                self.set("ipv6", &interface, "accept_ra", 2)?;
            }
        }
        self.set("ipv6", "all", "forwarding", 1)
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of settings in a directory of its own.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, settings: &[(&str, u32)]) -> Self {
            let root = std::env::temp_dir().join(format!("lb-agent-sysctl-{name}-{}", std::process::id()));
            for (path, value) in settings {
                let file = root.join(path);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, format!("{value}\n")).unwrap();
            }
            Self(root)
        }

        fn conf(&self) -> Conf<'_> {
            Conf { root: &self.0 }
        }

        fn get(&self, path: &str) -> u32 {
            fs::read_to_string(self.0.join(path)).unwrap().trim().parse().unwrap()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn strict_filtering_is_loosened_whoever_asks_for_it() {
        for (all, own, expected) in [(0, 0, 0), (1, 0, 2), (0, 1, 2), (2, 1, 1), (0, 2, 2)] {
            let tree = Tree::new(
                &format!("rp-{all}-{own}"),
                &[
                    ("ipv4/conf/eth0/forwarding", 0),
                    ("ipv4/conf/eth0/accept_local", 0),
                    ("ipv4/conf/eth0/rp_filter", own),
                    ("ipv4/conf/all/rp_filter", all),
                ],
            );
            tree.conf().forward_ipv4("eth0").unwrap();
            assert_eq!(tree.get("ipv4/conf/eth0/rp_filter"), expected, "all {all}, own {own}");
            assert_eq!(tree.get("ipv4/conf/eth0/forwarding"), 1);
            assert_eq!(tree.get("ipv4/conf/eth0/accept_local"), 1);
        }
    }

    #[test]
    fn a_router_keeps_the_routes_it_learns() {
        let tree = Tree::new(
            "ra",
            &[
                ("ipv6/conf/all/forwarding", 0),
                ("ipv6/conf/all/accept_ra", 1),
                ("ipv6/conf/eth0/accept_ra", 1),
                ("ipv6/conf/eth1/accept_ra", 0),
            ],
        );
        tree.conf().forward_ipv6().unwrap();
        let values = ["all/forwarding", "eth0/accept_ra", "eth1/accept_ra"]
            .map(|key| tree.get(&format!("ipv6/conf/{key}")));
        assert_eq!(values, [1, 2, 0]);
    }

    #[test]
    fn a_kernel_without_ipv6_is_left_alone() {
        Conf { root: Path::new("/nonexistent") }.forward_ipv6().unwrap();
    }
}
