//! The command line where there is no agent, no root, or no reader.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use lb_tests::agent::{Agent, Reply, Settings};
use lb_tests::setup::Setup;
use lb_tests::topology::Shape;
use lb_tests::{needs_root, process};

use crate::expect::{REFUSED, one_clear_line};

const TIMEOUT: Duration = Duration::from_secs(15);

/// The user and group `nobody`.
const NOBODY: u32 = 65_534;

/// Every verb that asks the agent something, with correct arguments.
const VERBS: [&[&str]; 18] = [
    &["status"],
    &["service", "list"],
    &["service", "show", "web"],
    &["service", "add", "web", "--vip", "10.0.0.100:80"],
    &["service", "set", "web", "--strategy", "maglev"],
    &["service", "remove", "web"],
    &["backend", "list"],
    &["backend", "add", "web", "10.0.1.11:8080"],
    &["backend", "set", "web", "10.0.1.11:8080", "--weight", "2"],
    &["backend", "drain", "web", "10.0.1.11:8080"],
    &["backend", "enable", "web", "10.0.1.11:8080"],
    &["backend", "remove", "web", "10.0.1.11:8080"],
    &["export"],
    &["events"],
    &["history"],
    &["rollback", "1"],
    &["flows"],
    &["explain", "--protocol", "tcp", "10.0.0.10:1000", "10.0.0.100:80"],
];

fn bare() -> Setup {
    Setup::bare(Shape::TwoArmed, 1, Settings::default()).unwrap()
}

#[test]
fn every_verb_says_that_the_agent_is_not_running() {
    needs_root!();
    let mut setup = bare();
    setup.agent.terminate().unwrap();
    // First with the socket gone or refusing, whichever the agent leaves, then with one that never was.
    for words in VERBS {
        one_clear_line(&words.join(" "), &setup.agent.cli(words).unwrap(), REFUSED, "lb-agent");
    }
    for words in VERBS {
        let mut command = setup.agent.command();
        command.args(["--socket", "/nonexistent/agent.sock"]).args(words);
        let reply = process::run(command, TIMEOUT).unwrap().into();
        one_clear_line(&words.join(" "), &reply, REFUSED, "/nonexistent/agent.sock");
    }
}

#[test]
fn without_root_the_daemon_and_the_socket_are_refused() {
    needs_root!();
    let setup = bare();
    // A copy where everyone may read it: the build directory may lie in someone's home.
    let binary = setup.agent.directory().join("lb-agent");
    std::fs::copy(setup.agent.command().get_program(), &binary).unwrap();
    let as_nobody = |words: &[&str]| -> Reply {
        let mut command = Command::new(&binary);
        command.uid(NOBODY).gid(NOBODY).args(words);
        process::run(command, TIMEOUT).unwrap().into()
    };
    let (config, socket) = (setup.agent.config(), setup.agent.socket());
    let (config, socket) = (config.to_str().unwrap(), socket.to_str().unwrap());
    let state = setup.agent.must(["export"]).unwrap();
    one_clear_line("run", &as_nobody(&["run", "--config", config]), REFUSED, "root");
    one_clear_line("detach", &as_nobody(&["detach", "--config", config]), REFUSED, "root");
    for words in VERBS {
        let reply = as_nobody(&[&["--socket", socket], words].concat());
        one_clear_line(&words.join(" "), &reply, REFUSED, "root");
    }
    assert_eq!(setup.agent.must(["export"]).unwrap(), state);
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    needs_root!();
    let setup = bare();
    for number in 0..20 {
        let (name, vip) = (format!("service-{number}"), format!("10.0.0.100:{}", 1000 + number));
        setup.agent.must(["service", "add", &name, "--vip", &vip, "--health", "none"]).unwrap();
    }
    for words in
        [&["service", "list"][..], &["-o", "json", "service", "list"], &["export"], &["status"], &["--help"]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = setup.agent.command();
        command.arg("--socket").arg(setup.agent.socket()).args(words);
        let output = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let reply = Reply::from(output);
        assert_eq!((reply.status, reply.stderr.as_str()), (0, ""), "{words:?}");
    }
}

#[test]
fn a_second_agent_on_the_same_files_is_refused_and_harms_nothing() {
    needs_root!();
    let setup = bare();
    let mut second = setup.agent.command();
    second.arg("run").arg("--config").arg(setup.agent.config());
    let reply = process::run(second, TIMEOUT).unwrap().into();
    // Its log may come before; the last line is what counts.
    let reply: Reply = last_line_only(reply);
    one_clear_line("run", &reply, REFUSED, "");
    setup.agent.must(["status"]).unwrap();
}

#[test]
fn a_configuration_with_an_error_names_the_key_and_its_line() {
    needs_root!();
    let mut setup = bare();
    // Its place must be free, or that would be the complaint.
    setup.agent.terminate().unwrap();
    let good = std::fs::read_to_string(setup.agent.config()).unwrap();
    let file = setup.agent.directory().join("wrong.toml");
    let cases = [
        (format!("colour = \"red\"\n{good}"), "colour"),
        (format!("{good}services = \"many\"\n"), "services"),
        (good.replace("interfaces = [\"wan\", \"lan\"]", "interfaces = [\"nosuch\"]"), "nosuch"),
        (format!("xdp_mode = \"warp\"\n{good}"), "warp"),
    ];
    for (text, what) in cases {
        std::fs::write(&file, &text).unwrap();
        let mut command = setup.agent.command();
        command.arg("run").arg("--config").arg(&file);
        let reply = last_line_only(process::run(command, TIMEOUT).unwrap().into());
        one_clear_line(what, &reply, REFUSED, what);
    }
    let mut command = setup.agent.command();
    command.args(["run", "--config", "/nonexistent/config.toml"]);
    let reply = last_line_only(process::run(command, TIMEOUT).unwrap().into());
    one_clear_line("no file", &reply, REFUSED, "/nonexistent/config.toml");
}

/// The daemon logs to standard error before it gives up; its last line is the answer.
fn last_line_only(mut reply: Reply) -> Reply {
    reply.stderr = reply.stderr.lines().last().unwrap_or_default().to_owned();
    reply.stdout = String::new();
    reply
}

#[test]
fn detach_needs_no_agent_and_no_state() {
    needs_root!();
    let setup = bare();
    let elsewhere = std::path::Path::new("/sys/fs/bpf").join(lb_tests::netns::unique_name("nothing"));
    let mut command = Agent::command(&setup.agent);
    command.arg("detach").arg("--pin-dir").arg(&elsewhere);
    process::must(command, TIMEOUT).unwrap();
    assert!(!elsewhere.exists());
    setup.agent.must(["status"]).unwrap();
}
