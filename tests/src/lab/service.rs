//! A service and its backends, as a case describes them.

use std::net::IpAddr;

use lb_common::address::{Address, Be16, Protocol};
use lb_common::limit::Limit;
use lb_common::next_hop::{Hop, Tag};
use lb_common::prefix::{ALLOW, DENY};
use lb_common::service::{Index, OnNoBackend, Options};
use lb_common::slot::Owners;

use super::fill::JIFFIES_PER_SECOND;
use super::hosts::{LAN, LAN_INDEX, backend_mac};

/// The generation of every service's prefix lists: any.
pub(super) const LIST: u16 = 0xa55a;

/// A service.
#[derive(Clone, Debug)]
pub struct Service {
    pub(super) vip: Address,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    pub(super) on_no_backend: OnNoBackend,
    pub(super) options: Options,
    pub(super) limits: [Limit; 2],
    pub(super) prefixes: Vec<(Address, u32, u32)>,
    pub(super) backends: Vec<Backend>,
    pub(super) slots: Option<Vec<u16>>,
    pub(super) index: Index,
    pub(super) pool: Vec<Address>,
}

impl Service {
    fn new(vip: &str, port: u16, protocol: Protocol) -> Self {
        let (on_no_backend, options) = (OnNoBackend::Reset, Options::default().with_list(LIST));
        let (limits, prefixes) = (Default::default(), Vec::new());
        Self {
            vip: address(vip),
            port,
            protocol,
            on_no_backend,
            options,
            limits,
            prefixes,
            backends: Vec::new(),
            slots: None,
            index: Index::Flow,
            pool: Vec::new(),
        }
    }

    /// A TCP service.
    #[must_use]
    pub fn tcp(vip: &str, port: u16) -> Self {
        Self::new(vip, port, Protocol::TCP)
    }

    /// A UDP service.
    #[must_use]
    pub fn udp(vip: &str, port: u16) -> Self {
        Self::new(vip, port, Protocol::UDP)
    }

    /// Whose slots are found so.
    #[must_use]
    pub const fn by(mut self, index: Index) -> Self {
        self.index = index;
        self
    }

    /// With a further backend.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backends.push(backend);
        self
    }

    /// Flows that their backend refuses or does not answer are given another.
    #[must_use]
    pub const fn retrying(mut self) -> Self {
        self.options = self.options.with(Options::RETRY);
        self
    }

    /// New flows are dropped, not refused, while there is no backend.
    #[must_use]
    pub const fn silent(mut self) -> Self {
        self.on_no_backend = OnNoBackend::Drop;
        self
    }

    /// Flows whose backend is gone are ended, not given another.
    #[must_use]
    pub const fn resetting(mut self) -> Self {
        self.options = self.options.with(Options::RESET_ON_BACKEND_DOWN);
        self
    }

    /// A client's flows follow those before them, within so many ticks.
    #[must_use]
    pub const fn sticky(mut self, ticks: u64) -> Self {
        self.options = self.options.with_affinity(ticks);
        self
    }

    /// Flows are tracked by exception, and the slots belong to these backends, by their numbers within the service.
    #[must_use]
    pub fn by_exception(mut self, owners: &[Owners]) -> Self {
        self.options = self.options.with(Options::EXCEPTIONS);
        self.slots(&owners.iter().flat_map(|owners| owners.to_elements()).collect::<Vec<_>>())
    }

    /// Packets go to the backends from these addresses.
    #[must_use]
    pub fn full_nat(mut self, pool: &[&str]) -> Self {
        self.options = self.options.with(Options::FULL_NAT);
        self.pool = pool.iter().map(|text| address(text)).collect();
        self
    }

    /// Takes so many new flows at once, and hardly any more during a test.
    #[must_use]
    pub const fn new_flows(mut self, burst: u32) -> Self {
        self.options = self.options.with(Options::LIMIT_SERVICE);
        self.limits[0] = Limit::new(1, burst, 0, JIFFIES_PER_SECOND);
        self
    }

    /// The same of each source, as long as that many bits of its address.
    #[must_use]
    pub fn new_flows_of_a_source(mut self, burst: u32, prefix: u8) -> Self {
        self.options = self.options.with(Options::LIMIT_SOURCE);
        self.limits[1] = Limit::new(1, burst, self.bits(prefix), JIFFIES_PER_SECOND);
        self
    }

    /// Lets nobody in but clients with this prefix, and others that are allowed.
    #[must_use]
    pub fn allow(mut self, network: &str, prefix: u8) -> Self {
        self.options = self.options.with(Options::DENY_UNLISTED);
        self.list(network, prefix, ALLOW)
    }

    /// Turns clients with this prefix away.
    #[must_use]
    pub fn deny(self, network: &str, prefix: u8) -> Self {
        self.list(network, prefix, DENY)
    }

    fn list(mut self, network: &str, prefix: u8, verdict: u32) -> Self {
        self.options = self.options.with(Options::PREFIX_LISTS);
        let bits = self.bits(prefix);
        self.prefixes.push((address(network), bits.into(), verdict));
        self
    }

    /// A prefix's length in the 128 bits of a row's address.
    const fn bits(&self, prefix: u8) -> u8 {
        if self.vip.is_v4() { 96 + prefix } else { prefix }
    }

    /// With these slots, right or wrong, instead of one for each backend that serves.
    #[must_use]
    pub fn slots(mut self, slots: &[u16]) -> Self {
        self.slots = Some(slots.to_vec());
        self
    }
}

/// A backend.
#[derive(Clone, Debug)]
pub struct Backend {
    pub(super) address: Address,
    pub(super) port: u16,
    pub(super) serving: bool,
    pub(super) draining: bool,
    pub(super) way: Way,
}

/// What a backend's row knows of the way to it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    /// A next hop that stays fresh.
    Fresh(Hop),
    /// A next hop that was confirmed long ago.
    Stale(Hop),
    /// Nothing.
    Unknown,
}

impl Backend {
    /// A backend on the backends' link, whose neighbour is known and stays so.
    #[must_use]
    pub fn at(address: &str, port: u16) -> Self {
        let number = address.rsplit(['.', ':']).next().and_then(|digits| digits.parse::<usize>().ok());
        let hop = lan_hop(number.unwrap_or(1) - 1);
        Self { address: self::address(address), port, serving: true, draining: false, way: Way::Fresh(hop) }
    }

    /// One that takes no traffic any more.
    #[must_use]
    pub const fn dead(mut self) -> Self {
        self.serving = false;
        self
    }

    /// One that keeps its flows and takes no new ones.
    #[must_use]
    pub const fn draining(mut self) -> Self {
        self.draining = true;
        self
    }

    /// By another next hop.
    #[must_use]
    pub const fn by(mut self, hop: Hop) -> Self {
        self.way = Way::Fresh(hop);
        self
    }

    /// By a next hop that has to be confirmed.
    #[must_use]
    pub const fn by_stale(mut self, hop: Hop) -> Self {
        self.way = Way::Stale(hop);
        self
    }

    /// The kernel has to be asked for the way.
    #[must_use]
    pub const fn unresolved(mut self) -> Self {
        self.way = Way::Unknown;
        self
    }
}

/// The next hop of a backend on the backends' link.
#[must_use]
pub const fn lan_hop(index: usize) -> Hop {
    Hop {
        ifindex: LAN_INDEX,
        mtu: 1500,
        tag_count: 0,
        destination: backend_mac(index).0,
        source: LAN.0,
        tags: [Tag { protocol: Be16::new(0), control: Be16::new(0) }; 2],
    }
}

/// Puts tags on a hop.
#[must_use]
pub const fn with_tags(hop: Hop, tags: &[(u16, u16)]) -> Hop {
    let mut hop = hop;
    let mut at = 0;
    while at < tags.len() {
        hop.tags[at] = Tag { protocol: Be16::new(tags[at].0), control: Be16::new(tags[at].1) };
        at += 1;
    }
    hop.tag_count = tags.len() as u8;
    hop
}

pub(crate) fn address(text: &str) -> Address {
    text.parse::<IpAddr>().expect("an address").into()
}
