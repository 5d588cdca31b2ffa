//! Single plans in full, and random histories with agents that die after any action.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proptest::prelude::{Just, ProptestConfig, any, prop, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as Generator;

use super::Action;
use super::lab::Lab;
use crate::datapath::{Wanted, WantedBackend, WantedService};
use crate::model::{
    Affinity, FlowLimit, Guard, OnBackendDown, OnNoBackend, Protocol, Retry, Strategy, Track,
};

#[test]
fn the_first_service_comes_up_in_order() {
    let mut lab = Lab::new();
    let plan = lab.plan(&wanted(vec![service("10.0.0.100:80", &["10.0.1.1:80", "10.0.1.2:80"])])).unwrap();
    let kinds: Vec<_> = plan.actions.iter().map(kind).collect();
    assert_eq!(
        kinds,
        [
            "PutBackend",
            "PutBackend",
            "GracePeriod",
            "WriteTable",
            "PutService",
            "WriteDirectory",
            "SwitchDirectory",
            "AddAddress"
        ]
    );
    assert_eq!(
        plan.steps,
        [
            "backend 10.0.1.1:80 of service 10.0.0.100:80: added with weight 1",
            "backend 10.0.1.2:80 of service 10.0.0.100:80: added with weight 1",
            "service 10.0.0.100:80 (10.0.0.100:80/tcp): added",
            "service 10.0.0.100:80: 61 slots built as maglev over 2 backends",
            "directory: 6 entries",
            "address 10.0.0.100: added to this host and announced",
        ]
    );
    lab.carry_out(&plan, usize::MAX);
}

#[test]
fn a_dead_backend_leaves_the_table_before_it_gives_up_its_flows() {
    let mut lab = Lab::new();
    let mut state = wanted(vec![service("10.0.0.100:80", &["10.0.1.1:80", "10.0.1.2:80"])]);
    lab.apply(&state);
    state.services[0].backends[0].serving = false;
    let plan = lab.plan(&state).unwrap();
    let kinds: Vec<_> = plan.actions.iter().map(kind).collect();
    assert_eq!(kinds, ["WriteTable", "SwitchTable", "GracePeriod", "SetBackend"]);
    assert!(plan.steps[0].contains("over 1 backend ("), "{:?}", plan.steps);
    lab.carry_out(&plan, usize::MAX);
}

#[test]
fn a_changed_answer_to_no_backend_writes_no_table() {
    let mut lab = Lab::new();
    let mut state = wanted(vec![service("10.0.0.100:80", &["10.0.1.1:80"])]);
    lab.apply(&state);
    state.services[0].on_no_backend = OnNoBackend::Drop;
    let plan = lab.plan(&state).unwrap();
    assert_eq!(plan.actions.iter().map(kind).collect::<Vec<_>>(), ["SwitchTable"]);
}

#[test]
fn options_change_before_the_backends_go_that_they_are_about() {
    let mut lab = Lab::new();
    let mut state = wanted(vec![service("10.0.0.100:80", &["10.0.1.1:80", "10.0.1.2:80"])]);
    lab.apply(&state);
    state.services[0].on_backend_down = OnBackendDown::Reset;
    let plan = lab.plan(&state).unwrap();
    assert_eq!(plan.actions.iter().map(kind).collect::<Vec<_>>(), ["SetOptions"]);
    lab.carry_out(&plan, usize::MAX);
    state.services[0].affinity = "10m".parse().unwrap();
    let plan = lab.plan(&state).unwrap();
    assert_eq!(plan.actions.iter().map(kind).collect::<Vec<_>>(), ["SetOptions"]);
    state.services[0].backends.remove(0);
    let plan = lab.plan(&state).unwrap();
    let kinds: Vec<_> = plan.actions.iter().map(kind).collect();
    let place = |name| kinds.iter().position(|kind| *kind == name);
    assert!(place("SetOptions").is_some() && place("SetOptions") < place("SetBackend"), "{kinds:?}");
    lab.carry_out(&plan, usize::MAX);
}

#[test]
fn addresses_that_were_there_before_are_never_removed() {
    let mut lab = Lab::new();
    let vip: IpAddr = "10.0.0.100".parse().unwrap();
    lab.ground.addresses.present.insert(vip);
    lab.apply(&wanted(vec![service("10.0.0.100:80", &[])]));
    lab.apply(&wanted(vec![]));
    assert!(lab.ground.addresses.present.contains(&vip));
}

#[test]
fn contradictions_are_refused_and_nothing_is_planned() {
    let lab = Lab::new();
    let many: Vec<_> = (0..9).map(|n| service(&format!("10.0.0.100:{}", 80 + n), &["10.0.1.1:80"])).collect();
    for (state, message) in [
        (
            wanted(vec![service("10.0.0.100:80", &["10.0.1.1:80", "10.0.1.1:80"])]),
            "backend 10.0.1.1:80 of service 10.0.0.100:80: listed twice",
        ),
        (
            wanted(vec![service("10.0.0.100:80", &["[fd00::1]:80"])]),
            "backend [fd00::1]:80 of service 10.0.0.100:80: not of the same address family as 10.0.0.100:80",
        ),
        (
            wanted(vec![service("10.0.0.1:80", &[]), service("10.0.0.2:80", &["10.0.0.1:80"])]),
            "service 10.0.0.1:80: 10.0.0.1:80/tcp is also a backend's address",
        ),
        (
            wanted(many),
            "backend 10.0.1.1:80 of service 10.0.0.100:88: already serves 8 services, as many as one can",
        ),
    ] {
        assert_eq!(lab.plan(&state).unwrap_err().to_string(), message);
    }
    let full: Vec<_> = (0..9).map(|n| service(&format!("10.0.0.100:{}", 80 + n), &[])).collect();
    let error = lab.plan(&wanted(full)).unwrap_err().to_string();
    assert!(error.starts_with("service 10.0.0.100:88: no room: all 8 rows"), "{error}");
}

#[test]
fn a_full_nat_service_comes_up_with_its_source_addresses_first_and_goes_with_them_last() {
    let mut lab = Lab::new();
    let plain = service("10.0.0.100:81", &["10.0.1.1:80"]);
    let full = |sources: &[[u8; 4]]| WantedService {
        source_pool: sources.iter().map(|&octets| octets.into()).collect(),
        ..service("10.0.0.100:80", &["10.0.1.1:80"])
    };
    lab.apply(&wanted(vec![plain.clone()]));
    let [first, second] = [[10, 0, 2, 1], [10, 0, 2, 2]];
    let mut kinds = |services: Vec<WantedService>| {
        let plan = lab.plan(&wanted(services.clone())).unwrap();
        lab.apply(&wanted(services));
        plan.actions.iter().map(kind).filter(|kind| *kind != "GracePeriod").collect::<Vec<_>>()
    };
    assert_eq!(
        kinds(vec![full(&[first]), plain.clone()]),
        [
            "PutSource",
            "SetBackend",
            "PutBackend",
            "SetBackend",
            "WriteTable",
            "PutService",
            "WriteDirectory",
            "SwitchDirectory",
            "AddAddress"
        ],
        "the endpoint's other row says that replies may be full NAT's before the service is listed"
    );
    assert_eq!(
        kinds(vec![full(&[second]), plain.clone()]),
        [
            "RemoveAddress",
            "PutSource",
            "WriteDirectory",
            "SwitchDirectory",
            "AddAddress",
            "SetPool",
            "WriteDirectory",
            "SwitchDirectory",
            "RetireSource"
        ]
    );
    let last = kinds(vec![plain]);
    assert_eq!(last.last(), Some(&"RetireSource"), "{last:?}");
    assert!(last.contains(&"SetBackend"), "{last:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_prefix_is_safe_and_every_history_arrives(
        history in prop::collection::vec((any_wanted(), interruption(), any::<bool>()), 1..8),
    ) {
        let mut lab = Lab::new();
        for (state, interruption, sweep) in history {
            if sweep {
                lab.sweep();
            }
            let plan = match lab.plan(&state) {
                Ok(plan) => plan,
                Err(_) => {
                    // Rows that rest are not free yet.
                    lab.sweep();
                    lab.plan(&state).unwrap()
                }
            };
            lab.carry_out(&plan, interruption);
            if interruption < plan.actions.len() {
                lab.restart();
                lab.sweep();
                lab.apply(&state);
            }
            lab.holds(&state);
            prop_assert_eq!(lab.plan(&state).unwrap().actions, vec![]);
            lab.restart();
            prop_assert_eq!(lab.plan(&state).unwrap().actions, vec![]);
        }
    }
}

fn kind(action: &Action) -> &'static str {
    match action {
        Action::PutBackend { .. } => "PutBackend",
        Action::SetBackend { .. } => "SetBackend",
        Action::WriteTable { .. } => "WriteTable",
        Action::PutService { .. } => "PutService",
        Action::SwitchTable { .. } => "SwitchTable",
        Action::NoteChange { .. } => "NoteChange",
        Action::SetOptions { .. } => "SetOptions",
        Action::SetLimits { .. } => "SetLimits",
        Action::WriteList { .. } => "WriteList",
        Action::EraseList { .. } => "EraseList",
        Action::SetPool { .. } => "SetPool",
        Action::PutSource { .. } => "PutSource",
        Action::RetireSource { .. } => "RetireSource",
        Action::WriteDirectory { .. } => "WriteDirectory",
        Action::SwitchDirectory { .. } => "SwitchDirectory",
        Action::GracePeriod => "GracePeriod",
        Action::RetireService { .. } => "RetireService",
        Action::RetireBackend { .. } => "RetireBackend",
        Action::AddAddress { .. } => "AddAddress",
        Action::RemoveAddress { .. } => "RemoveAddress",
    }
}

fn wanted(services: Vec<WantedService>) -> Wanted {
    Wanted { services }
}

fn service(vip: &str, backends: &[&str]) -> WantedService {
    let backend = |address: &&str| WantedBackend {
        address: address.parse().unwrap(),
        weight: 1,
        shares: 1,
        serving: true,
    };
    WantedService {
        name: vip.to_owned(),
        vip: vip.parse().unwrap(),
        protocol: Protocol::Tcp,
        source_pool: Vec::new(),
        strategy: Strategy::Maglev,
        track: Track::Full,
        on_no_backend: OnNoBackend::Reset,
        on_backend_down: OnBackendDown::Rebalance,
        retry: Retry::Off,
        affinity: Affinity::default(),
        guard: Arc::default(),
        backends: backends.iter().map(backend).collect(),
    }
}

/// Where the agent dies: after that many actions.
fn interruption() -> impl Generator<Value = usize> {
    prop_oneof![Just(usize::MAX), 0usize..20]
}

fn any_wanted() -> impl Generator<Value = Wanted> {
    prop::collection::btree_map((0u8..2, 0u16..2, any::<bool>()), any_service(), 0..5).prop_map(|services| {
        Wanted {
            services: services
                .into_iter()
                .map(|((host, port, udp), service)| {
                    let vip = SocketAddr::from(([10, 0, 0, 100 + host], 80 + port));
                    let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
                    // Fixed for as long as a service is in use.
                    let track = if host == 1 { Track::Exceptions } else { Track::Full };
                    // A service's mode does not change: that is another service. Full NAT needs every flow.
                    let full_nat = port == 1 && track == Track::Full;
                    let source_pool = if full_nat { service.source_pool } else { Vec::new() };
                    WantedService { name: vip.to_string(), vip, protocol, track, source_pool, ..service }
                })
                .collect(),
        }
    })
}

fn guard(limit: &str, allow: &[&str], deny: &[&str]) -> Guard {
    let prefixes = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let limit: FlowLimit = limit.parse().unwrap();
    Guard { limit_new_flows: limit, limit_source: limit, allow: prefixes(allow), deny: prefixes(deny) }
}

fn any_guard() -> impl Generator<Value = Guard> {
    let any_list = || prop::sample::subsequence(vec!["10.0.0.0/8", "10.1.0.0/16"], 0..=2);
    (any::<bool>(), any_list(), any_list()).prop_map(|(limited, allow, deny)| {
        let deny: Vec<_> = deny.into_iter().filter(|prefix| !allow.contains(prefix)).collect();
        guard(if limited { "10/s,burst=5" } else { "none" }, &allow, &deny)
    })
}

#[test]
fn a_list_is_written_beside_the_old_one_which_goes_after_a_grace_period() {
    let mut lab = Lab::new();
    let mut state = wanted(vec![service("10.0.0.100:80", &["10.0.1.1:80"])]);
    state.services[0].guard = Arc::new(guard("none", &["10.0.0.0/8"], &[]));
    lab.apply(&state);
    state.services[0].guard = Arc::new(guard("100/s", &["10.0.0.0/8"], &["10.1.0.0/16"]));
    let plan = lab.plan(&state).unwrap();
    let kinds: Vec<_> = plan.actions.iter().map(kind).collect();
    assert_eq!(kinds, ["WriteList", "SetLimits", "SetOptions", "GracePeriod", "EraseList"]);
    assert_eq!(plan.steps, ["service 10.0.0.100:80: prefix lists with 1 allowed and 1 denied"]);
    lab.carry_out(&plan, usize::MAX);
    lab.holds(&state);
}

fn any_service() -> impl Generator<Value = WantedService> {
    let backends = prop::collection::btree_map(1u8..6, (0u32..3, any::<bool>()), 0..5);
    let strategy = prop::sample::select(Strategy::ALL);
    let sources = prop::collection::btree_set(1u8..4, 1..3);
    (any_guard(), backends, sources, strategy, any::<[bool; 2]>()).prop_map(
        |(guard, backends, sources, strategy, [reset, down])| WantedService {
            source_pool: sources.into_iter().map(|last| IpAddr::from([10, 0, 2, last])).collect(),
            strategy,
            on_no_backend: if reset { OnNoBackend::Reset } else { OnNoBackend::Drop },
            guard: Arc::new(guard),
            on_backend_down: if down { OnBackendDown::Reset } else { OnBackendDown::Rebalance },
            backends: backends
                .into_iter()
                .map(|(host, (weight, serving))| WantedBackend {
                    address: SocketAddr::from(([10, 0, 1, host], 8080)),
                    weight,
                    shares: weight,
                    serving,
                })
                .collect(),
            ..service("10.0.0.100:80", &[])
        },
    )
}
