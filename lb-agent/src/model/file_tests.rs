use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::collection::{btree_map, vec};
use proptest::prelude::{any, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::select;
use proptest::strategy::Strategy as Generator;

use super::*;
use crate::model::flow_limit::Rate;
use crate::model::health::HealthArgument;
use crate::model::health::tests::any_spec;

fn any_endpoint() -> impl Generator<Value = Endpoint> {
    let v4 =
        (any::<[u8; 4]>(), 1..=u16::MAX).prop_map(|(ip, port)| SocketAddr::from((Ipv4Addr::from(ip), port)));
    let v6 =
        (any::<[u8; 16]>(), 1..=u16::MAX).prop_map(|(ip, port)| SocketAddr::from((Ipv6Addr::from(ip), port)));
    prop_oneof![v4, v6].prop_filter_map("not a host's address", |socket| socket.to_string().parse().ok())
}

fn any_checks() -> impl Generator<Value = Checks> {
    vec(any_spec(), 0..3).prop_filter_map("the same check twice", |checks| {
        Checks::new(checks.into_iter().map(HealthArgument::Check)).ok()
    })
}

fn any_prefixes() -> impl Generator<Value = BTreeSet<Prefix>> {
    let v4 = (any::<u32>(), 0..=32u8).prop_map(|(ip, length)| {
        let network = u64::from(ip) >> (32 - length) << (32 - length);
        format!("{}/{length}", Ipv4Addr::from_bits(network as u32))
    });
    let v6 = (any::<u64>(), 1..=64u8).prop_map(|(ip, length)| {
        let network = u128::from(ip) << 64 >> (128 - length) << (128 - length);
        format!("{}/{length}", Ipv6Addr::from_bits(network))
    });
    proptest::collection::btree_set(prop_oneof![v4, v6].prop_map(|text| text.parse().unwrap()), 0..4)
}

fn any_guard() -> impl Generator<Value = Guard> {
    let limit = || {
        (any::<bool>(), 1..=10_000_000u32, 1..=3600u32, any::<bool>(), 0..=128u8).prop_map(
            |(on, flows, burst, told, prefix)| {
                FlowLimit(on.then_some(Rate { flows, burst, prefix: told.then_some(prefix) }))
            },
        )
    };
    (limit(), limit(), any_prefixes(), any_prefixes()).prop_map(
        |(limit_new_flows, limit_source, allow, deny)| Guard { limit_new_flows, limit_source, allow, deny },
    )
}

fn any_fitness() -> impl Generator<Value = FitnessPolicy> {
    (0..=100u8, 1..=3600u64, 3..=3600u64).prop_map(|(percent, start, damping)| FitnessPolicy {
        panic_threshold: format!("{percent}%").parse().unwrap_or_default(),
        slow_start: format!("{start}s").parse().unwrap_or_default(),
        damping: format!("{damping}s").parse().unwrap_or_default(),
    })
}

fn any_service() -> impl Generator<Value = Service> {
    let backend = (any::<u16>(), select(Admin::ALL), any::<bool>(), 0..10u8).prop_map(
        |(weight, admin, backup, lease)| Backend {
            weight: Weight::from(weight),
            admin,
            backup,
            lease: format!("{lease}s").parse().unwrap_or_default(),
        },
    );
    let words =
        (select(Protocol::ALL), select(Strategy::ALL), select(OnNoBackend::ALL), select(OnBackendDown::ALL));
    let backends = btree_map(any_endpoint(), backend, 0..4);
    ("[A-Za-z0-9._-]{1,63}", any_endpoint(), words, any_checks(), backends, any_guard(), any_fitness())
        .prop_map(
            |(
                name,
                vip,
                (protocol, strategy, on_no_backend, on_backend_down),
                health,
                backends,
                guard,
                fitness,
            )| {
                Service {
                    strategy,
                    on_no_backend,
                    on_backend_down,
                    guard: Arc::new(guard.for_vip(vip)),
                    fitness,
                    health,
                    backends,
                    ..Service::new(name.parse().unwrap(), vip, protocol)
                }
            },
        )
}

/// Any state as far as its file is concerned; not every one of them passes [`Desired::validate`].
pub(crate) fn any_state() -> impl Generator<Value = Desired> {
    vec(any_service(), 0..4).prop_map(|services| Desired {
        services: services.into_iter().map(|service| (service.name.clone(), service)).collect(),
    })
}

fn error(text: &str) -> String {
    parse(text, "state.toml").unwrap_err().to_string()
}

const SERVICE: &str = "[[service]]\nname = \"web\"\nvip = \"10.0.0.100:80\"\n";

#[test]
fn what_is_absent_takes_its_default_and_is_printed() {
    let text = format!("{SERVICE}[[service.backend]]\naddress = \"10.0.1.11:8080\"\n");
    let printed = print(&parse(&text, "state.toml").unwrap());
    let expected = r#"[[service]]
name = "web"
vip = "10.0.0.100:80"
protocol = "tcp"
strategy = "maglev"
mode = "dnat"
track = "full"
on-no-backend = "reset"
on-backend-down = "rebalance"
retry = "off"
affinity = "off"
limit-new-flows = "none"
limit-source = "none"
allow = []
deny = []
panic-threshold = "off"
slow-start = "off"
damping = "off"

[service.health]
type = "tcp"
interval = "2s"
timeout = "1s"
rise = 2
fall = 3

[[service.backend]]
address = "10.0.1.11:8080"
weight = 1
admin = "enabled"
"#;
    assert_eq!(printed, expected);
}

/// The code blocks of a document that carry the given mark.
pub(crate) fn examples<'a>(document: &'a str, mark: &str) -> Vec<&'a str> {
    let blocks = document.split("\n```").skip(1).step_by(2);
    blocks
        .filter_map(|block| block.split_once('\n'))
        .filter(|(first, _)| *first == mark)
        .map(|(_, text)| text)
        .collect()
}

#[test]
fn the_documented_states_are_valid_and_the_first_is_canonical() {
    let examples = examples(include_str!("../../../docs/configuration.md"), "toml state");
    assert_eq!(examples.len(), 3);
    for example in &examples {
        let state = parse(example, "configuration.md").unwrap();
        assert_eq!(state.validate(&crate::config::Limits::default()), Ok(()));
    }
    assert_eq!(print(&parse(examples[0], "configuration.md").unwrap()), examples[0].to_owned() + "\n");
}

#[test]
fn order_does_not_matter_to_what_is_printed() {
    let backend = |last| format!("[[service.backend]]\naddress = \"10.0.1.{last}:80\"\n");
    let one = format!("{SERVICE}{}{}", backend(2), backend(11));
    let other = format!("{SERVICE}{}{}", backend(11), backend(2));
    assert_eq!(print(&parse(&one, "a").unwrap()), print(&parse(&other, "b").unwrap()));
}

#[test]
fn json_has_the_same_keys() {
    let json = r#"{"service": [{"name": "web", "vip": "10.0.0.100:80", "health": "none", "on-no-backend": "drop",
        "backend": [{"address": "10.0.1.11:8080", "weight": 3}]}]}"#;
    let toml = format!(
        "{SERVICE}on-no-backend = \"drop\"\nhealth.type = \"none\"\n[[service.backend]]\naddress = \"10.0.1.11:8080\"\nweight = 3\n"
    );
    let raw: RawState = serde_json::from_str(json).unwrap();
    assert_eq!(raw.desired().unwrap(), parse(&toml, "state.toml").unwrap());
}

#[test]
fn each_bad_file_has_its_message() {
    let cases = [
        (
            format!("{SERVICE}colour = \"red\"\n"),
            "state.toml line 4, `colour = \"red\"`: unknown key `colour`, expected one of `name`, `vip`, `protocol`, `strategy`, `mode`, `source_pool`, `track`, `on-no-backend`, `on-backend-down`, `retry`, `affinity`, `limit-new-flows`, `limit-source`, `allow`, `deny`, `panic-threshold`, `slow-start`, `damping`, `health`, `backend`",
        ),
        (
            format!("{SERVICE}strategy = \"fastest\"\n"),
            "state.toml line 4, `strategy = \"fastest\"`: unknown strategy `fastest`: valid are maglev, consistent-hash, source-hash, round-robin, random, least-connections, least-latency, resource-based",
        ),
        (
            format!("{SERVICE}mode = \"l2-dsr\"\n"),
            "state.toml line 4, `mode = \"l2-dsr\"`: unknown mode `l2-dsr`: valid are dnat, full-nat",
        ),
        (
            "[[service]]\nname = \"a b\"\n".to_owned(),
            "state.toml line 2, `name = \"a b\"`: invalid service name `a b`: use 1 to 63 of the characters A-Z a-z 0-9 . _ -",
        ),
        ("[[service]]\nname = \"web\"\n".to_owned(), "state.toml line 1, `[[service]]`: missing key `vip`"),
        (
            format!("{SERVICE}[[service.backend]]\naddress = \"10.0.1.11:0\"\n"),
            "state.toml line 5, `address = \"10.0.1.11:0\"`: invalid address `10.0.1.11:0`: the port must be a number from 1 to 65535",
        ),
        (
            format!("{SERVICE}[[service.backend]]\naddress = \"10.0.1.11:80\"\nweight = 65536\n"),
            "state.toml line 6, `weight = 65536`: invalid weight `65536`: it is a whole number from 0 to 65535",
        ),
        (
            format!("{SERVICE}[service.health]\ntype = \"smtp\"\n"),
            "state.toml line 4, `[service.health]`: unknown health type `smtp`: valid are tcp, http, https, grpc, udp, icmp, none",
        ),
        (
            format!("{SERVICE}[service.health]\ntype = \"tcp\"\nfall = 0\n"),
            "state.toml line 4, `[service.health]`: invalid health fall `0`: it is a whole number from 1 to 100",
        ),
        (format!("{SERVICE}{SERVICE}"), "state.toml: service `web` is declared twice"),
        (
            format!("{SERVICE}{0}{0}", "[[service.backend]]\naddress = \"10.0.1.11:80\"\n"),
            "state.toml: backend 10.0.1.11:80 of service `web` is declared twice",
        ),
        ("[[service]\n".to_owned(), "state.toml line 1, `[[service]`: unclosed array table, expected `]`"),
    ];
    for (text, message) in cases {
        assert_eq!(error(&text), message);
    }
}

#[test]
fn a_huge_key_or_name_makes_a_short_message() {
    let huge = "x".repeat(100_000);
    for text in [format!("{huge} = 1\n"), format!("[[service]]\nname = \"{huge}\"\n"), huge] {
        assert!(error(&text).len() < 1000);
    }
}

proptest! {
    #[test]
    fn every_state_survives_its_file(state in any_state()) {
        let text = print(&state);
        let read = parse(&text, "state.toml").unwrap();
        prop_assert_eq!(print(&read), text);
        prop_assert_eq!(read, state);
    }

    #[test]
    fn no_text_makes_it_panic(text in "(\\[\\[service\\]\\]\n|[a-z]{1,8} = [\"0-9a-z:.]{0,12}\n|.{0,8}){0,6}") {
        drop(parse(&text, "state.toml"));
    }
}
