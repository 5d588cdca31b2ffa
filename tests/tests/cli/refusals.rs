//! Wrong input to every verb: one clear line, the right exit status, and nothing changed.

use lb_tests::agent::Settings;
use lb_tests::needs_root;
use lb_tests::setup::Setup;
use lb_tests::topology::Shape;

use crate::expect::{EITHER, REFUSED, USAGE, one_clear_line};

/// A state to protect: `web` over IPv4 with two backends, `web6` over IPv6, `dns` over UDP.
const STATE: [&[&str]; 6] = [
    &["service", "add", "web", "--vip", "10.0.0.100:80", "--health", "none"],
    &["service", "add", "web6", "--vip", "[fd00:a::100]:80", "--health", "none"],
    &["service", "add", "dns", "--vip", "10.0.0.100:53", "--protocol", "udp"],
    &["backend", "add", "web", "10.0.1.11:8080"],
    &["backend", "add", "web", "10.0.1.12:8080", "--weight", "3"],
    &["backend", "add", "web6", "[fd00:b::11]:8080"],
];

/// A command line, the exit statuses that are right for it, and what its message has to name.
type Case = (&'static [&'static str], &'static [i32], &'static str);

const UNKNOWN_OBJECTS: &[Case] = &[
    (&["service", "show", "nope"], REFUSED, "nope"),
    (&["service", "set", "nope", "--strategy", "maglev"], REFUSED, "nope"),
    (&["service", "remove", "nope"], REFUSED, "nope"),
    (&["backend", "list", "nope"], REFUSED, "nope"),
    (&["backend", "add", "nope", "10.0.1.13:8080"], REFUSED, "nope"),
    (&["backend", "set", "nope", "10.0.1.11:8080", "--weight", "2"], REFUSED, "nope"),
    (&["backend", "set", "web", "10.0.1.99:8080", "--weight", "2"], REFUSED, "10.0.1.99:8080"),
    (&["backend", "drain", "nope", "10.0.1.11:8080"], REFUSED, "nope"),
    (&["backend", "drain", "web", "10.0.1.99:8080"], REFUSED, "10.0.1.99:8080"),
    (&["backend", "enable", "nope", "10.0.1.11:8080"], REFUSED, "nope"),
    (&["backend", "enable", "web", "10.0.1.99:8080"], REFUSED, "10.0.1.99:8080"),
    (&["backend", "remove", "nope", "10.0.1.11:8080"], REFUSED, "nope"),
    (&["backend", "remove", "web", "10.0.1.99:8080"], REFUSED, "10.0.1.99:8080"),
    (&["backend", "remove", "web", "10.0.1.99:8080", "--force"], REFUSED, "10.0.1.99:8080"),
    (&["flows", "nope"], REFUSED, "nope"),
    (&["service", "remove", "web", "--if-revision", "999"], REFUSED, "is at revision"),
    (&["rollback", "999"], REFUSED, "revision 999 is not kept"),
    (&["history", "999"], REFUSED, "revision 999 is not kept"),
    (&["apply", "-f", "/nonexistent/state.toml"], REFUSED, "/nonexistent/state.toml"),
];

const CONFLICTS: &[Case] = &[
    (&["service", "add", "web", "--vip", "10.0.0.101:80"], REFUSED, "web"),
    (&["service", "add", "other", "--vip", "10.0.0.100:80"], REFUSED, "10.0.0.100:80"),
    (&["backend", "add", "web", "10.0.1.11:8080"], REFUSED, "10.0.1.11:8080"),
    (&["backend", "add", "web", "[fd00:b::12]:8080"], REFUSED, "fd00:b::12"),
    (&["backend", "add", "web6", "10.0.1.11:8080"], REFUSED, "10.0.1.11"),
];

const WRONG_VALUES: &[Case] = &[
    (&["service", "add", "x", "--vip", "10.0.0.100"], EITHER, "10.0.0.100"),
    (&["service", "add", "x", "--vip", "10.0.0.300:80"], EITHER, "10.0.0.300:80"),
    (&["service", "add", "x", "--vip", "10.0.0.101:0"], EITHER, "10.0.0.101:0"),
    (&["service", "add", "x", "--vip", "10.0.0.101:65536"], EITHER, "10.0.0.101:65536"),
    (&["service", "add", "x", "--vip", "fd00:a::101:80"], EITHER, "fd00:a::101:80"),
    (&["service", "add", "x", "--vip", "vip.example:80"], EITHER, "vip.example:80"),
    (&["service", "add", "", "--vip", "10.0.0.101:80"], EITHER, "name"),
    (&["service", "add", "a\nb", "--vip", "10.0.0.101:80"], EITHER, "name"),
    (&["service", "add", "x", "--vip", "10.0.0.101:80", "--protocol", "sctp"], EITHER, "sctp"),
    (&["service", "add", "x", "--vip", "10.0.0.101:80", "--strategy", "fastest"], EITHER, "fastest"),
    (&["service", "add", "x", "--vip", "10.0.0.101:80", "--mode", "magic"], EITHER, "magic"),
    (&["service", "add", "x", "--vip", "10.0.0.101:80", "--health", "smoke"], EITHER, "smoke"),
    (&["service", "add", "x", "--vip", "10.0.0.101:80", "--health", "tcp,interval=never"], EITHER, "never"),
    (&["service", "add", "x", "--vip", "10.0.0.101:80", "--health", "tcp,rise=0"], EITHER, "rise"),
    (&["service", "add", "x", "--vip", "10.0.0.101:80", "--health", "tcp,colour=red"], EITHER, "colour"),
    (&["service", "set", "web", "--strategy", "fastest"], EITHER, "fastest"),
    (&["service", "set", "web", "--mode", "magic"], EITHER, "magic"),
    (&["service", "set", "web", "--health", "smoke"], EITHER, "smoke"),
    (&["backend", "add", "web", "nonsense"], EITHER, "nonsense"),
    (&["backend", "add", "web", "10.0.1.13"], EITHER, "10.0.1.13"),
    (&["backend", "add", "web", "10.0.1.13:0"], EITHER, "10.0.1.13:0"),
    (&["backend", "add", "web", "10.0.1.13:8080", "--weight", "-1"], EITHER, "-1"),
    (&["backend", "add", "web", "10.0.1.13:8080", "--weight", "65536"], EITHER, "65536"),
    (
        &["backend", "add", "web", "10.0.1.13:8080", "--weight", "99999999999999999999"],
        EITHER,
        "99999999999999999999",
    ),
    (&["backend", "set", "web", "10.0.1.11:8080", "--weight", "heavy"], EITHER, "heavy"),
    (&["backend", "set", "web", "10.0.1.11:8080", "--weight", "65536"], EITHER, "65536"),
    (&["backend", "drain", "web", "10.0.1.11:0"], EITHER, "10.0.1.11:0"),
    (&["backend", "enable", "web", "10.0.1.11:99999"], EITHER, "10.0.1.11:99999"),
    (&["backend", "remove", "web", "10.0.1.11"], EITHER, "10.0.1.11"),
    (&["backend", "remove", "web", "10.0.1.11:8080", "--drain-timeout", "soon"], EITHER, "soon"),
    (&["explain", "--protocol", "tcp", "nonsense", "10.0.0.100:80"], EITHER, "nonsense"),
    (&["explain", "--protocol", "icmp", "10.0.0.10:1000", "10.0.0.100:80"], EITHER, "icmp"),
    (&["explain", "--protocol", "tcp", "[fd00:a::10]:1000", "10.0.0.100:80"], EITHER, "fd00:a::10"),
];

const WRONG_USAGE: &[Case] = &[
    (&["frobnicate"], USAGE, "frobnicate"),
    (&["service", "frobnicate"], USAGE, "frobnicate"),
    (&["service", "list", "surplus"], USAGE, "surplus"),
    (&["service", "add", "x"], USAGE, "--vip"),
    (&["service", "add", "x", "--vip"], USAGE, "--vip"),
    (&["service", "show"], USAGE, ""),
    (&["service", "remove"], USAGE, ""),
    (&["backend", "add", "web"], USAGE, ""),
    (&["backend", "add", "web", "10.0.1.13:8080", "--colour", "red"], USAGE, "--colour"),
    (&["backend", "drain", "web"], USAGE, ""),
    (&["backend", "remove", "web"], USAGE, ""),
    (&["explain", "10.0.0.10:1000"], USAGE, ""),
    (&["apply"], USAGE, ""),
    (&["status", "--frobnicate"], USAGE, "--frobnicate"),
    (&["export", "surplus"], USAGE, "surplus"),
    (&["flows", "web", "surplus"], USAGE, "surplus"),
    (&["-o", "xml", "status"], USAGE, "xml"),
];

fn protected_setup() -> Setup {
    let setup = Setup::bare(Shape::TwoArmed, 2, Settings::default()).unwrap();
    for line in STATE {
        setup.agent.must(line).unwrap();
    }
    setup
}

/// Runs every case, and looks after each whether anything has changed.
fn check(cases: &[Case]) {
    let setup = protected_setup();
    let state = setup.agent.must(["export"]).unwrap();
    for &(words, statuses, what) in cases {
        let case = words.join(" ");
        let reply = setup.agent.cli(words).unwrap();
        one_clear_line(&case, &reply, statuses, what);
        assert_eq!(setup.agent.must(["export"]).unwrap(), state, "`{case}` changed the state");
    }
}

#[test]
fn unknown_services_and_backends_are_named() {
    needs_root!();
    check(UNKNOWN_OBJECTS);
}

#[test]
fn duplicates_and_mixed_families_are_refused() {
    needs_root!();
    check(CONFLICTS);
}

#[test]
fn wrong_values_are_named() {
    needs_root!();
    check(WRONG_VALUES);
}

#[test]
fn wrong_usage_is_told_apart() {
    needs_root!();
    check(WRONG_USAGE);
}

#[test]
fn a_verb_that_needs_another_shows_which_there_are() {
    needs_root!();
    let setup = protected_setup();
    for (verb, next) in [("service", "list"), ("backend", "drain")] {
        let reply = setup.agent.cli([verb]).unwrap();
        assert_eq!(reply.status, 2, "{reply:?}");
        assert!(reply.stderr.contains(next), "{reply:?}");
    }
}

#[test]
fn a_name_of_a_hundred_kilobytes_is_refused_without_repeating_it() {
    needs_root!();
    let setup = protected_setup();
    let state = setup.agent.must(["export"]).unwrap();
    let name = "n".repeat(100_000);
    let cases: &[(&[&str], &[i32])] = &[
        (&["service", "add", &name, "--vip", "10.0.0.101:80"], EITHER),
        (&["service", "show", &name], EITHER),
        (&["service", "set", &name, "--strategy", "maglev"], EITHER),
        (&["service", "remove", &name], EITHER),
        (&["backend", "list", &name], EITHER),
        (&["backend", "add", &name, "10.0.1.13:8080"], EITHER),
        (&["backend", "remove", &name, "10.0.1.13:8080"], EITHER),
        (&["backend", "add", "web", &name], EITHER),
        (&["service", "add", "x", "--vip", &name], EITHER),
        (&["service", "add", "x", "--vip", "10.0.0.101:80", "--strategy", &name], EITHER),
        (&["service", "add", "x", "--vip", "10.0.0.101:80", "--health", &name], EITHER),
        (&["flows", &name], EITHER),
        (&[&name], USAGE),
    ];
    for (words, statuses) in cases {
        let shown: Vec<_> =
            words.iter().map(|word| if word.len() > 99 { "<100 kB>" } else { word }).collect();
        let reply = setup.agent.cli(*words).unwrap();
        one_clear_line(&shown.join(" "), &reply, statuses, "");
        assert_eq!(setup.agent.must(["export"]).unwrap(), state, "{shown:?} changed the state");
    }
}

#[test]
fn a_file_with_an_error_is_refused_as_a_whole() {
    needs_root!();
    let setup = protected_setup();
    let state = setup.agent.must(["export"]).unwrap();
    let good = "[[service]]\nname = \"new\"\nvip = \"10.0.0.102:80\"\nprotocol = \"tcp\"\n";
    let cases = [
        ("not toml at all [", ""),
        ("[[service]]\nname = \"x\"\nvip = \"10.0.0.101:80\"\ncolour = \"red\"\n", "colour"),
        ("[[service]]\nname = \"x\"\n", "vip"),
        ("[[service]]\nname = \"x\"\nvip = \"10.0.0.101:0\"\n", "10.0.0.101:0"),
        ("[[service]]\nname = \"x\"\nvip = \"10.0.0.101:80\"\nstrategy = \"fastest\"\n", "fastest"),
        ("[[service]]\nname = \"new\"\nvip = \"10.0.0.103:80\"\n", "new"),
        ("[[service]]\nname = \"x\"\nvip = \"10.0.0.102:80\"\n", "10.0.0.102:80"),
        (
            "[[service]]\nname = \"x\"\nvip = \"10.0.0.101:80\"\n[[service.backend]]\naddress = \"[fd00:b::11]:80\"\n",
            "fd00:b::11",
        ),
        (
            "[[service]]\nname = \"x\"\nvip = \"10.0.0.101:80\"\n[[service.backend]]\naddress = \"10.0.1.11:80\"\nweight = 65536\n",
            "65536",
        ),
    ];
    let file = setup.agent.directory().join("state.toml");
    for (bad, what) in cases {
        // The good part comes first: it must not be applied either.
        std::fs::write(&file, format!("{good}{bad}")).unwrap();
        let reply = setup.agent.cli(["apply".as_ref(), "-f".as_ref(), file.as_os_str()]).unwrap();
        one_clear_line(bad, &reply, REFUSED, what);
        assert_eq!(setup.agent.must(["export"]).unwrap(), state, "changed the state: {bad}");
    }
}
