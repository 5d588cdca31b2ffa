//! What the kernel must be told so that packets which the program rewrites and leaves to it are forwarded.
//!
//! That happens while a neighbour's link-layer address is unknown. Settings are those of the network namespace of the
//! process that opens the file; only what differs is written, and what was there before is remembered for `detach`.

mod ledger;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tracing::info;

pub(super) use ledger::CHANGED;
use ledger::{Change, Ledger, Pinned};

use crate::config::PortRange;

const ROOT: &str = "/proc/sys/net";

/// Reverse path filtering that asks only whether the source is reachable at all (RFC 3704 section 2.4).
const LOOSE: u32 = 2;
/// Reverse path filtering by the very interface (RFC 3704 section 2.2).
const STRICT: u32 = 1;

/// The ports that the kernel gives connections of its own.
pub(super) fn local_ports() -> Option<PortRange> {
    let text = fs::read_to_string(Path::new(ROOT).join("ipv4/ip_local_port_range")).ok()?;
    let mut ports = text.split_whitespace().map(str::parse);
    Some(PortRange { first: ports.next()?.ok()?, last: ports.next()?.ok()? })
}

/// This host's network settings.
pub(super) struct Sysctl {
    /// The tree of a namespace's settings.
    root: PathBuf,
    ledger: Box<dyn Ledger + Send>,
}

impl Sysctl {
    /// The settings of this namespace; changes are remembered under `pin_dir`.
    pub(super) fn open(pin_dir: &Path) -> anyhow::Result<Self> {
        Ok(Self { root: ROOT.into(), ledger: Box::new(Pinned::open(pin_dir)?) })
    }

    /// Lets the kernel forward IPv4 packets that come in by an interface.
    pub(super) fn forward_ipv4(&mut self, interface: &str) -> anyhow::Result<()> {
        for (key, wanted) in needs(&self.root, interface)? {
            self.set("ipv4", interface, key, wanted)?;
        }
        Ok(())
    }

    /// Lets the kernel forward IPv6 packets. There is one switch for all interfaces, and it turns this host into a
    /// router.
    pub(super) fn forward_ipv6(&mut self) -> anyhow::Result<()> {
        if !self.root.join(name("ipv6", "all", "forwarding")).exists() {
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
        read(&self.root.join(name(family, interface, key)))
    }

    fn set(&mut self, family: &str, interface: &str, key: &str, after: u32) -> anyhow::Result<()> {
        let before = self.get(family, interface, key)?;
        if before == after {
            return Ok(());
        }
        let name = name(family, interface, key);
        // Remembered first: an agent that dies in between leaves a setting that is not what was remembered, and that
        // `detach` leaves alone.
        self.ledger.enter(&name, Change { before, after })?;
        write(&self.root.join(&name), after)?;
        info!("{}: {after} instead of {before}", dotted(&name));
        Ok(())
    }

    /// Puts back what is still as the agent has set it; which settings those were.
    fn restore(&mut self) -> anyhow::Result<Vec<String>> {
        let mut restored = Vec::new();
        for (name, Change { before, after }) in self.ledger.changes()? {
            let file = self.root.join(&name);
            // An interface that is gone has taken its settings along.
            if file.exists() && read(&file)? == after {
                write(&file, before)?;
                restored.push(format!("{} = {before}", dotted(&name)));
            }
            self.ledger.strike(&name)?;
        }
        restored.sort_unstable();
        Ok(restored)
    }
}

/// What an interface has to be set to, so that IPv4 packets that come in by it are forwarded.
fn needs(root: &Path, interface: &str) -> anyhow::Result<Vec<(&'static str, u32)>> {
    // A translated reply comes from the virtual address, which is an address of this host.
    let mut needs = vec![("forwarding", 1), ("accept_local", 1)];
    // Its route back is local, by the interface that has the address: often not the one it came in by. The stricter of
    // the interface's own setting and that of all counts.
    let get = |interface: &str| read(&root.join(name("ipv4", interface, "rp_filter")));
    if get("all")?.max(get(interface)?) == STRICT {
        needs.push(("rp_filter", LOOSE));
    }
    Ok(needs)
}

/// The settings of an interface that are not what they have to be: as sysctl(8) names them, with what that is.
pub(super) fn unmet(interface: &str) -> anyhow::Result<Vec<(String, u32)>> {
    let root = Path::new(ROOT);
    let mut unmet = Vec::new();
    for (key, wanted) in needs(root, interface)? {
        let name = name("ipv4", interface, key);
        if read(&root.join(&name))? != wanted {
            unmet.push((dotted(&name), wanted));
        }
    }
    Ok(unmet)
}

/// Puts back what was changed under this pin directory and is still as the agent has set it.
pub(super) fn restore_all(pin_dir: &Path) -> anyhow::Result<Vec<String>> {
    match Pinned::existing(pin_dir)? {
        Some(ledger) => Sysctl { root: ROOT.into(), ledger: Box::new(ledger) }.restore(),
        None => Ok(Vec::new()),
    }
}

/// A setting's path below the root.
fn name(family: &str, interface: &str, key: &str) -> String {
    format!("{family}/conf/{interface}/{key}")
}

/// A setting as sysctl(8) names it: a dot within an interface's name is written as a slash.
fn dotted(name: &str) -> String {
    let swapped = name.chars().map(|c| match c {
        '/' => '.',
        '.' => '/',
        other => other,
    });
    "net.".chars().chain(swapped).collect()
}

fn read(file: &Path) -> anyhow::Result<u32> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    text.trim().parse().with_context(|| format!("{} is not a number", file.display()))
}

fn write(file: &Path, value: u32) -> anyhow::Result<()> {
    fs::write(file, value.to_string()).with_context(|| format!("cannot write {value} to {}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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

        fn sysctl(&self) -> Sysctl {
            Sysctl { root: self.0.clone(), ledger: Box::new(InMemory::default()) }
        }

        fn put(&self, path: &str, value: u32) {
            fs::write(self.0.join(path), format!("{value}\n")).unwrap();
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
            tree.sysctl().forward_ipv4("eth0").unwrap();
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
        tree.sysctl().forward_ipv6().unwrap();
        let values = ["all/forwarding", "eth0/accept_ra", "eth1/accept_ra"]
            .map(|key| tree.get(&format!("ipv6/conf/{key}")));
        assert_eq!(values, [1, 2, 0]);
    }

    #[test]
    fn a_kernel_without_ipv6_is_left_alone() {
        let ledger = Box::new(InMemory::default());
        Sysctl { root: "/nonexistent".into(), ledger }.forward_ipv6().unwrap();
    }

    #[test]
    fn what_is_still_as_it_was_set_is_put_back() {
        let tree = Tree::new(
            "restore",
            &[
                ("ipv4/conf/eth0.7/forwarding", 0),
                ("ipv4/conf/eth0.7/accept_local", 1),
                ("ipv4/conf/eth0.7/rp_filter", 0),
                ("ipv4/conf/all/rp_filter", 1),
                ("ipv6/conf/all/forwarding", 0),
                ("ipv6/conf/eth0.7/accept_ra", 1),
                ("ipv6/conf/gone/accept_ra", 1),
            ],
        );
        let mut sysctl = tree.sysctl();
        sysctl.forward_ipv4("eth0.7").unwrap();
        sysctl.forward_ipv6().unwrap();
        // Another agent on the same ledger changes nothing, and remembers nothing else.
        sysctl.forward_ipv4("eth0.7").unwrap();
        tree.put("ipv6/conf/eth0.7/accept_ra", 0);
        fs::remove_dir_all(tree.0.join("ipv6/conf/gone")).unwrap();

        let restored = sysctl.restore().unwrap();
        assert_eq!(
            restored,
            [
                "net.ipv4.conf.eth0/7.forwarding = 0",
                "net.ipv4.conf.eth0/7.rp_filter = 0",
                "net.ipv6.conf.all.forwarding = 0"
            ]
        );
        let left = ["ipv4/conf/eth0.7/accept_local", "ipv6/conf/eth0.7/accept_ra"].map(|path| tree.get(path));
        assert_eq!(left, [1, 0], "what was so before, and what somebody else has set since");
        assert_eq!(sysctl.restore().unwrap(), Vec::<String>::new(), "once is enough");
    }

    #[test]
    fn what_somebody_else_set_meanwhile_is_what_was_before() {
        let tree = Tree::new("again", &[("ipv6/conf/all/forwarding", 0), ("ipv6/conf/eth0/accept_ra", 1)]);
        let mut sysctl = tree.sysctl();
        sysctl.forward_ipv6().unwrap();
        tree.put("ipv6/conf/all/forwarding", 2);
        sysctl.forward_ipv6().unwrap();
        sysctl.restore().unwrap();
        assert_eq!(tree.get("ipv6/conf/all/forwarding"), 2);
    }

    /// A ledger without a kernel.
    #[derive(Default)]
    struct InMemory(BTreeMap<String, Change>);

    impl Ledger for InMemory {
        fn enter(&mut self, setting: &str, change: Change) -> anyhow::Result<()> {
            self.0.insert(setting.to_owned(), change);
            Ok(())
        }

        fn changes(&self) -> anyhow::Result<Vec<(String, Change)>> {
            Ok(self.0.iter().map(|(setting, change)| (setting.clone(), *change)).collect())
        }

        fn strike(&mut self, setting: &str) -> anyhow::Result<()> {
            self.0.remove(setting).map(drop).context("struck out already")
        }
    }
}
