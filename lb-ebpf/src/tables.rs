//! What the pipeline reads and writes besides the frame: the maps, the clock, the kernel's routing table.

use lb_common::Address;
use lb_common::atomic::Word;
use lb_common::backend::{Backend, Load};
use lb_common::counters::{IcmpBudget, Outcomes, Traffic};
use lb_common::directory;
use lb_common::flow::{Bucket4, Bucket6};
use lb_common::fragment::{FragmentKey, Ports};
use lb_common::latency::ConnectTimes;
use lb_common::limit::SourceLine;
use lb_common::next_hop::{Hop, NextHop};
use lb_common::port::{PoolAddress, Port};
use lb_common::prefix::PrefixKey;
use lb_common::service::{Service, ServiceState};
use lb_common::settings::Settings;
use lb_common::slot::SlotLine;
use lb_common::syn::SynRow;

use crate::family::{Family, Ipv4, Ipv6};
use crate::open::{Opening, open, reopen};
use crate::{affinity, clash, flood, retry};

/// The tables of one balancer, as one CPU sees them.
///
/// Three implementations: the BPF maps in the kernel; memory on the host, for tests; the same maps through
/// shared memory in the agent, for `explain`. Rows that change under the reader are made of shared words.
/// A row that is `None` is out of range, which only contradictory tables can cause.
pub trait Tables: Sized {
    /// The settings.
    fn settings(&self) -> &Settings;
    /// A bucket of the directory, both halves counted through.
    fn directory(&self, bucket: u32) -> Option<&directory::Bucket>;
    /// A service by its identifier.
    fn service(&self, id: u16) -> Option<&Service>;
    /// A backend by its identifier.
    fn backend(&self, id: u16) -> Option<&Backend>;
    /// What is kept for a service.
    fn service_state(&self, id: u16) -> Option<&ServiceState>;
    /// What is kept for a backend.
    fn load(&self, backend: u16) -> Option<&Load>;
    /// A line of the slot array.
    fn slots(&self, line: u32) -> Option<&SlotLine>;
    /// A bucket of IPv4 flows.
    fn flows4(&self, bucket: u32) -> Option<&Bucket4>;
    /// A bucket of IPv6 flows.
    fn flows6(&self, bucket: u32) -> Option<&Bucket6>;
    /// The word that remembers the next hop of clients with this hash.
    fn client_hop(&self, hash: u32) -> Option<&Word>;
    /// A next hop.
    fn next_hop(&self, id: u16) -> Option<&NextHop>;

    /// An address of the source pools.
    fn pool_address(&self, id: u8) -> Option<&PoolAddress>;
    /// A port of the source pools.
    fn port(&self, row: u32) -> Option<&Port>;

    /// Picks the backend of an IPv4 flow, and remembers it: [`open`] or [`reopen`], which the kernel has as functions of
    /// their own.
    #[inline(always)]
    fn open4(&self, opening: &Opening<Ipv4>) -> u64 {
        opened(self, opening)
    }
    /// The same for an IPv6 flow.
    #[inline(always)]
    fn open6(&self, opening: &Opening<Ipv6>) -> u64 {
        opened(self, opening)
    }

    /// This CPU's outcomes.
    fn outcomes(&self) -> &Outcomes;
    /// This CPU's traffic of a backend.
    fn traffic(&self, backend: u16) -> Option<&Traffic>;
    /// This CPU's connect times of a backend.
    fn connect_times(&self, backend: u16) -> Option<&ConnectTimes>;
    /// This CPU's budget for ICMP errors.
    fn icmp_budget(&self) -> Option<&IcmpBudget>;

    /// The row that the SYN of flows with this hash is kept in.
    fn syn(&self, hash: u32) -> Option<&SynRow>;

    /// A line of the sources whose new flows are limited, by any 32 bits of hash.
    fn source_line(&self, hash: u32) -> Option<&SourceLine>;
    /// What the longest prefix in a service's lists says of a client.
    fn listed(&self, key: &PrefixKey) -> Option<u32>;

    /// [`clash::settle`] for IPv4. The kernel's is a function that is verified by itself.
    fn settle4(&self, opening: &Opening<Ipv4>, chosen: u16) -> u16 {
        clash::settle(self, opening, chosen)
    }
    /// The same for IPv6.
    fn settle6(&self, opening: &Opening<Ipv6>, chosen: u16) -> u16 {
        clash::settle(self, opening, chosen)
    }
    /// [`affinity::prefer`] for IPv4. The kernel's is a function that is verified by itself.
    fn prefer4(&self, opening: &Opening<Ipv4>) -> u64 {
        affinity::prefer(self, opening)
    }
    /// The same for IPv6.
    fn prefer6(&self, opening: &Opening<Ipv6>) -> u64 {
        affinity::prefer(self, opening)
    }
    /// [`retry::next`] for IPv4. The kernel's is a function that is verified by itself.
    fn next4(&self, flow: &Opening<Ipv4>, excluded: u64) -> u16 {
        retry::next(self, flow, excluded)
    }
    /// The same for IPv6.
    fn next6(&self, flow: &Opening<Ipv6>, excluded: u64) -> u16 {
        retry::next(self, flow, excluded)
    }
    /// [`clash::candidate`]. The kernel's is a function that is verified by itself.
    fn candidate(&self, place: u64, at: u32) -> u64 {
        clash::candidate(self, place, at)
    }
    /// [`clash::is_taken`]. The kernel's is a function that is verified by itself.
    fn is_taken(&self, id: u16, home: u64, second: u64) -> bool {
        clash::is_taken(self, id, [home, second])
    }
    /// [`flood::refuses`], likewise.
    fn refuses(&self, service: u16, options: u64, client: Address) -> u32 {
        flood::refuses(self, service, options, client)
    }
    /// [`flood::allows`], likewise.
    fn allows(&self, service: u16, options: u64, client: Address) -> bool {
        flood::allows(self, service, options, client)
    }

    /// The ports of a datagram whose first fragment has passed.
    fn fragment(&self, key: &FragmentKey) -> Option<Ports>;
    /// Remembers a first fragment.
    fn remember_fragment(&self, key: &FragmentKey, ports: Ports);

    /// The same number, below 64, with its history forgotten: see [`crate::frame::Frame::forget`].
    #[inline(always)]
    fn forget(&self, number: usize) -> usize {
        number
    }

    /// The same number with its history forgotten, whatever it is.
    #[inline(always)]
    fn blur(&self, number: u64) -> u64 {
        number
    }

    /// The kernel's clock, in jiffies. Costs nothing to read; good for ages only.
    fn jiffies(&self) -> u64;
    /// The kernel's monotonic clock. Some 20 ns to read.
    fn nanoseconds(&self) -> u64;
    /// Asks the kernel's routing and neighbour tables. About 100 ns: for what is not cached.
    fn route(&self, query: &RouteQuery) -> Route;
}

/// Opens a flow, or opens it again.
fn opened<A: Family, T: Tables>(tables: &T, opening: &Opening<A>) -> u64 {
    if opening.facts.is_known() { reopen(tables, opening) } else { open(tables, opening) }
}

/// A question to the routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteQuery {
    /// Interface that the packet came in by.
    pub ingress: u32,
    /// Source of the packet as it will leave.
    pub source: Address,
    /// Destination as it will leave.
    pub destination: Address,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// That way.
    Hop(Hop),
    /// That way, but the neighbour's address is not known yet: the kernel can find it out.
    NeighbourUnknown,
    /// Not for XDP to follow (a local destination, an encapsulating route): the kernel can.
    Unfollowable,
    /// Nowhere: blackhole, unreachable, prohibit.
    None,
}
