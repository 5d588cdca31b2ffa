//! Client affinity: whose flows follow whose, for how long, and what it costs when there is no room.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lb_common::flow::{AFFINITY_OF, State};
use lb_common::reason::{Event, Reason};
use lb_common::service::Index;
use lb_tests::balancer::{Balancer, Flow};
use lb_tests::lab::{Backend, FAMILIES, Hosts, Lab, Service};

/// Ticks that affinity holds.
const TIMEOUT: u64 = 100;

fn lab(hosts: &Hosts, index: Index) -> Lab {
    lab_with(hosts, index, |backend| backend)
}

/// Three backends, the first of which is made something of.
fn lab_with(hosts: &Hosts, index: Index, first: fn(Backend) -> Backend) -> Lab {
    let service = |service: Service| {
        (0..3)
            .map(|at| Backend::at(hosts.backends[at], 8080))
            .enumerate()
            .map(|(at, backend)| if at == 0 { first(backend) } else { backend })
            .fold(service.by(index).sticky(TIMEOUT), Service::backend)
    };
    let tcp = service(Service::tcp(hosts.vip, 80));
    Lab::new().flow_buckets(4096).service(tcp).service(service(Service::udp(hosts.vip, 80)))
}

/// Flows, and what is remembered of clients.
fn parted(lb: &mut Balancer) -> (Vec<Flow>, Vec<Flow>) {
    lb.flows().into_iter().partition(|flow| flow.service & AFFINITY_OF == 0)
}

fn backends(flows: &[Flow]) -> BTreeSet<u16> {
    flows.iter().map(|flow| flow.backend).collect()
}

#[test]
fn all_flows_of_a_client_go_to_one_backend_under_every_strategy() {
    for (hosts, index) in FAMILIES.into_iter().flat_map(|hosts| Index::ALL.map(|index| (hosts, index))) {
        let mut lb = balancer!(lab(&hosts, index));
        for port in 1..=50 {
            let run = lb.receive(&hosts.to_vip().tcp(port, 80).syn());
            run.assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
        }
        let (flows, remembered) = parted(&mut lb);
        assert_eq!((flows.len(), remembered.len()), (50, 1), "{index:?}");
        assert_eq!(backends(&flows), backends(&remembered), "{index:?}");
        let entry = &remembered[0];
        assert_eq!((entry.client.1, entry.service, entry.state), (0, 1 | AFFINITY_OF, "affinity"));
    }
}

/// A peer keeps UDP flows in another map than it looks them up in: there, affinity of UDP never hits.
#[test]
fn udp_affinity_hits() {
    for (hosts, index) in FAMILIES.into_iter().flat_map(|hosts| Index::ALL.map(|index| (hosts, index))) {
        let mut lb = balancer!(lab(&hosts, index));
        // To the backend that neither turns nor a hash would choose each time.
        lb.plant((hosts.client, 0), 2 | AFFINITY_OF, 6, State::AFFINITY, 0);
        for port in 1..=50 {
            lb.receive(&hosts.to_vip().udp(port, 80))
                .assert_counted(Reason::RequestForwarded, [Event::FlowCreated]);
        }
        let (flows, remembered) = parted(&mut lb);
        assert_eq!((flows.len(), backends(&flows), remembered.len()), (50, [6].into(), 1), "{index:?}");
    }
}

#[test]
fn clients_and_services_are_apart() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(&hosts, Index::RoundRobin));
        for port in 1..=10 {
            lb.run(&hosts.to_vip().tcp(port, 80).syn().bytes());
            lb.run(&hosts.to_vip().udp(port, 80).bytes());
            lb.run(&hosts.to_vip().from(hosts.stranger).tcp(port, 80).syn().bytes());
        }
        let (flows, remembered) = parted(&mut lb);
        let of = |client: &str, service| {
            let theirs =
                flows.iter().filter(|flow| flow.client.0.to_string() == client && flow.service == service);
            backends(&theirs.cloned().collect::<Vec<_>>())
        };
        // In turn: the first client's TCP, its UDP (the other service's first turn), the other client's TCP.
        assert_eq!(of(hosts.client, 1), [1].into());
        assert_eq!(of(hosts.client, 2), [4].into());
        assert_eq!(of(hosts.stranger, 1), [2].into());
        assert_eq!(remembered.len(), 3);
    }
}

#[test]
fn a_backend_that_is_dead_or_drains_is_replaced_for_good() {
    let gone: [fn(Backend) -> Backend; 2] = [Backend::dead, Backend::draining];
    for (hosts, gone) in FAMILIES.into_iter().flat_map(|hosts| gone.map(|gone| (hosts, gone))) {
        let mut lb = balancer!(lab(&hosts, Index::RoundRobin));
        lb.receive(&hosts.to_vip().tcp(1, 80).syn());
        assert_eq!(backends(&parted(&mut lb).1), [1].into());
        lb.configure(&lab_with(&hosts, Index::RoundRobin, gone));
        for port in 2..=10 {
            lb.receive(&hosts.to_vip().tcp(port, 80).syn());
        }
        let (flows, remembered) = parted(&mut lb);
        let later: Vec<_> = flows.into_iter().filter(|flow| flow.client.1 > 1).collect();
        assert_eq!(remembered.len(), 1);
        assert_eq!(backends(&later), backends(&remembered));
        assert!(!backends(&later).contains(&1), "{later:?}");
    }
}

#[test]
fn it_holds_as_long_as_the_service_says() {
    for (hosts, (idle, holds)) in FAMILIES
        .into_iter()
        .flat_map(|hosts| [(TIMEOUT, true), (TIMEOUT + 1, false)].map(|case| (hosts, case)))
    {
        let mut lb = balancer!(lab(&hosts, Index::RoundRobin));
        lb.plant((hosts.client, 0), 1 | AFFINITY_OF, 3, State::AFFINITY, idle);
        lb.receive(&hosts.to_vip().tcp(1, 80).syn());
        let (flows, remembered) = parted(&mut lb);
        let expected = if holds { 3 } else { 1 };
        assert_eq!((flows[0].backend, remembered[0].backend, remembered.len()), (expected, expected, 1));
        // The flow was news of the client: from then on it holds anew.
        lb.receive(&hosts.to_vip().tcp(2, 80).syn());
        assert_eq!(backends(&parted(&mut lb).0), [expected].into());
    }
}

#[test]
fn what_is_remembered_of_a_client_is_no_connection() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(&hosts, Index::Random));
        lb.receive(&hosts.to_vip().udp(1, 80));
        let (flows, _) = parted(&mut lb);
        let backend = flows[0].backend;
        assert_eq!(lb.active(backend), 1);
        assert_eq!(lb.rows().loads[usize::from(backend)].active.load(), 1);
    }
}

#[test]
fn without_room_the_strategy_alone_decides() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(&hosts, Index::Flow).flow_buckets(1));
        for port in 100..104 {
            lb.plant((hosts.stranger, port), 2, 4, State::DATAGRAM, 0);
        }
        let run = lb.receive(&hosts.to_vip().tcp(1, 80).syn());
        run.assert_counted(Reason::RequestForwarded, [Event::AffinityUntracked, Event::FlowUntracked]);
        assert_eq!(parted(&mut lb).1, []);
    }
}

/// Its replies are recognised by the hash: where affinity had sent it elsewhere they would pass untranslated.
#[test]
fn a_flow_that_cannot_be_remembered_goes_by_its_hash_and_its_replies_come_back() {
    for hosts in FAMILIES {
        let mut lb = balancer!(lab(&hosts, Index::Flow).flow_buckets(64));
        lb.plant((hosts.client, 0), 2 | AFFINITY_OF, 5, State::AFFINITY, 0);
        let (occupied, _) = lb.choices((hosts.client, 0), 2 | AFFINITY_OF);
        let mut by_hash = BTreeSet::new();
        for port in 1000..1010 {
            let (home, second) = lb.choices((hosts.client, port), 2);
            if [home, second].contains(&occupied) {
                continue;
            }
            fill(&mut lb, &hosts, [home, second]);
            let run = lb.receive(&hosts.to_vip().udp(port, 80));
            run.assert_counted(Reason::RequestForwarded, [Event::FlowUntracked]);
            let is_answered = |&backend: &usize| {
                let reply = hosts.from_backend().from(hosts.backends[backend]).udp(8080, port);
                lb.receive(&reply).counters.contains_key(Reason::ReplyForwarded.name())
            };
            let answered: Vec<_> = (0..3).filter(is_answered).collect();
            assert_eq!(answered.len(), 1, "{answered:?}");
            by_hash.extend(answered);
        }
        assert!(by_hash.len() > 1, "affinity had no part in it: {by_hash:?}");
    }
}

/// Fills buckets with flows that stay.
fn fill(lb: &mut Balancer, hosts: &Hosts, buckets: [u32; 2]) {
    for bucket in buckets {
        let fits = |lb: &mut Balancer, port| lb.choices((hosts.stranger, port), 2).0 == bucket;
        let known: BTreeSet<_> = lb.flows().iter().map(|flow| flow.client).collect();
        let stranger: IpAddr = hosts.stranger.parse().expect("an address");
        let there = known.iter().filter(|client| client.0 == stranger).map(|client| client.1);
        let there: BTreeSet<_> = there.filter(|&port| fits(lb, port)).collect();
        let more = (1..u16::MAX).filter(|port| !there.contains(port) && fits(lb, *port));
        let more: Vec<_> = more.take(4 - there.len()).collect();
        for port in more {
            lb.plant((hosts.stranger, port), 2, 4, State::DATAGRAM, 0);
        }
    }
}

#[test]
fn the_middle_of_an_unknown_stream_goes_by_its_hash() {
    for hosts in FAMILIES {
        let plain = |service: Service| {
            (0..3).map(|at| Backend::at(hosts.backends[at], 8080)).fold(service, Service::backend)
        };
        let without = Lab::new().flow_buckets(4096).service(plain(Service::tcp(hosts.vip, 80)));
        // One after the other: there is one balancer at a time.
        let [expected, found] = [without, lab(&hosts, Index::Flow)].map(|lab| {
            let mut lb = crate::balancer(&lab)?;
            for port in 1..=20 {
                lb.receive(&hosts.to_vip().tcp(port, 80).ack(1));
            }
            Some(lb.flows())
        });
        assert_eq!(found, expected);
        assert!(found.is_none_or(|flows| backends(&flows).len() > 1));
    }
}
