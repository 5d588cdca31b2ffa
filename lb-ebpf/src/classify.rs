//! Whose packet it is: a request to a service, a reply from a backend, or not ours.

use lb_common::address::{Be16, Protocol};
use lb_common::backend::Backend;
use lb_common::directory::{Entry, Kind};
use lb_common::service::Service;

use crate::family::Family;
use crate::tables::Tables;

/// A service that a packet goes to.
pub struct Found<'a, Row> {
    /// Its identifier.
    pub id: u16,
    /// Its row.
    pub row: &'a Row,
}

/// The service at an address.
#[inline(always)]
pub fn service<A: Family, T: Tables>(
    tables: &T,
    address: A::Address,
    port: Be16,
    protocol: Protocol,
) -> Option<Found<'_, Service>> {
    let entry = find::<A, T>(tables, address, port, protocol)?;
    if !entry.is(Kind::Service) {
        return None;
    }
    let row = tables.service(entry.id())?;
    let ours =
        A::narrow(&row.vip) == address && row.port == port && row.protocol == protocol && row.live == 1;
    ours.then_some(Found { id: entry.id(), row })
}

/// The first backend row of an endpoint.
#[inline(always)]
pub fn endpoint<A: Family, T: Tables>(
    tables: &T,
    address: A::Address,
    port: Be16,
    protocol: Protocol,
) -> Option<Found<'_, Backend>> {
    let entry = find::<A, T>(tables, address, port, protocol)?;
    if !entry.is(Kind::Backend) {
        return None;
    }
    let row = tables.backend(entry.id())?;
    let ours = A::narrow(&row.address) == address && row.port == port && row.protocol == protocol;
    ours.then_some(Found { id: entry.id(), row })
}

/// Whether an address is a virtual one, whatever the port.
#[inline(always)]
pub fn is_vip<A: Family, T: Tables>(tables: &T, address: A::Address) -> bool {
    let Some(entry) = find::<A, T>(tables, address, Be16(0), Protocol(0)) else { return false };
    entry.is(Kind::Vip) && tables.service(entry.id()).is_some_and(|row| A::narrow(&row.vip) == address)
}

/// Whether an address is that of backends which serve this protocol, whatever the port.
#[inline(always)]
pub fn is_host<A: Family, T: Tables>(tables: &T, address: A::Address, protocol: Protocol) -> bool {
    let Some(entry) = find::<A, T>(tables, address, Be16(0), protocol) else { return false };
    let is_its = |row: &Backend| A::narrow(&row.address) == address && row.protocol == protocol;
    entry.is(Kind::Host) && tables.backend(entry.id()).is_some_and(is_its)
}

/// Which address of the source pools an address is.
#[inline(always)]
pub fn pool<A: Family, T: Tables>(tables: &T, address: A::Address) -> Option<u8> {
    let entry = find::<A, T>(tables, address, Be16(0), Protocol(0))?;
    if !entry.is(Kind::Pool) {
        return None;
    }
    let row = tables.pool_address(entry.id() as u8)?;
    (A::narrow(&row.address) == address).then_some(entry.id() as u8)
}

/// What the directory has under a key, or under another with the same tag: the caller compares with the row.
#[inline(always)]
fn find<A: Family, T: Tables>(
    tables: &T,
    address: A::Address,
    port: Be16,
    protocol: Protocol,
) -> Option<Entry> {
    let settings = tables.settings();
    let buckets = settings.directory_mask.wrapping_add(1);
    let (key, base) = match settings.directory_half.load() {
        0 => (settings.directory_keys[0].load(), 0),
        _ => (settings.directory_keys[1].load(), buckets),
    };
    let hash = A::directory_hash(address, port, protocol, key);
    let bucket = tables.directory((hash as u32 & settings.directory_mask).wrapping_add(base))?;
    let [a, b, c, d] = bucket.entries.map(Entry);
    if a.matches(hash) {
        Some(a)
    } else if b.matches(hash) {
        Some(b)
    } else if c.matches(hash) {
        Some(c)
    } else if d.matches(hash) {
        Some(d)
    } else {
        None
    }
}
