use clap::CommandFactory as _;

use super::*;

/// The line that a wrong command line gets.
fn refusal(arguments: &[&str]) -> String {
    let error = Cli::try_parse_from([&["lb-agent"], arguments].concat()).unwrap_err();
    usage::line(&error)
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn global_options_stand_before_the_verb_or_after_it() {
    for line in ["-o json --socket /x -q -v service list", "service list -o json --socket /x -q -v"] {
        let cli = Cli::try_parse_from(std::iter::once("lb-agent").chain(line.split(' '))).unwrap();
        let Global { output, socket, quiet, verbose } = cli.global;
        assert_eq!((output, socket, quiet, verbose), (Format::Json, Some("/x".into()), true, 1), "{line}");
    }
}

#[test]
fn verbs_of_the_future_do_not_exist() {
    for verb in ["register", "capture", "help"] {
        assert_eq!(refusal(&[verb]), format!("unrecognized subcommand '{verb}'; see --help"));
    }
}

#[test]
fn each_wrong_command_line_has_its_message() {
    let cases: [(&[&str], &str); 24] = [
        (
            &["service", "add", "web"],
            "the following required arguments were not provided: --vip <ADDR:PORT>; see --help",
        ),
        (
            &["service", "add", "a b", "--vip", "10.0.0.1:80"],
            "invalid service name `a b`: use 1 to 63 of the characters A-Z a-z 0-9 . _ - (in <NAME>)",
        ),
        (
            &["service", "add", "web", "--vip", "10.0.0.1:0"],
            "invalid address `10.0.0.1:0`: the port must be a number from 1 to 65535 (in --vip <ADDR:PORT>)",
        ),
        (
            &["service", "add", "web", "--vip", "10.0.0.1"],
            "invalid address `10.0.0.1`: it has no port: write ADDR:PORT, or [ADDR]:PORT for IPv6 (in --vip <ADDR:PORT>)",
        ),
        (
            &["service", "add", "web", "--vip", "example.com:80"],
            "invalid address `example.com:80`: write ADDR:PORT, or [ADDR]:PORT for IPv6, with an address and not a host name (in --vip <ADDR:PORT>)",
        ),
        (
            &["service", "add", "web", "--vip", "10.0.0.1:80", "--protocol", "sctp"],
            "unknown protocol `sctp`: valid are tcp, udp (in --protocol <PROTOCOL>)",
        ),
        (
            &["service", "add", "web", "--vip", "10.0.0.1:80", "--strategy", "fastest"],
            "unknown strategy `fastest`: valid are maglev, consistent-hash, source-hash, round-robin, random, least-connections, least-latency, resource-based (in --strategy <S>)",
        ),
        (
            &["service", "add", "web", "--vip", "10.0.0.1:80", "--mode", "l2-dsr"],
            "unknown mode `l2-dsr`: valid are dnat, full-nat (in --mode <M>)",
        ),
        (
            &["service", "add", "web", "--vip", "10.0.0.1:80", "--health", "smtp,path=/x"],
            "unknown health type `smtp`: valid are tcp, http, https, grpc, udp, icmp, none (in --health <SPEC>)",
        ),
        (
            &["service", "add", "web", "--vip", "10.0.0.1:80", "--on-no-backend", "reject"],
            "unknown on-no-backend `reject`: valid are reset, drop (in --on-no-backend <WHAT>)",
        ),
        (
            &["service", "set", "web"],
            "the following required arguments were not provided: <--strategy <S>|--mode <M>|--source-pool <ADDR,...>|--health <SPEC>|--on-no-backend <WHAT>|--on-backend-down <WHAT>|--retry <on|off>|--affinity <TIME|off>|--limit-new-flows <LIMIT>|--limit-source <LIMIT>|--panic-threshold <PERCENT|off>|--slow-start <TIME|off>|--damping <TIME|off>|--allow <PREFIX>|--deny <PREFIX>|--unlist <PREFIX>>; see --help",
        ),
        (&["service", "frobnicate"], "unrecognized subcommand 'frobnicate'; see --help"),
        (
            &["backend", "add", "web", "10.0.1.11:80", "--weight", "65536"],
            "invalid weight `65536`: it is a whole number from 0 to 65535 (in --weight <N>)",
        ),
        (
            &["backend", "add", "web", "10.0.1.11:80", "--weight=-1"],
            "invalid weight `-1`: it is a whole number from 0 to 65535 (in --weight <N>)",
        ),
        (
            &["backend", "add", "web", "127.0.0.1:80"],
            "invalid address `127.0.0.1:80`: a loopback address never leaves this machine (in <ADDR:PORT>)",
        ),
        (
            &["backend", "set", "web", "10.0.1.11:80"],
            "the following required arguments were not provided: <--weight <N>|--admin <STATE>|--backup <true|false>>; see --help",
        ),
        (
            &["backend", "remove", "web", "10.0.1.11:80", "--drain-timeout", "5"],
            "invalid duration `5`: write a number with its unit, such as 500ms, 2s, 5m or 1h; at most 168h (in --drain-timeout <TIME>)",
        ),
        (
            &["backend", "remove", "web", "10.0.1.11:80", "--drain-timeout", "5s", "--force"],
            "the argument '--drain-timeout <TIME>' cannot be used with '--force'; see --help",
        ),
        (&["apply"], "the following required arguments were not provided: --file <FILE>; see --help"),
        (
            &["explain", "--protocol", "tcp", "192.0.2.1:1", "10.0.0.1:70000"],
            "invalid address `10.0.0.1:70000`: the port must be a number from 1 to 65535 (in <VIP:PORT>)",
        ),
        (&["rollback", "first"], "invalid digit found in string (in <REVISION>)"),
        (
            &["rollback", "3", "--dry-run", "--state-dir", "/x"],
            "the argument '--dry-run' cannot be used with '--state-dir <DIR>'; see --help",
        ),
        (&["-o", "yaml", "status"], "unknown format `yaml`: valid are table, json (in --output <FORMAT>)"),
        (
            &["run", "--interface", "a/b"],
            "invalid interface name `a/b`: 1 to 15 bytes without white space, `/` and `:` (in --interface <NAME>)",
        ),
    ];
    for (arguments, message) in cases {
        assert_eq!(refusal(arguments), message);
    }
}

#[test]
fn whatever_is_typed_by_the_100_kb_does_not_come_back() {
    let huge = "x".repeat(100_000);
    let lines: [&[&str]; 6] = [
        &[&huge],
        &["service", &huge],
        &["service", "show", &huge],
        &["service", "add", "web", "--vip", &huge],
        &["backend", "add", "web", "10.0.1.11:80", "--weight", &huge],
        &["status", &huge],
    ];
    for arguments in lines {
        let line = refusal(arguments);
        assert!(line.len() < 500 && !line.contains('\n'), "{line}");
    }
}

#[test]
fn every_verb_has_long_help_with_an_example() {
    fn walk(command: &clap::Command, path: &str) {
        if !command.has_subcommands() && !path.ends_with("service list") {
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains("Example"), "{path} has no example");
        }
        command.get_subcommands().for_each(|verb| walk(verb, &format!("{path} {}", verb.get_name())));
    }
    let mut command = Cli::command();
    command.build();
    walk(&command, "lb-agent");
}
