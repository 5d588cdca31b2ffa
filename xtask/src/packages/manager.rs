//! The package managers that are known here.

use anyhow::{Context, Result};

use super::machine::Machine;
use crate::process::Step;

/// A package manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manager {
    Apt,
    Dnf,
    Pacman,
}

/// Installs packages by apt, without starting their services.
///
/// A web server that only the tests use must not appear on port 80 of someone's machine, now or after a reboot:
/// `policy-rc.d` forbids starts while packages are installed, and a newly installed nginx is not enabled. Fedora and
/// Arch start nothing when they install.
const APT_SCRIPT: &str = r#"
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

impl Manager {
    const ALL: [Self; 3] = [Self::Apt, Self::Dnf, Self::Pacman];

    /// The manager of this machine, if it is one that is known here.
    pub(crate) fn of_this_machine() -> Option<Self> {
        Self::of(&Machine::this())
    }

    /// By what the distribution calls itself, not by what is installed: Fedora has an `apt` too, and Debian a `dnf`,
    /// neither of which knows the machine's packages.
    pub(super) fn of(machine: &Machine) -> Option<Self> {
        let manager = machine
            .distributions()
            .find_map(|name| Self::ALL.into_iter().find(|manager| manager.distributions().contains(&name)))?;
        machine.find(manager.program()).map(|_| manager)
    }

    /// Distributions whose packages have the names that are known here; others say that they are like one of them.
    const fn distributions(self) -> &'static [&'static str] {
        match self {
            Self::Apt => &["debian", "ubuntu"],
            Self::Dnf => &["fedora"],
            Self::Pacman => &["arch"],
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::Apt => "apt-get",
            Self::Dnf => "dnf",
            Self::Pacman => "pacman",
        }
    }

    /// Installs packages as root.
    pub(super) fn install(self, machine: &Machine, packages: &[&str]) -> Result<()> {
        let program = if self == Self::Apt { "sh" } else { self.program() };
        let path = machine.find(program).with_context(|| format!("there is no {program}"))?;
        let variables: &[_] = match self {
            Self::Apt => &[("DEBIAN_FRONTEND".into(), "noninteractive".into())],
            Self::Dnf | Self::Pacman => &[],
        };
        let arguments: &[&str] = match self {
            Self::Apt => &["-c", APT_SCRIPT, "sh"],
            Self::Dnf => &["install", "-y", "--setopt=install_weak_deps=False"],
            Self::Pacman => &["-S", "--needed", "--noconfirm"],
        };
        let mut command = (machine.as_root)(path.as_os_str(), variables)?;
        let step = Step { name: "install packages", way_round: self.way_round() };
        step.run_quietly(command.args(arguments).args(packages))
    }

    const fn way_round(self) -> &'static str {
        match self {
            Self::Apt | Self::Dnf => "install these packages by hand, then repeat",
            // Not done here: it upgrades the whole system, and the database alone must not be newer than the system.
            Self::Pacman => {
                "if the package database is missing or old, `pacman -Syu` and repeat; else install these packages by hand"
            }
        }
    }
}
