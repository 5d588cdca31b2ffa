//! The flow table, read and written by other ways than packets.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use lb_common::flow::{Bucket, Data, Entry, Key, Key4, Key6, State};
use lb_common::hash::{scale, second};
use lb_common::{Address, Be16};
use lb_ebpf::family::{Family as _, Ipv4, Ipv6};
use lb_ebpf::flows::{self, Insertion};

use super::{Balancer, Side};
use crate::lab;

/// An entry of the flow table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// The client.
    pub client: (IpAddr, u16),
    /// The service's identifier.
    pub service: u16,
    /// The backend's identifier.
    pub backend: u16,
    /// The state's stable name.
    pub state: &'static str,
}

impl Balancer {
    /// The flow table, in a fixed order.
    pub fn flows(&mut self) -> Vec<Flow> {
        let rows = self.rows();
        let mut flows = Vec::new();
        let used = [rows.settings.flow4_buckets as usize, rows.settings.flow6_buckets as usize];
        rows.flows4[..used[0]].iter().for_each(|bucket| entries(bucket, &mut flows));
        rows.flows6[..used[1]].iter().for_each(|bucket| entries(bucket, &mut flows));
        flows.sort();
        flows
    }

    /// Enters a flow that was last seen so many ticks (of about a second) ago.
    ///
    /// # Panics
    /// When its bucket is full.
    pub fn plant(&mut self, client: (&str, u16), service: u16, backend: u16, state: State, idle: u64) {
        let now = self.tick();
        let address = lab::address(client.0);
        let port = Be16::new(client.1);
        let rows = self.rows();
        if address.is_v4() {
            let key = Key4::new(Ipv4::narrow(&address), port, service);
            let hash = key.hash(rows.settings.flow_key);
            let bucket = &rows.flows4[scale(hash, rows.settings.flow4_buckets) as usize];
            plant(bucket, key, state, backend, now.wrapping_sub(idle));
        } else {
            let key = Key6::new(&Ipv6::narrow(&address), port, service);
            let hash = key.hash(rows.settings.flow_key);
            let bucket = &rows.flows6[scale(hash, rows.settings.flow6_buckets) as usize];
            plant(bucket, key, state, backend, now.wrapping_sub(idle));
        }
    }

    /// The time, in the ticks that flows are stamped with.
    pub fn tick(&mut self) -> u64 {
        let jiffies = self.jiffies();
        self.rows().settings.tick(jiffies)
    }

    /// The clock.
    ///
    /// # Panics
    /// When the kernel does not run the program that tells it.
    pub fn jiffies(&self) -> u64 {
        match &self.side {
            Side::Host(tables) => tables.jiffies.get(),
            Side::Kernel(kernel) => kernel.jiffies().expect("the clock program"),
        }
    }

    /// Lets time pass on the clock by which handshakes are measured.
    pub fn pass_time(&mut self, time: Duration) {
        match &self.side {
            Side::Host(tables) => tables.nanoseconds.set(tables.nanoseconds.get() + time.as_nanos() as u64),
            // The kernel's own, which nobody can turn: there is nothing to be waited for but itself.
            Side::Kernel(_) => {
                let since = Instant::now();
                while since.elapsed() < time {
                    std::hint::spin_loop();
                }
            }
        }
    }

    /// The buckets of a client's flow: its home, and its second choice.
    pub fn choices(&mut self, client: (&str, u16), service: u16) -> (u32, u32) {
        let address = lab::address(client.0);
        let port = Be16::new(client.1);
        let settings = &self.rows().settings;
        let (hash, buckets) = if address.is_v4() {
            let key = Key4::new(Ipv4::narrow(&address), port, service);
            (key.hash(settings.flow_key), settings.flow4_buckets)
        } else {
            (Key6::new(&address, port, service).hash(settings.flow_key), settings.flow6_buckets)
        };
        (scale(hash, buckets), scale(second(hash), buckets))
    }

    /// Makes a flow one that was last seen so many ticks ago.
    pub fn age(&mut self, client: (&str, u16), service: u16, idle: u64) {
        let last = self.tick().wrapping_sub(idle);
        self.change(client, service, |data| data.stamped(last));
    }

    /// Takes a flow's entry away, as an insertion or the agent does.
    pub fn forget(&mut self, client: (&str, u16), service: u16) {
        self.change(client, service, Data::freed);
    }

    fn change(&mut self, client: (&str, u16), service: u16, change: impl Fn(Data) -> Data) {
        let wanted = (lab::address(client.0), Be16::new(client.1), service);
        let rows = self.rows();
        let changed = rows.flows4.iter().map(|bucket| change_entry(bucket, wanted, &change)).sum::<usize>()
            + rows.flows6.iter().map(|bucket| change_entry(bucket, wanted, &change)).sum::<usize>();
        assert_eq!(changed, 1, "one such flow");
    }

    /// Client ports whose flows to `service` fall into the bucket of another flow of that client: port and service.
    pub fn ports_beside(&mut self, client: &str, flow: (u16, u16), service: u16) -> Vec<u16> {
        let (wanted, _) = self.choices((client, flow.0), flow.1);
        (1..u16::MAX)
            .filter(|&port| (port, service) != flow && self.choices((client, port), service).0 == wanted)
            .collect()
    }
}

fn entries<K: Key>(bucket: &Bucket<K>, flows: &mut Vec<Flow>) {
    for entry in &bucket.ways {
        let data = Data(entry.data.load());
        if data.state().is_live() {
            let (address, port, service) = K::read(&entry.key);
            let client = (IpAddr::from(address), port.get());
            flows.push(Flow { client, service, backend: data.backend(), state: data.state().name() });
        }
    }
}

/// Changes the live entries that have this key; how many.
fn change_entry<K: Key>(
    bucket: &Bucket<K>,
    wanted: (Address, Be16, u16),
    change: impl Fn(Data) -> Data,
) -> usize {
    let is_wanted =
        |entry: &&Entry<K>| Data(entry.data.load()).state().is_live() && K::read(&entry.key) == wanted;
    bucket
        .ways
        .iter()
        .filter(is_wanted)
        .map(|entry| entry.data.store(change(Data(entry.data.load())).0))
        .count()
}

fn plant<K: Key>(bucket: &Bucket<K>, key: K, state: State, backend: u16, stamp: u64) {
    let fresh = Data::fresh(state, backend, stamp);
    let insertion = flows::insert_into(bucket, bucket, key, fresh, stamp, |_| panic!("the bucket is full"));
    assert_eq!(insertion, Insertion::Created, "the flow is there, or the bucket is full");
}
