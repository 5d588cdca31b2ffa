//! Command lines and files as nobody means them: a clear line each, and no panic.

use clap::{CommandFactory as _, FromArgMatches as _};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::{Strategy as Generator, ValueTree as _};
use proptest::test_runner::TestRunner;

use super::*;
use crate::fuzz;
use crate::model::file;

const WORDS: [&str; 60] = [
    "run",
    "detach",
    "status",
    "service",
    "backend",
    "apply",
    "export",
    "explain",
    "flows",
    "events",
    "history",
    "rollback",
    "list",
    "show",
    "add",
    "set",
    "remove",
    "drain",
    "enable",
    "web",
    "10.0.0.1:80",
    "[fd00::1]:80",
    "10.0.1.11:0",
    "17",
    "-1",
    "--vip",
    "--protocol",
    "tcp",
    "udp",
    "sctp",
    "--strategy",
    "maglev",
    "--mode",
    "dnat",
    "--health",
    "tcp,interval=1s",
    "none",
    "tcp,port=0",
    "--on-no-backend",
    "drop",
    "--weight",
    "65536",
    "--admin",
    "maintenance",
    "--drain-timeout",
    "5m",
    "--force",
    "--if-revision",
    "-f",
    "-",
    "--prune",
    "--dry-run",
    "--follow",
    "--state-dir",
    "-o",
    "json",
    "-o=yaml",
    "--help",
    "--",
    "",
];

fn any_line() -> impl Generator<Value = Vec<String>> {
    let word = prop_oneof![
        12 => select(&WORDS[..]).prop_map(str::to_owned),
        1 => ".{0,12}",
        1 => "-{1,2}[a-z=]{0,8}",
    ];
    vec(word, 0..8)
}

/// One line of a bounded length that says something.
fn assert_line(line: &str, of: &dyn std::fmt::Debug) {
    let is_sound = !line.trim().is_empty() && !line.contains('\n') && line.chars().count() <= 1000;
    assert!(is_sound, "{line:?} of {of:?}");
}

#[test]
fn no_command_line_makes_it_panic_and_each_refusal_is_a_line() {
    let (mut runner, generator, mut command) = (TestRunner::deterministic(), any_line(), Cli::command());
    let mut refused = 0;
    for _ in 0..fuzz::cases() {
        let words = generator.new_tree(&mut runner).unwrap().current();
        let line = std::iter::once("lb-agent").chain(words.iter().map(String::as_str));
        let read = command.try_get_matches_from_mut(line).and_then(|found| Cli::from_arg_matches(&found));
        if let Err(error) = read {
            refused += 1;
            // What is printed for these is what was asked for.
            if !matches!(
                error.kind(),
                clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion
            ) {
                assert_line(&usage::line(&error), &words);
            }
        }
    }
    assert!(refused > fuzz::cases() / 2, "{refused}");
}

const STATES: [&str; 2] = [
    "[[service]]\nname = \"web\"\nvip = \"10.0.0.100:80\"\nstrategy = \"maglev\"\non-no-backend = \"drop\"\n\n[service.health]\ntype = \"tcp\"\ninterval = \"2s\"\nrise = 2\n\n[[service.backend]]\naddress = \"10.0.1.11:8080\"\nweight = 1\nadmin = \"draining\"\n",
    "service = [{ name = \"a\", vip = \"[fd00::1]:53\", protocol = \"udp\", health = [\"tcp,port=8053\"], backend = [] }]\n",
];

const CONFIGURATIONS: [&str; 2] = [
    "interfaces = [\"eth0\"]\nxdp_mode = \"auto\"\nrevisions = 20\nmanage_vips = true\n\n[limits]\nflows = 1000000\nservices = 512\ntable_size = 65537\n",
    "state_dir = \"/x\"\n[http]\nlisten = \"127.0.0.1:9600\"\ntoken_file = \"/t\"\ncert_file = \"/c\"\nkey_file = \"/k\"\n",
];

#[test]
fn no_file_makes_it_panic_and_each_refusal_is_a_line() {
    let mut runner = TestRunner::deterministic();
    let (states, configurations) = (fuzz::mutated(&STATES), fuzz::mutated(&CONFIGURATIONS));
    let mut refused = 0;
    for _ in 0..fuzz::cases() {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let state = text(states.new_tree(&mut runner).unwrap().current());
        let configuration = text(configurations.new_tree(&mut runner).unwrap().current());
        if let Err(error) = file::parse(&state, "state.toml") {
            refused += 1;
            assert_line(&error.to_string(), &state);
            assert!(error.to_string().starts_with("state.toml"), "{error}");
        }
        if let Err(error) = Config::parse(&configuration, "config.toml") {
            refused += 1;
            assert_line(&error.to_string(), &configuration);
            assert!(error.to_string().starts_with("config.toml"), "{error}");
        }
    }
    assert!(refused > fuzz::cases() / 2 && refused < 2 * fuzz::cases(), "{refused}");
}
