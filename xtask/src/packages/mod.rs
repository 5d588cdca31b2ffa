//! Programs that come from the system's packages, and the package managers that bring them.

mod machine;
mod manager;

use anyhow::{Result, bail};

use crate::setup::Need;
use machine::Machine;
pub(crate) use manager::Manager;

/// A program and the package that has it, by package manager.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    /// The first of the verbs that uses it.
    need: Need,
    apt: &'static str,
    dnf: &'static str,
    pacman: &'static str,
}

const fn tool(program: &'static str, need: Need, [apt, dnf, pacman]: [&'static str; 3]) -> Tool {
    Tool { program, need, apt, dnf, pacman }
}

const TOOLS: [Tool; 12] = [
    tool("ip", Need::Demo, ["iproute2", "iproute", "iproute2"]),
    tool("ethtool", Need::Demo, ["ethtool", "ethtool", "ethtool"]),
    tool("curl", Need::Test, ["curl", "curl", "curl"]),
    tool("iperf3", Need::Test, ["iperf3", "iperf3", "iperf3"]),
    tool("nginx", Need::Test, ["nginx", "nginx", "nginx"]),
    tool("ping", Need::Test, ["iputils-ping", "iputils", "iputils"]),
    tool("wrk", Need::Test, ["wrk", "wrk", "wrk"]),
    tool("vagrant", Need::Ci, ["vagrant", "vagrant", "vagrant"]),
    tool("promtool", Need::Ci, ["prometheus", "golang-github-prometheus", "prometheus"]),
    tool("tmux", Need::Ci, ["tmux", "tmux", "tmux"]),
    tool("keepalived", Need::Ci, ["keepalived", "keepalived", "keepalived"]),
    tool("bird", Need::Ci, ["bird2", "bird", "bird"]),
];

/// What the balancer is measured beside; nginx's TCP proxy is a package of its own where it is no part of nginx.
const PEERS: [Tool; 5] = [
    tool("wrk", Need::Test, ["wrk", "wrk", "wrk"]),
    tool("nginx", Need::Test, ["nginx", "nginx", "nginx"]),
    tool("nft", Need::Test, ["nftables", "nftables", "nftables"]),
    tool("haproxy", Need::Test, ["haproxy", "haproxy", "haproxy"]),
    tool(STREAM_MODULE, Need::Test, ["libnginx-mod-stream", "nginx-mod-stream", "nginx"]),
];
const STREAM_MODULE: &str = "nginx's stream module";

impl Tool {
    fn package(&self, manager: Manager) -> &'static str {
        match manager {
            Manager::Apt => self.apt,
            Manager::Dnf => self.dnf,
            Manager::Pacman => self.pacman,
        }
    }

    /// Without it the verb cannot run at all; other tools are missed by single tests only.
    fn is_indispensable(&self) -> bool {
        self.need <= Need::Demo
    }
}

/// Brings the programs that are needed and not there.
pub(crate) fn ensure(need: Need) -> Result<()> {
    bring(&needed(need), &Machine::this(), &mut |line| eprintln!("setup: {line}"))
}

/// Brings the programs that the balancer is measured beside.
pub(crate) fn ensure_peers() -> Result<()> {
    bring(&PEERS, &Machine::this(), &mut |line| eprintln!("setup: {line}"))
}

fn needed(need: Need) -> Vec<Tool> {
    TOOLS.into_iter().filter(|tool| tool.need <= need).collect()
}

/// Installs Debian packages as root, without starting their services.
pub(crate) fn apt_install(packages: &[&str]) -> Result<()> {
    Manager::Apt.install(&Machine::this(), packages)
}

fn bring(tools: &[Tool], machine: &Machine, say: &mut dyn FnMut(String)) -> Result<()> {
    let absent = missing(tools, machine);
    if absent.is_empty() {
        return Ok(());
    }
    if let Some(manager) = Manager::of(machine) {
        let packages: Vec<_> = absent.iter().map(|tool| tool.package(manager)).collect();
        say(format!("installing {} ({manager:?}, as root)", packages.join(", ")));
        // One package that this distribution does not have must not keep the others away.
        if let Err(error) = manager.install(machine, &packages) {
            say(format!("{error:#}"));
            for package in packages.iter().filter(|_| packages.len() > 1) {
                if manager.install(machine, &[package]).is_err() {
                    say(format!("{package} could not be installed"));
                }
            }
        }
    }
    report(&missing(tools, machine), say)
}

/// What is needed and not there.
fn missing<'a>(tools: &'a [Tool], machine: &Machine) -> Vec<&'a Tool> {
    let is_there = |tool: &Tool| match tool.program {
        // No program of its own: nginx says whether it has one, or where its modules are.
        STREAM_MODULE => machine.has_stream_module(),
        program => machine.find(program).is_some(),
    };
    tools.iter().filter(|tool| !is_there(tool)).collect()
}

fn report(absent: &[&Tool], say: &mut dyn FnMut(String)) -> Result<()> {
    if absent.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = absent.iter().map(|tool| tool.program).collect();
    let names = names.join(", ");
    if absent.iter().any(|tool| tool.is_indispensable()) {
        bail!(
            "these programs are missing: {names}; install them with this system's package manager, then repeat"
        );
    }
    say(format!(
        "these programs are missing: {names}; what needs them is skipped. Install them by hand to have it."
    ));
    Ok(())
}

#[cfg(test)]
mod tests;
