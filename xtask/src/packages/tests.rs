//! Machines of distributions that are not at hand, with package managers that write down how they were called.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use super::*;

const DEBIAN: &str = "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nID=debian\n";
const UBUNTU: &str = "NAME=\"Ubuntu\"\nID=ubuntu\nID_LIKE=debian\n";
const MINT: &str = "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n";
const FEDORA: &str = "NAME=\"Fedora Linux\"\nID=fedora\nVARIANT_ID=cloud\n";
const ALMA: &str = "ID=\"almalinux\"\nID_LIKE=\"rhel centos fedora\"\n";
const ARCH: &str = "NAME=\"Arch Linux\"\nID=arch\n";
const MANJARO: &str = "ID=manjaro\nID_LIKE=arch\n";
const ALPINE: &str = "ID=alpine\n";

/// Writes down its arguments, fails where it is told to, and "installs" the programs of the packages that it is given.
const FAKE_MANAGER: &str = r#"#!/bin/sh
here=${0%/*}
echo "${0##*/} $*" >> "$here/calls"
if [ -e "$here/fail" ]; then
    rm "$here/fail"
    echo "no mirror answers" >&2
    exit 1
fi
for package; do
    case $package in
        -* | install | sh | *policy-rc.d*) continue ;;
        iproute | iproute2) program=ip ;;
        iputils) program=ping ;;
        wrk) [ ! -e "$here/no-wrk" ] || exit 1; program=wrk ;;
        *) program=$package ;;
    esac
    cp "$0" "$here/$program"
done
"#;

/// A machine whose programs are in a directory of its own.
struct Fake {
    directory: PathBuf,
    machine: Machine,
}

impl Fake {
    fn new(name: &str, os_release: &str, managers: &[&str]) -> Self {
        let directory = std::env::temp_dir().join(format!("xtask-packages-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        for manager in managers {
            let file = directory.join(manager);
            fs::write(&file, FAKE_MANAGER).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let machine = Machine {
            os_release: os_release.to_owned(),
            directories: vec![directory.clone()],
            // By the shell, which reads it: a file that this process wrote cannot be executed while a child that
            // another test has just forked still holds it open for writing (ETXTBSY).
            as_root: |program, variables| {
                let mut command = Command::new("/bin/sh");
                command.arg(program).envs(variables.iter().map(|(name, value)| (name, value)));
                Ok(command)
            },
        };
        Self { directory, machine }
    }

    fn mark(&self, what: &str) {
        fs::write(self.directory.join(what), "").unwrap();
    }

    /// What `bring` said, and what it came to.
    fn bring(&self, need: Need) -> (Vec<String>, Result<()>) {
        let mut said = Vec::new();
        let result = bring(&needed(need), &self.machine, &mut |line| said.push(line));
        (said, result)
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.directory.join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn the_distribution_says_which_manager_it_has() {
    let cases = [
        (DEBIAN, Some(Manager::Apt)),
        (UBUNTU, Some(Manager::Apt)),
        (MINT, Some(Manager::Apt)),
        (FEDORA, Some(Manager::Dnf)),
        (ALMA, Some(Manager::Dnf)),
        (ARCH, Some(Manager::Pacman)),
        (MANJARO, Some(Manager::Pacman)),
        (ALPINE, None),
        ("", None),
    ];
    for (number, (os_release, expected)) in cases.into_iter().enumerate() {
        // All of them installed: that says nothing.
        let fake = Fake::new(&format!("choice-{number}"), os_release, &["apt-get", "dnf", "pacman"]);
        assert_eq!(Manager::of(&fake.machine), expected, "{os_release}");
    }
    let without = Fake::new("choice-without", FEDORA, &["apt-get"]);
    assert_eq!(Manager::of(&without.machine), None, "a distribution whose manager is not there");
}

#[test]
fn fedora_s_packages_are_asked_for_by_their_names() {
    let fake = Fake::new("fedora", FEDORA, &["dnf"]);
    let (said, result) = fake.bring(Need::Test);
    result.unwrap();
    assert_eq!(
        fake.calls(),
        ["dnf install -y --setopt=install_weak_deps=False iproute ethtool curl iperf3 nginx iputils wrk"]
    );
    assert_eq!(said, ["installing iproute, ethtool, curl, iperf3, nginx, iputils, wrk (Dnf, as root)"]);
    // Nothing is missing any more: nothing is called, nothing is said.
    let (said, result) = fake.bring(Need::Test);
    result.unwrap();
    assert_eq!((said.len(), fake.calls().len()), (0, 1));
}

#[test]
fn arch_s_packages_are_asked_for_by_their_names() {
    let fake = Fake::new("arch", ARCH, &["pacman"]);
    fake.bring(Need::Demo).1.unwrap();
    fake.bring(Need::Test).1.unwrap();
    assert_eq!(
        fake.calls(),
        [
            "pacman -S --needed --noconfirm iproute2 ethtool",
            "pacman -S --needed --noconfirm curl iperf3 nginx iputils wrk"
        ]
    );
}

#[test]
fn a_failure_is_named_and_each_package_is_tried_alone() {
    for (os_release, manager, ip, hint) in [
        (FEDORA, "dnf", "iproute", "way round: install these packages by hand, then repeat"),
        (
            ARCH,
            "pacman",
            "iproute2",
            "way round: if the package database is missing or old, `pacman -Syu` and repeat",
        ),
    ] {
        let fake = Fake::new(&format!("failing-{manager}"), os_release, &[manager]);
        fake.mark("fail");
        let (said, result) = fake.bring(Need::Demo);
        result.unwrap();
        let failure = &said[1];
        assert!(failure.starts_with("step failed: install packages\n"), "{failure}");
        let command = format!("  command:   /bin/sh {}", fake.directory.join(manager).display());
        assert!(
            failure.contains(&command) && failure.contains(&format!(" {ip} ethtool (exit status: 1)")),
            "{failure}"
        );
        assert!(failure.contains(hint), "{failure}");
        let calls = fake.calls();
        let last_words: Vec<_> = calls.iter().filter_map(|call| call.split_whitespace().last()).collect();
        assert_eq!(last_words, ["ethtool", ip, "ethtool"], "all at once, then one by one");
    }
}

#[test]
fn one_package_that_is_not_to_be_had_keeps_no_other_away() {
    let fake = Fake::new("no-wrk", FEDORA, &["dnf"]);
    fake.mark("no-wrk");
    let (said, result) = fake.bring(Need::Test);
    result.unwrap();
    assert!(said.contains(&"wrk could not be installed".to_owned()), "{said:?}");
    let last = said.last().unwrap();
    assert!(last.starts_with("these programs are missing: wrk; what needs them is skipped"), "{last}");
}

#[test]
fn elsewhere_what_is_missing_is_listed_and_nothing_is_called() {
    let fake = Fake::new("alpine", ALPINE, &["apt-get", "dnf", "pacman"]);
    let refusal = fake.bring(Need::Test).1.unwrap_err().to_string();
    assert!(
        refusal.starts_with(
            "these programs are missing: ip, ethtool, curl, iperf3, nginx, ping, wrk; install them"
        ),
        "{refusal}"
    );
    for program in ["ip", "ethtool"] {
        fs::copy(fake.directory.join("dnf"), fake.directory.join(program)).unwrap();
    }
    // The indispensable ones are there: the rest is said, and skipped.
    let (said, result) = fake.bring(Need::Test);
    result.unwrap();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("these programs are missing: curl, iperf3, nginx, ping, wrk;"), "{said:?}");
    assert_eq!(fake.calls(), Vec::<String>::new());
}

#[test]
fn the_demo_needs_two_programs_only() {
    let demo: Vec<_> = TOOLS.iter().filter(|tool| tool.need <= Need::Demo).map(|tool| tool.program).collect();
    assert_eq!(demo, ["ip", "ethtool"]);
}

#[test]
fn debian_s_packages_are_installed_by_a_script_that_starts_no_service() {
    let fake = Fake::new("debian", DEBIAN, &["apt-get", "sh"]);
    fake.bring(Need::Demo).1.unwrap();
    let calls = fake.calls().join("\n");
    assert!(calls.starts_with("sh -c ") && calls.contains("exit 101"), "{calls}");
    assert!(calls.ends_with(" sh iproute2 ethtool"), "{calls}");
}

#[test]
fn debian_s_packages_have_their_own_names() {
    let ping = TOOLS.iter().find(|tool| tool.program == "ping").unwrap();
    assert_eq!(ping.package(Manager::Apt), "iputils-ping");
}
