//! The labs: client, balancer and backends, each a network namespace.
//!
//! ```text
//! two-armed    client eth0 ---- wan balancer lan ---- switch ==== eth0 backends
//!
//! one-armed    client eth0 ---- switch ==== eth0 backends
//!                                 |
//!                                eth0 balancer
//!
//! narrow path  client eth0 ---- wan balancer lan ---- near router --(small MTU)-- far router ---- switch ==== backends
//! ```
//!
//! The addresses are the same in all of them; see [`crate::address`]. Backends send everything that is not on their own
//! network to the balancer, as DNAT needs. The balancer gets addresses and routes but *no* sysctl: turning on
//! forwarding and what else a load balancer needs is the agent's task, and a lab that did it would hide its bugs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};

use crate::address::{self, Family};
use crate::netns::Namespace;
use crate::{interrupt, offload, residue, xdp_pass};

/// How the balancer is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Clients on `wan`, backends on `lan`.
    TwoArmed,
    /// Everyone on one segment, the balancer's only interface is `eth0`.
    OneArmed,
    /// As two-armed, but the backends are two routers away and the link between the routers has this MTU.
    NarrowPath {
        /// MTU of the link between the two routers; IPv6 allows no less than 1280.
        mtu: u16,
    },
}

/// A running lab; dropping it removes every namespace with all that is in it.
#[derive(Debug)]
pub struct Topology {
    /// Where load comes from.
    pub client: Namespace,
    /// Where the agent runs.
    pub balancer: Namespace,
    /// Where the servers run.
    pub backends: Vec<Host>,
    switch: Namespace,
    /// Programs on the ends that face the balancer, see [`xdp_pass`].
    links: Vec<OwnedFd>,
    /// The near and the far router of a narrow path.
    routers: Vec<Namespace>,
    shape: Shape,
}

/// A backend machine: a namespace with one interface `eth0`.
#[derive(Debug)]
pub struct Host {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name in answers and statistics: `b1`, `b2`, ...
    pub name: String,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

impl Topology {
    /// Builds a two-armed lab: the balancer's interfaces are `wan` and `lan`.
    ///
    /// # Errors
    /// Without root, or when the kernel lacks namespaces, veth or bridges.
    pub fn two_armed(backends: u8) -> Result<Self> {
        Self::build(Shape::TwoArmed, backends)
    }

    /// Builds a one-armed lab: the balancer's only interface is `eth0`.
    ///
    /// # Errors
    /// As [`Topology::two_armed`].
    pub fn one_armed(backends: u8) -> Result<Self> {
        Self::build(Shape::OneArmed, backends)
    }

    /// Builds a lab of the given shape.
    ///
    /// # Errors
    /// As [`Topology::two_armed`].
    pub fn build(shape: Shape, backends: u8) -> Result<Self> {
        static FIRST: Once = Once::new();
        ensure!(rustix::process::geteuid().is_root(), "making network namespaces needs root");
        interrupt::install();
        // A suite goes on to its next test after Ctrl-C: that one ends here.
        interrupt::check()?;
        FIRST.call_once(residue::sweep);

        let mut lab = Self {
            client: Namespace::create("client")?,
            balancer: Namespace::create("balancer")?,
            backends: Vec::new(),
            switch: Namespace::create("switch")?,
            links: Vec::new(),
            routers: Vec::new(),
            shape,
        };
        // Multicast snooping without a querier on the segment forgets who listens, and neighbour discovery with it.
        lab.switch.ip("link add bridge0 type bridge stp_state 0 mcast_snooping 0\nlink set bridge0 up")?;
        lab.connect_balancer()?;
        lab.address_client()?;
        for _ in 0..backends {
            lab.add_backend()?;
        }
        Ok(lab)
    }

    /// Plugs in one more backend machine and returns it.
    ///
    /// # Errors
    /// When the kernel refuses, or there are 200 already.
    pub fn add_backend(&mut self) -> Result<&Host> {
        let index = u8::try_from(self.backends.len())
            .ok()
            .filter(|&index| index < 200)
            .context("too many backends")?;
        let name = format!("b{}", index + 1);
        let (v4, v6) = (address::backend_v4(index), address::backend_v6(index));
        let namespace = Namespace::create(&name)?;
        self.plug(&namespace, "eth0", &name)?;
        namespace.ip(&format!(
            "addr add {v4}/24 dev eth0\n\
             addr add {v6}/64 dev eth0 nodad\n\
             route add default via {}\n\
             route add default via {}",
            address::BACK_V4,
            address::BACK_V6
        ))?;
        self.backends.push(Host { namespace, name, v4, v6 });
        self.backends.last().context("just added")
    }

    /// The balancer's interfaces, client side first: what the agent's `interfaces` setting names.
    #[must_use]
    pub fn balancer_interfaces(&self) -> &'static [&'static str] {
        match self.shape {
            Shape::TwoArmed | Shape::NarrowPath { .. } => &["wan", "lan"],
            Shape::OneArmed => &["eth0"],
        }
    }

    /// How the balancer is connected.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Lets the balancer's kernel route between client and backends: for tests of the lab itself, without an agent.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forward_without_agent(&self) -> Result<()> {
        allow_forwarding(&self.balancer)
    }

    /// Pulls the backend's plug: it stays up, with its connections open, but nothing comes through any more.
    ///
    /// # Errors
    /// When there is no such backend.
    pub fn unplug(&self, backend: &Host) -> Result<()> {
        self.switch.ip(&format!("link set {} down", backend.name))
    }

    /// Undoes [`Topology::unplug`].
    ///
    /// # Errors
    /// When there is no such backend.
    pub fn replug(&self, backend: &Host) -> Result<()> {
        self.switch.ip(&format!("link set {} up", backend.name))
    }

    /// Takes from the wire ends that face the balancer what makes the kernel accept XDP frames for them: a NIC whose
    /// driver does not transmit for XDP. What the kernel itself sends still passes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn refuse_xdp_frames(&mut self) -> Result<()> {
        // A veth end with a program keeps its GRO.
        self.links.clear();
        for (namespace, interface) in self.facing_ends() {
            offload::turn_gro_off(namespace, interface)?;
        }
        Ok(())
    }

    /// Makes the wire towards the backends carry less than the balancer's interface is told: frames above that are lost
    /// behind the verdict.
    ///
    /// # Errors
    /// In a lab with a narrow path, or when the kernel refuses.
    pub fn narrow_facing_end(&self, mtu: u16) -> Result<()> {
        ensure!(self.routers.is_empty(), "the path is narrow already");
        self.switch.ip(&format!("link set balancer mtu {mtu}"))
    }

    /// The other ends of the balancer's wires, client side first.
    fn facing_ends(&self) -> Vec<(&Namespace, &'static str)> {
        match (self.shape, self.routers.first()) {
            (Shape::OneArmed, _) => vec![(&self.switch, "balancer")],
            (_, Some(near)) => vec![(&self.client, "eth0"), (near, "front")],
            (_, None) => vec![(&self.client, "eth0"), (&self.switch, "balancer")],
        }
    }

    /// Every end host (those whose stacks send and receive the balanced traffic), by name.
    pub fn end_hosts(&self) -> impl Iterator<Item = (&str, &Namespace)> {
        let backends = self.backends.iter().map(|host| (host.name.as_str(), &host.namespace));
        std::iter::once(("client", &self.client)).chain(backends)
    }

    fn connect_balancer(&mut self) -> Result<()> {
        match self.shape {
            Shape::OneArmed => {
                self.plug(&self.client, "eth0", "client")?;
                self.plug(&self.balancer, "eth0", "balancer")?;
                self.balancer.ip(&(front_addresses("eth0") + &back_addresses("eth0")))?;
            }
            Shape::TwoArmed => {
                cable((&self.client, "eth0"), (&self.balancer, "wan"))?;
                self.plug(&self.balancer, "lan", "balancer")?;
                self.balancer.ip(&(front_addresses("wan") + &back_addresses("lan")))?;
            }
            Shape::NarrowPath { mtu } => {
                cable((&self.client, "eth0"), (&self.balancer, "wan"))?;
                self.connect_routers(mtu)?;
            }
        }
        self.links = self
            .facing_ends()
            .into_iter()
            .map(|(namespace, interface)| xdp_pass::attach(namespace, interface))
            .collect::<Result<_>>()?;
        Ok(())
    }

    /// Two routers, because one with unequal MTUs would share a segment with the backends: they would either know the
    /// small MTU and announce it as their MSS, so that no packet is ever too big, or send what the router must lose.
    fn connect_routers(&mut self, mtu: u16) -> Result<()> {
        let (near, far) = (Namespace::create("near")?, Namespace::create("far")?);
        cable((&self.balancer, "lan"), (&near, "front"))?;
        cable((&near, "back"), (&far, "front"))?;
        self.plug(&far, "back", "far")?;
        self.balancer.ip(&format!(
            "{}addr add 10.0.2.1/24 dev lan\naddr add fd00:c::1/64 dev lan nodad\n\
             route add 10.0.1.0/24 via 10.0.2.2\nroute add fd00:b::/64 via fd00:c::2",
            front_addresses("wan")
        ))?;
        near.ip(&format!(
            "link set back mtu {mtu}\n\
             addr add 10.0.2.2/24 dev front\naddr add fd00:c::2/64 dev front nodad\n\
             addr add 10.0.3.1/24 dev back\naddr add fd00:d::1/64 dev back nodad\n\
             route add default via 10.0.2.1\nroute add default via fd00:c::1\n\
             route add 10.0.1.0/24 via 10.0.3.2\nroute add fd00:b::/64 via fd00:d::2"
        ))?;
        far.ip(&format!(
            "link set front mtu {mtu}\n\
             addr add 10.0.3.2/24 dev front\naddr add fd00:d::2/64 dev front nodad\n{}\
             route add default via 10.0.3.1\nroute add default via fd00:d::1",
            back_addresses("back")
        ))?;
        for router in [&near, &far] {
            allow_forwarding(router)?;
        }
        self.routers = vec![near, far];
        Ok(())
    }

    fn address_client(&self) -> Result<()> {
        // The default route is for tests that reach backends directly; the VIP is on the client's own network.
        self.client.ip(&format!(
            "addr add {}/24 dev eth0\n\
             addr add {}/64 dev eth0 nodad\n\
             route add default via {}\n\
             route add default via {}",
            address::CLIENT_V4,
            address::CLIENT_V6,
            address::FRONT_V4,
            address::FRONT_V6
        ))?;
        // A new connection per request uses up ports: take what there is, and those in TIME_WAIT after a second.
        self.client.sysctl("net.ipv4.ip_local_port_range", "10000 65535")?;
        self.client.sysctl("net.ipv4.tcp_tw_reuse", "1")
    }

    /// Connects an interface of `host` to the switch; the port on the switch is named `port`.
    fn plug(&self, host: &Namespace, interface: &str, port: &str) -> Result<()> {
        cable((host, interface), (&self.switch, port))?;
        self.switch.ip(&format!("link set {port} master bridge0"))
    }
}

impl Host {
    /// The address of one family.
    #[must_use]
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    /// `ADDRESS:PORT`, with brackets for IPv6, as the command line takes it.
    #[must_use]
    pub fn endpoint(&self, family: Family, port: u16) -> String {
        std::net::SocketAddr::new(self.address(family), port).to_string()
    }
}

/// Makes a veth pair between two namespaces with both ends up and behaving like wires.
pub(crate) fn cable(left: (&Namespace, &str), right: (&Namespace, &str)) -> Result<()> {
    let [one, other] = [unique_index(), unique_index()];
    left.0.ip(&format!(
        "link add {} index {one} type veth peer name {} index {other} netns {}",
        left.1,
        right.1,
        right.0.name()
    ))?;
    for (namespace, interface) in [left, right] {
        offload::behave_like_a_wire(namespace, interface)?;
    }
    // Only now: whether an end can be redirected to is settled when it is brought up, by what its *peer* has set by
    // then (kernel 6.3 and on; the redirect fails with EOPNOTSUPP, which only the tracepoint xdp_redirect_err shows).
    for (namespace, interface) in [left, right] {
        namespace.ip(&format!("link set {interface} up"))?;
    }
    Ok(())
}

/// An interface index that no other lab on this machine has: the XDP tracepoints tell interfaces by their index alone,
/// whichever namespace they are in.
fn unique_index() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Process identifiers have 22 bits at most, indices 31.
    std::process::id() << 9 | NEXT.fetch_add(1, Ordering::Relaxed) & 0x1ff
}

fn front_addresses(interface: &str) -> String {
    addresses(interface, address::FRONT_V4, address::FRONT_V6)
}

fn back_addresses(interface: &str) -> String {
    addresses(interface, address::BACK_V4, address::BACK_V6)
}

fn addresses(interface: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> String {
    format!("addr add {v4}/24 dev {interface}\naddr add {v6}/64 dev {interface} nodad\n")
}

fn allow_forwarding(namespace: &Namespace) -> Result<()> {
    namespace.sysctl("net.ipv4.ip_forward", "1")?;
    namespace.sysctl("net.ipv6.conf.all.forwarding", "1")
}
