//! What a view of the arrays says of a small data plane.

use lb_common::backend::Standing;
use lb_common::flow::{AFFINITY_OF, Key4, Key6};
use lb_common::hash::scale;
use lb_common::service::{Index, Options};

use super::*;
use crate::datapath::arrays::Sizes;
use crate::datapath::execute::set_up;
use crate::datapath::plan::Action;

const JIFFIES: u64 = 1 << 20;

fn endpoint(text: &str) -> Endpoint {
    Endpoint::new(text.parse().unwrap(), Protocol::Tcp)
}

/// The whole list, a few buckets at a time.
fn listed(arrays: &Arrays, service: Option<u16>) -> Vec<FlowInfo> {
    let (mut flows, mut from) = (Vec::new(), Some(FlowCursor::default()));
    while let Some(cursor) = from {
        let page = view(arrays).flows(service, cursor, 7);
        flows.extend(page.flows);
        from = page.next;
    }
    flows
}

/// Service 1 at 10.0.0.100:80 with backend 5, and service 2 at `[fd00::100]:80` with none.
fn arrays() -> Arrays {
    let mut arrays = Arrays::private(Sizes {
        flows: 64,
        flows6: 64,
        services: 4,
        backends: 8,
        table_size: 251,
        cpus: 2,
        ..Sizes::TEST
    });
    let (vip, vip6) = (endpoint("10.0.0.100:80"), endpoint("[fd00::100]:80"));
    let services = [(vip, 1), (vip6, 2)].into();
    let backend = endpoint("10.0.1.1:8080");
    let buckets = arrays.sizes.directory_buckets();
    let (key, half, _) =
        crate::datapath::plan::half(&services, &BTreeMap::new(), [(5, backend)].into_iter(), buckets)
            .unwrap();
    let table = Table::new(0, 251, Index::Flow, OnNoBackend::Reset);
    let none = Table::new(0, 0, Index::Flow, OnNoBackend::Reset);
    let actions = [
        Action::PutBackend {
            id: 5,
            service: 1,
            vip,
            endpoint: backend,
            standing: Standing { serving: true, weight: 1, ..Standing::default() },
        },
        Action::WriteTable { region: 0, slots: vec![5; 251] },
        Action::PutService { id: 1, vip, table, options: Options::default(), pool: [0; 16] },
        Action::PutService { id: 2, vip: vip6, table: none, options: Options::default(), pool: [0; 16] },
        Action::WriteDirectory { half: 1, key, buckets: half },
        Action::SwitchDirectory { half: 1 },
    ];
    set_up(&mut arrays, actions);
    arrays
}

fn view(arrays: &Arrays) -> View<'_> {
    View { arrays, jiffies: JIFFIES }
}

/// Enters a flow where a packet would look for it.
fn enter(arrays: &Arrays, client: &str, state: State) {
    let client = endpoint(client);
    let key = Key4::new(client.address.v4(), client.port, 1);
    let hash = key.hash(arrays.settings().flow_key);
    let bucket = scale(hash, arrays.settings().flow4_buckets) as usize;
    let way = &arrays.flows4[bucket].ways[2];
    key.write(&way.key);
    let now = arrays.settings().tick(JIFFIES);
    way.data.store(Data::succeeding(Data(0), state, 5, now - 3).0);
}

fn explained(arrays: &Arrays, client: &str, vip: &str) -> (Option<String>, String, bool) {
    let answer = view(arrays).explain(Protocol::Tcp, client.parse().unwrap(), vip.parse().unwrap());
    (answer.backend.map(|backend| backend.to_string()), answer.reason, answer.slot.is_some())
}

#[test]
fn explanations_follow_the_packets_way() {
    let arrays = arrays();
    let backend = || Some("10.0.1.1:8080".to_owned());
    let (client, vip) = ("10.0.0.9:4000", "10.0.0.100:80");
    assert_eq!(explained(&arrays, client, vip), (backend(), "slot".to_owned(), true));
    enter(&arrays, client, State::ESTABLISHED);
    assert_eq!(explained(&arrays, client, vip), (backend(), "flow".to_owned(), false));
    enter(&arrays, client, State::HALF_OPEN);
    assert_eq!(explained(&arrays, client, vip), (backend(), "half-open".to_owned(), false));
    assert_eq!(explained(&arrays, client, "10.0.0.100:81"), (None, "no-service".to_owned(), false));
    assert_eq!(explained(&arrays, client, "[fd00::100]:80"), (None, "no-service".to_owned(), false));
    assert_eq!(
        explained(&arrays, "[fd00::9]:4000", "[fd00::100]:80"),
        (None, "no-backend".to_owned(), false)
    );
}

#[test]
fn affinity_explains_new_flows_and_is_listed_as_none() {
    let arrays = arrays();
    let (client, vip) = ("10.0.0.9:4000", "10.0.0.100:80");
    let affinity = Key4::new(endpoint(client).address.v4(), Be16(0), 1 | AFFINITY_OF);
    let home = scale(affinity.hash(arrays.settings().flow_key), arrays.settings().flow4_buckets);
    let way = &arrays.flows4[home as usize].ways[1];
    affinity.write(&way.key);
    let now = arrays.settings().tick(JIFFIES);
    way.data.store(Data::succeeding(Data(0), State::AFFINITY, 5, now - 30).0);
    assert_eq!(explained(&arrays, client, vip).1, "slot", "the service has none");
    for (timeout, reason) in [(30, "affinity"), (29, "slot")] {
        arrays.services[1].options.store(Options::default().with_affinity(timeout).0);
        assert_eq!(explained(&arrays, client, vip).1, reason);
    }
    arrays.services[1].options.store(Options::default().with_affinity(30).0);
    assert_eq!(listed(&arrays, None), []);
    enter(&arrays, client, State::ESTABLISHED);
    assert_eq!(explained(&arrays, client, vip).1, "flow");
}

#[test]
fn where_chance_decides_the_candidates_are_told_with_their_shares() {
    let mut arrays = arrays();
    let vip = endpoint("10.0.0.100:80");
    let standing = Standing { serving: true, weight: 1, ..Standing::default() };
    let table = Table::new(lb_common::slot::lines(251), 3, Index::Random, OnNoBackend::Reset);
    let actions = [
        Action::PutBackend { id: 6, service: 1, vip, endpoint: endpoint("10.0.1.0:8080"), standing },
        Action::WriteTable { region: 1, slots: vec![5, 6, 5] },
        Action::SwitchTable { service: 1, table },
    ];
    set_up(&mut arrays, actions);
    let explain = || {
        view(&arrays).explain(
            Protocol::Tcp,
            "10.0.0.9:4000".parse().unwrap(),
            "10.0.0.100:80".parse().unwrap(),
        )
    };
    let candidate = |backend: &str, share_basis_points| Candidate {
        backend: backend.parse().unwrap(),
        share_basis_points,
    };
    let expected = Explanation {
        backend: None,
        source: None,
        reason: "candidates".to_owned(),
        slot: None,
        candidates: vec![candidate("10.0.1.0:8080", 3333), candidate("10.0.1.1:8080", 6666)],
    };
    assert_eq!(explain(), expected);
    enter(&arrays, "10.0.0.9:4000", State::ESTABLISHED);
    assert_eq!((explain().reason.as_str(), explain().candidates.len()), ("flow", 0));
}

#[test]
fn a_table_that_names_no_backend_of_the_service_is_called_a_contradiction() {
    let arrays = arrays();
    let explained = || explained(&arrays, "10.0.0.9:4000", "10.0.0.100:80");
    arrays.backends[5].state.keep_bits(!1);
    assert_eq!(explained(), (None, "contradiction".to_owned(), false), "a dead one");
    arrays.backends[5].state.set_bits(1);
    assert_eq!(explained().1, "slot");
}

#[test]
fn flows_are_listed_with_what_they_belong_to() {
    let arrays = arrays();
    enter(&arrays, "10.0.0.9:4000", State::ESTABLISHED);
    let way = &arrays.flows6[3].ways[0];
    Key6::new(&endpoint("[fd00::9]:1").address, Be16::new(7), 2).write(&way.key);
    way.data.store(Data::succeeding(Data(0), State::CLAIMED, 5, 0).0);
    let flows = listed(&arrays, None);
    let expected = FlowInfo {
        vip: "10.0.0.100:80".parse().unwrap(),
        protocol: Protocol::Tcp,
        client: "10.0.0.9:4000".parse().unwrap(),
        backend: "10.0.1.1:8080".parse().unwrap(),
        source: None,
        state: "established".to_owned(),
        idle_seconds: 3,
    };
    assert_eq!(flows, [expected], "an entry that is being written is none yet");
    assert!(listed(&arrays, Some(2)).is_empty());
    assert_eq!(listed(&arrays, Some(1)).len(), 1);
}

#[test]
fn traffic_is_summed_over_cpus_and_the_agents_own_row() {
    let arrays = arrays();
    for cpu in 0..2 {
        arrays.traffic(cpu, 5).opened.count(3);
        arrays.traffic(cpu, 5).rx_packets.count(10);
        arrays.traffic(cpu, 5).tx_bytes.count(100);
    }
    arrays.traffic(1, 5).closed.count(1);
    arrays.own_traffic(5).closed.count(2);
    let expected = Traffic {
        active_connections: 3,
        connections_total: 6,
        rx_packets_total: 20,
        tx_bytes_total: 200,
        ..Traffic::default()
    };
    assert_eq!(traffic(&arrays, 5), expected);
    assert_eq!(traffic(&arrays, 6), Traffic::default());
}

#[test]
fn every_reason_and_every_event_is_shown_over_all_cpus() {
    let arrays = arrays();
    for (row, count) in arrays.outcomes.iter().zip([2, 3]) {
        row.reason(Reason::RequestForwarded).count(count);
        row.event(Event::FlowEvicted).count(10 * count);
    }
    arrays.outcomes[1].event(Event::RedirectFailed).count(4);
    let reasons: Vec<_> = reasons(&arrays).into_iter().map(|count| (count.reason, count.packets)).collect();
    let expected: Vec<_> = Reason::ALL
        .iter()
        .map(|&reason| (reason.name().to_owned(), if reason == Reason::RequestForwarded { 5 } else { 0 }))
        .collect();
    assert_eq!(reasons, expected);
    let events: Vec<_> = events(&arrays).into_iter().map(|count| (count.event, count.count)).collect();
    let count = |event| match event {
        Event::FlowEvicted => 50,
        Event::RedirectFailed => 4,
        _ => 0,
    };
    let expected: Vec<_> = Event::ALL.iter().map(|&event| (event.name().to_owned(), count(event))).collect();
    assert_eq!(events, expected);
}
