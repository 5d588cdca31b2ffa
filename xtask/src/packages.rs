//! Programs that come from the system's packages, and the package managers that bring them.

use anyhow::{Result, bail};

use crate::process::{self, Step};
use crate::setup::Need;

/// A program and the package that has it, by package manager.
#[derive(Debug)]
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

const TOOLS: [Tool; 8] = [
    tool("ip", Need::Demo, ["iproute2", "iproute", "iproute2"]),
    tool("ethtool", Need::Demo, ["ethtool", "ethtool", "ethtool"]),
    tool("curl", Need::Test, ["curl", "curl", "curl"]),
    tool("iperf3", Need::Test, ["iperf3", "iperf3", "iperf3"]),
    tool("nginx", Need::Test, ["nginx", "nginx", "nginx"]),
    tool("ping", Need::Test, ["iputils-ping", "iputils", "iputils"]),
    tool("wrk", Need::Test, ["wrk", "wrk", "wrk"]),
    tool("vagrant", Need::Ci, ["vagrant", "vagrant", "vagrant"]),
];

/// A package manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manager {
    Apt,
    Dnf,
    Pacman,
}

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

impl Manager {
    /// The manager of this machine, if it is one that is known here.
    pub(crate) fn of_this_machine() -> Option<Self> {
        [("apt-get", Self::Apt), ("dnf", Self::Dnf), ("pacman", Self::Pacman)]
            .into_iter()
            .find_map(|(program, manager)| process::find(program).map(|_| manager))
    }

    fn install(self, packages: &[&str]) -> Result<()> {
        match self {
            Self::Apt => apt_install(packages),
            Self::Dnf => install_by("dnf", &["install", "-y", "--setopt=install_weak_deps=False"], packages),
            Self::Pacman => install_by("pacman", &["-S", "--needed", "--noconfirm"], packages),
        }
    }
}

/// What is needed and not there.
fn missing(need: Need) -> Vec<&'static Tool> {
    TOOLS.iter().filter(|tool| tool.need <= need && process::find(tool.program).is_none()).collect()
}

/// Brings the programs that are needed and not there.
pub(crate) fn ensure(need: Need) -> Result<()> {
    let absent = missing(need);
    if absent.is_empty() {
        return Ok(());
    }
    if let Some(manager) = Manager::of_this_machine() {
        let packages: Vec<_> = absent.iter().map(|tool| tool.package(manager)).collect();
        println!("setup: installing {} ({manager:?}, as root)", packages.join(", "));
        // One package that this distribution does not have must not keep the others away.
        if let Err(error) = manager.install(&packages) {
            eprintln!("setup: {error:#}");
            for package in packages.iter().filter(|_| packages.len() > 1) {
                if manager.install(&[package]).is_err() {
                    eprintln!("setup: {package} could not be installed");
                }
            }
        }
    }
    report(&missing(need))
}

fn report(absent: &[&Tool]) -> Result<()> {
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
    eprintln!(
        "setup: these programs are missing: {names}; what needs them is skipped. Install them by hand to have it."
    );
    Ok(())
}

/// Installs Debian packages as root, without starting their services.
///
/// A web server that only the tests use must not appear on port 80 of someone's machine, now or after a reboot:
/// `policy-rc.d` forbids starts while packages are installed, and a newly installed nginx is not enabled.
pub(crate) fn apt_install(packages: &[&str]) -> Result<()> {
    const SCRIPT: &str = r#"
set -eu
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' > $policy
    chmod 755 $policy
fi
had_nginx=$(command -v nginx || true)
install() { apt-get install --yes --no-install-recommends "$@"; }
install "$@" || { apt-get update; install "$@"; }
if [ -z "$had_nginx" ] && [ -d /run/systemd/system ] && command -v nginx; then
    systemctl disable nginx
fi
"#;
    let frontend = ("DEBIAN_FRONTEND".into(), "noninteractive".into());
    let mut command = process::as_root("sh", &[frontend])?;
    INSTALLATION.run_quietly(command.args(["-c", SCRIPT, "sh"]).args(packages))
}

fn install_by(program: &str, arguments: &[&str], packages: &[&str]) -> Result<()> {
    let mut command = process::as_root(program, &[])?;
    INSTALLATION.run_quietly(command.args(arguments).args(packages))
}

const INSTALLATION: Step<'static> =
    Step { name: "install packages", way_round: "install these packages by hand, then repeat" };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_needs_two_programs_only() {
        let demo: Vec<_> =
            TOOLS.iter().filter(|tool| tool.need <= Need::Demo).map(|tool| tool.program).collect();
        assert_eq!(demo, ["ip", "ethtool"]);
    }

    #[test]
    fn packages_have_each_distribution_s_name() {
        let ping = TOOLS.iter().find(|tool| tool.program == "ping").unwrap();
        assert_eq!(ping.package(Manager::Apt), "iputils-ping");
        assert_eq!(ping.package(Manager::Dnf), "iputils");
        let ip = TOOLS.iter().find(|tool| tool.program == "ip").unwrap();
        assert_eq!(ip.package(Manager::Dnf), "iproute");
        assert_eq!(ip.package(Manager::Pacman), "iproute2");
    }

    #[test]
    fn what_single_tests_need_is_reported_and_what_all_need_is_refused() {
        let named = |program| TOOLS.iter().find(|tool| tool.program == program).unwrap();
        assert!(report(&[named("wrk")]).is_ok());
        let refusal = report(&[named("wrk"), named("ip")]).unwrap_err().to_string();
        assert!(refusal.contains("wrk, ip"), "{refusal}");
    }
}
