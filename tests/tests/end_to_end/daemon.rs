//! The daemon and who supervises it: readiness, watchdog, reload; and limits that the running data plane does not have.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use lb_tests::agent::Settings;
use lb_tests::needs_root;
use lb_tests::process::{self, Process};
use lb_tests::setup::Setup;
use lb_tests::topology::Shape;
use lb_tests::wait;
use rustix::process::Signal;

/// Long enough for a start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for a message that has such a line.
fn hear(socket: &UnixDatagram, line: &str) {
    let mut buffer = [0; 4096];
    let mut heard = Vec::new();
    while let Ok(length) = socket.recv(&mut buffer) {
        let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if message.lines().any(|said| said == line) {
            return;
        }
        heard.push(message);
    }
    panic!("never {line}: {heard:?}");
}

#[test]
fn the_service_manager_is_told_how_the_agent_is_and_sighup_reloads() {
    needs_root!();
    let mut setup = Setup::bare(Shape::TwoArmed, 1, Settings::default()).unwrap();
    setup.agent.terminate().unwrap();
    let (notify, log) =
        (setup.agent.directory().join("notify"), setup.agent.directory().join("supervised.log"));
    let socket = UnixDatagram::bind(&notify).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = setup.agent.command();
    command.env("NOTIFY_SOCKET", &notify).env("WATCHDOG_USEC", "1000000");
    command.arg("run").arg("--config").arg(setup.agent.config());
    let mut process = Process::spawn(command, &log).unwrap();
    hear(&socket, "READY=1");
    hear(&socket, "WATCHDOG=1");
    hear(&socket, "WATCHDOG=1");

    let sound = std::fs::read_to_string(setup.agent.config()).unwrap();
    for (text, line) in
        [("xdp_mode = \"sideways\"\n", "configuration-refused"), ("", "configuration-reloaded")]
    {
        std::fs::write(setup.agent.config(), format!("{text}{sound}")).unwrap();
        process.signal(Signal::HUP).unwrap();
        hear(&socket, "RELOADING=1");
        hear(&socket, "READY=1");
        let events = setup.agent.must(["events"]).unwrap();
        let last = events.lines().last().unwrap();
        assert!(last.contains(line), "{events}");
        assert_eq!(
            last.contains("line 1, `xdp_mode = \"sideways\"`"),
            line == "configuration-refused",
            "{last}"
        );
    }
    process.signal(Signal::TERM).unwrap();
    hear(&socket, "STOPPING=1");
    assert!(process.wait(PATIENCE).unwrap().success());
}

#[test]
fn a_changed_configuration_file_is_read_by_itself_and_an_invalid_one_keeps_the_old() {
    needs_root!();
    let setup = Setup::serving(Shape::TwoArmed, 1).unwrap();
    let sound = std::fs::read_to_string(setup.agent.config()).unwrap();
    let last_event = || {
        let events = setup.agent.must(["events"]).unwrap();
        events.lines().last().unwrap_or_default().to_owned()
    };
    let files = [
        ("xdp_mode = \"sideways\"\n", "configuration-refused", "line 1, `xdp_mode = \"sideways\"`"),
        ("xdp_mode = \"generic\"\n", "configuration-reloaded", "at the next start: xdp_mode"),
        ("revisions = 0\n", "configuration-refused", "revisions = 0"),
        ("", "configuration-reloaded", "at the next start: nothing"),
    ];
    for (line, event, what) in files {
        // As editors do it, and what puts configurations in place.
        let new = setup.agent.directory().join("new.toml");
        std::fs::write(&new, format!("{line}{sound}")).unwrap();
        std::fs::rename(&new, setup.agent.config()).unwrap();
        wait::until_true(PATIENCE, &format!("{event} with {what}"), || {
            let last = last_event();
            last.contains(event) && last.contains(what)
        })
        .unwrap();
    }
    let told = setup.agent.must(["events"]).unwrap();
    let count = told.lines().filter(|line| line.contains("  configuration-")).count();
    assert_eq!(count, files.len(), "each is read once: {told}");
    assert_eq!(setup.service("web4").unwrap()["healthy_backends"], 1);
}

#[test]
fn other_limits_than_those_of_the_running_data_plane_are_refused_with_the_way_there() {
    needs_root!();
    let mut setup = Setup::bare(Shape::TwoArmed, 1, Settings::default()).unwrap();
    setup.agent.terminate().unwrap();
    let sound = std::fs::read_to_string(setup.agent.config()).unwrap();
    for limit in ["services = 64", "backends = 64", "table_size = 251"] {
        std::fs::write(setup.agent.config(), format!("{sound}{limit}\n")).unwrap();
        let mut command = setup.agent.command();
        command.arg("run").arg("--config").arg(setup.agent.config());
        let output = process::run(command, PATIENCE).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{limit}: {said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(last.contains("[limits] "), "{limit}: {said}");
        assert!(last.contains("run `lb-agent detach`, which interrupts traffic"), "{limit}: {said}");
    }
    std::fs::write(setup.agent.config(), sound).unwrap();
    setup.agent.run().unwrap();
}
