//! Many services with many backends each, in the same tables as the one service of each family that most rows are about.
//! IPv4 alone.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use lb_common::directory::{Kind, Listing};
use lb_common::hash::{mix, scale};
use lb_common::slot;
use lb_common::{Address, Be16, Be32, Protocol};
use lb_ebpf::family::{Family as _, Ipv4};

use super::balancer::{SLOT_SEED, TABLE_SIZE};
use super::traffic::{BACKEND_PORT, SERVICE_PORT, client, following};

/// Services.
pub(super) const SERVICES: u16 = 500;
/// Backends of each.
pub(super) const BACKENDS: u16 = 64;
/// All of their backends.
pub(super) const ALL_BACKENDS: u16 = SERVICES * BACKENDS;
/// The first service's virtual address; the others' follow.
pub(super) const FIRST_VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 201, 0, 0));
/// The first backend's address; the others' follow. They are behind the router.
pub(super) const FIRST_BACKEND: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 202, 0, 0));
/// Flow 0's client. A client port's flows to all services share a bucket, of which one service's flows would take up half.
pub(super) const FIRST_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 102, 0, 0));
/// The most flows of theirs: see [`Path::flow_bits`](super::traffic::Path::flow_bits).
pub(super) const FLOWS: u32 = 1 << 16;

/// The virtual address and port of a service.
pub(super) fn vip(service: u16) -> (Address, Be16) {
    (following(FIRST_VIP, service.into()).into(), Be16::new(SERVICE_PORT))
}

/// The address and port of a backend.
pub(super) fn endpoint(backend: u16) -> (Address, Be16) {
    (following(FIRST_BACKEND, backend.into()).into(), Be16::new(BACKEND_PORT))
}

/// Everything that the directory lists; identifiers are counted on from these.
pub(super) fn listings(first_service: u16, first_backend: u16) -> impl Iterator<Item = Listing> {
    let listing = |(address, port), protocol, kind, id| Listing { address, port, protocol, kind, id };
    let services = (0..SERVICES).flat_map(move |service| {
        let ((address, port), id) = (vip(service), first_service + service);
        [
            listing((address, port), Protocol::TCP, Kind::Service, id),
            listing((address, Be16(0)), Protocol(0), Kind::Vip, id),
        ]
    });
    let backends = (0..ALL_BACKENDS).flat_map(move |backend| {
        let ((address, port), id) = (endpoint(backend), first_backend + backend);
        [
            listing((address, port), Protocol::TCP, Kind::Backend, id),
            listing((address, Be16(0)), Protocol::TCP, Kind::Host, id),
        ]
    });
    services.chain(backends)
}

/// The backend that has a slot of a service.
pub(super) fn owner(service: u16, slot: u64) -> u16 {
    let draw = mix(u64::from(service) << 32 | slot, SLOT_SEED);
    service * BACKENDS + scale(draw, BACKENDS.into()) as u16
}

/// Lines of a service's table.
pub(super) const fn lines() -> u32 {
    slot::lines(TABLE_SIZE)
}

/// The service that a flow goes to.
pub(super) fn service_of(flow: u32) -> u16 {
    (flow % u32::from(SERVICES)) as u16
}

/// The backend that a flow goes to.
pub(super) fn backend_of(flow: u32) -> Result<u16> {
    let (IpAddr::V4(address), port) = client(FIRST_CLIENT, flow) else {
        anyhow::bail!("flow {flow} is not IPv4");
    };
    let hash = Ipv4::slot_hash(Be32::from_wire(address.octets()), Be16::new(port), SLOT_SEED);
    Ok(owner(service_of(flow), u64::from(scale(hash, TABLE_SIZE))))
}
