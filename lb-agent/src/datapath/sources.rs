//! The ports of source addresses: given back when their flows end, and counted.
//!
//! The data plane takes ports and never gives one back: whoever ends a flow would have to know what port it had. A port
//! whose flow is gone is nobody's all the same, since a packet is translated only where flow and port name each other;
//! the sweep finds such ports, and where it does not run, the data plane does when it has no other.

use lb_common::flow::{Data, Entry, Key};
use lb_common::port::{Life, Owner, PortState};
use lb_ebpf::family::{Ipv4, Ipv6};
use lb_ebpf::nat;
use lb_ebpf::tables::Tables;

use super::SourceAddress;
use super::arrays::Arrays;
use super::view::View;

/// Lets the port of a flow that has just been ended rest, from the flow's last packet on.
pub(super) fn release<K: Key>(arrays: &Arrays, entry: &Entry<K>, data: Data, now: u64) {
    let (client, port, service) = K::read(&entry.key);
    let view = View { arrays, jiffies: 0 };
    let is_full_nat = view.service(service).is_some_and(nat::is_for);
    let owner = Owner { client, port, service };
    let place = match (is_full_nat, client.is_v4()) {
        (false, _) => None,
        (true, true) => nat::place_of::<Ipv4, _>(&view, &owner, data),
        (true, false) => nat::place_of::<Ipv6, _>(&view, &owner, data),
    };
    if let Some(row) = place.and_then(|place| view.port(place.row)) {
        let state = PortState(row.state.load());
        if state.is(Life::Used) && row.is_of(&owner) {
            row.state.replace(state.0, state.resting(now.wrapping_sub(data.age(now))).0);
        }
    }
}

/// Lets ports rest whose flows are gone, and has rested ones forget it. Names the next hops of those in use.
pub(super) fn sweep(arrays: &Arrays, now: u64, mut next_hop: impl FnMut(u16)) {
    for (number, port) in (0..).zip(arrays.ports.iter()) {
        let state = PortState(port.state.load());
        if state.is(Life::Used) {
            // Twice: a look-up misses a flow that a CPU is just giving another backend.
            if is_held(arrays, number) || is_held(arrays, number) {
                next_hop(state.next_hop());
            } else {
                port.state.replace(state.0, state.resting(now).0);
            }
        } else if state.is(Life::Resting) && state.is_free(now) {
            port.state.replace(state.0, state.free().0);
        }
    }
}

fn is_held(arrays: &Arrays, row: u32) -> bool {
    let view = View { arrays, jiffies: 0 };
    let settings = arrays.settings();
    match arrays.ports[row as usize].owner().client.is_v4() {
        true => nat::holder::<Ipv4, _>(&view, settings, row).is_some(),
        false => nat::holder::<Ipv6, _>(&view, settings, row).is_some(),
    }
}

/// The source addresses in use, and how much of each.
pub(super) fn use_of_sources(arrays: &Arrays) -> Vec<SourceAddress> {
    let ports = arrays.sizes.pool_ports() as usize;
    let used = |rows: &[lb_common::port::Port], life| {
        rows.iter().filter(|port| PortState(port.state.load()).is(life)).count() as u64
    };
    let rows = arrays.pool_addresses.iter().zip(arrays.ports.chunks(ports));
    rows.filter(|(row, _)| row.live.load() == 1)
        .map(|(row, rows)| SourceAddress {
            address: row.address.into(),
            ports: ports as u64,
            used: used(rows, Life::Used),
            resting: used(rows, Life::Resting),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use lb_common::flow::{Key4, State};
    use lb_common::port::{Pool, PoolAddress, REST};
    use lb_common::service::{Options, Service};
    use lb_common::{Address, Be16};
    use lb_ebpf::family::Family as _;

    use super::*;
    use crate::datapath::arrays::Sizes;
    use crate::datapath::sweep::Sweep;

    const NOW: u64 = 100_000;

    fn client() -> Owner {
        Owner { client: Address::from(IpAddr::from([10, 1, 0, 7])), port: Be16::new(40_000), service: 1 }
    }

    /// A service that goes by the second source address, and a flow that has its port with code 3.
    fn arrays() -> (Arrays, usize) {
        let mut arrays = Arrays::private(Sizes::TEST);
        let address = IpAddr::from([10, 0, 1, 5]).into();
        arrays.pool_addresses.write(1, PoolAddress { address, live: 1.into(), reserved: 0 });
        let service = Service {
            options: Options::FULL_NAT.0.into(),
            pool: Pool::new([1; 16]),
            port: Be16::new(80),
            live: 1,
            ..Service::default()
        };
        arrays.services.write(1, service);
        let owner = client();
        let key = Key4::new(Ipv4::narrow(&owner.client), owner.port, owner.service);
        let settings = arrays.settings();
        let bucket = lb_common::hash::scale(key.hash(settings.flow_key), settings.flow4_buckets);
        let entry = &arrays.flows4[bucket as usize].ways[0];
        let data = Data::succeeding(Data(0), State::DATAGRAM, 5, NOW).by_next_hop(3);
        key.write(&entry.key);
        entry.data.store(data.0);
        // One block of ten ports: code 3 is the fourth of the address's ports, whatever the client.
        let row = 10 + 3;
        assert!(arrays.ports[row].take(PortState(0), &owner));
        (arrays, bucket as usize)
    }

    fn state(arrays: &Arrays) -> PortState {
        PortState(arrays.ports[13].state.load())
    }

    #[test]
    fn a_port_whose_flow_lives_stays() {
        let (mut arrays, _) = arrays();
        Sweep::default().step(&mut arrays, NOW);
        assert!(state(&arrays).is(Life::Used));
        let expected = SourceAddress { address: [10, 0, 1, 5].into(), ports: 10, used: 1, resting: 0 };
        assert_eq!(use_of_sources(&arrays), [expected]);
    }

    #[test]
    fn an_idle_flow_s_port_rests_from_its_last_packet_on() {
        let (mut arrays, _) = arrays();
        Sweep::default().step(&mut arrays, NOW + 130);
        assert!(state(&arrays).is(Life::Free), "130 ticks are more than it has to rest");
        let (mut arrays, bucket) = self::arrays();
        let entry = &arrays.flows4[bucket].ways[0].data;
        entry.store(Data(entry.load()).in_state(State::HALF_OPEN).0);
        Sweep::default().step(&mut arrays, NOW + 40);
        assert!(state(&arrays).is(Life::Resting));
        assert_eq!(state(&arrays).rested(NOW + 40), 40);
        assert_eq!((use_of_sources(&arrays)[0].used, use_of_sources(&arrays)[0].resting), (0, 1));
        assert!(!state(&arrays).is_free(NOW + REST - 1));
        assert!(state(&arrays).is_free(NOW + REST));
    }

    #[test]
    fn a_port_whose_flow_is_gone_rests_from_now_on() {
        let (mut arrays, bucket) = arrays();
        arrays.flows4[bucket].ways[0].data.store(0);
        Sweep::default().step(&mut arrays, NOW + 10);
        assert!(state(&arrays).is(Life::Resting));
        assert_eq!(state(&arrays).rested(NOW + 10), 0);
        Sweep::default().step(&mut arrays, NOW + 10 + REST);
        assert!(state(&arrays).is(Life::Free));
    }

    #[test]
    fn a_port_that_its_flow_does_not_name_rests() {
        let (mut arrays, bucket) = arrays();
        let entry = &arrays.flows4[bucket].ways[0].data;
        entry.store(Data(entry.load()).by_next_hop(4).0);
        Sweep::default().step(&mut arrays, NOW);
        assert!(state(&arrays).is(Life::Resting));
    }
}
