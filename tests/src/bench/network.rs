//! The network that the balancer routes by: one arm, neighbours that never change.

use anyhow::{Context, Result};

use super::balancer::BACKENDS;
use super::traffic::{Family, following};
use crate::netns::Namespace;

/// The balancer's only interface: frames come in and leave by it.
pub(super) const INTERFACE: &str = "lb0";
/// The other end of its wire.
pub(super) const FAR_END: &str = "far0";

/// Where the bench's frames go to.
const BALANCER_MAC: &str = "02:00:00:00:00:01";

/// A namespace in which the kernel's routing table leads to backends and clients.
///
/// So the balancer's next hops go stale and are looked up again once a second, as in operation.
pub(super) fn build() -> Result<Namespace> {
    let namespace = Namespace::create("bench")?;
    let mut script = format!(
        "link add {INTERFACE} type veth peer name {FAR_END}\n\
         link set {INTERFACE} address {BALANCER_MAC}\n\
         link set {INTERFACE} up\n\
         link set {FAR_END} up\n\
         address add 10.0.0.2/16 dev {INTERFACE}\n\
         address add fd00::2/64 dev {INTERFACE} nodad\n"
    );
    let gateways = ["10.0.0.1", "fd00::1"];
    let mut neighbours: Vec<String> = gateways.map(String::from).into();
    for family in Family::ALL {
        let backends =
            (0..BACKENDS).map(|number| following(family.first_backend(), number.into()).to_string());
        neighbours.extend(backends);
    }
    for (number, address) in neighbours.iter().enumerate() {
        script += &format!(
            "neighbour add {address} lladdr 02:00:00:00:01:{number:02x} dev {INTERFACE} nud permanent\n"
        );
    }
    for gateway in gateways {
        script += &format!("route add default via {gateway}\n");
    }
    namespace.ip(&script)?;
    // Without forwarding the kernel's FIB look-up answers that it does not forward.
    namespace.sysctl("net.ipv4.ip_forward", "1")?;
    namespace.sysctl("net.ipv6.conf.all.forwarding", "1")?;
    Ok(namespace)
}

/// The interface's index in the calling thread's namespace.
pub(super) fn ifindex() -> Result<u32> {
    index_of(INTERFACE)
}

/// An interface's index in the calling thread's namespace.
pub(super) fn index_of(interface: &str) -> Result<u32> {
    let name = std::ffi::CString::new(interface)?;
    // SAFETY: a string that ends with a zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index).with_context(|| format!("there is no interface {interface}"))
}
