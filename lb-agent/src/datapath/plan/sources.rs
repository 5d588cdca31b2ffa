//! The source addresses of full NAT: which row each has, and which flows of a service go by which.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::bail;
use lb_common::Address;
use lb_common::backend::Standing;
use lb_common::hash::mix3;
use lb_common::port::{ENTRIES, NO_ADDRESS};
use lb_common::service::Options;

use super::Action;
use super::diff::{Differ, Target};
use crate::datapath::Wanted;
use crate::datapath::observed::ObservedBackend;

/// A service's pool, by the numbers of its addresses.
pub(super) type Numbers = [u8; ENTRIES as usize];

impl Differ<'_> {
    /// Writes the rows of new source addresses. No service goes by them yet.
    pub(super) fn put_sources(&mut self, wanted: &Wanted) -> anyhow::Result<()> {
        for address in addresses(wanted) {
            if self.now.sources.contains_key(&address) {
                continue;
            }
            // The row that it had before, if that is free: its ports may have to rest yet.
            let had =
                |&number: &u8| self.arrays.pool_addresses[usize::from(number)].address == address.into();
            let free = &mut self.now.free_sources;
            let number = free.iter().copied().find(had).or_else(|| free.first().copied());
            let Some(number) = number else {
                let limit = self.arrays.sizes.source_addresses;
                bail!(
                    "source address {address}: no room: all {limit} rows of [limits] source_addresses are in use; \
                     raise the limit, or remove an address first"
                );
            };
            self.now.free_sources.remove(&number);
            self.now.sources.insert(address, number);
            self.act(Action::PutSource { number, address });
            self.say(format!("source address {address}: added"));
        }
        Ok(())
    }

    /// The numbers of a service's addresses, spread over its sixteenths.
    pub(super) fn pool(&self, pool: &[IpAddr]) -> Numbers {
        spread(pool, |address| self.now.sources.get(&address).copied().unwrap_or(NO_ADDRESS))
    }

    /// Gives services in use the source addresses that they shall have. Flows that went by another lose their port.
    pub(super) fn set_pools(&mut self, targets: &[Target<'_>]) {
        for target in targets {
            let pool = self.pool(&target.service.source_pool);
            let Some(service) = self.now.services.get_mut(&target.vip) else { continue };
            if service.pool != pool {
                service.pool = pool;
                self.act(Action::SetPool { service: target.id, pool });
                let name = &target.service.name;
                self.say(format!("service {name}: other source addresses"));
            }
        }
    }

    /// Takes source addresses out of use that no service goes by any more.
    pub(super) fn retire_sources(&mut self, wanted: &Wanted) -> anyhow::Result<()> {
        let kept = addresses(wanted);
        let gone: Vec<_> = self
            .now
            .sources
            .iter()
            .filter(|(address, _)| !kept.contains(address))
            .map(|(&a, &n)| (a, n))
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        for (address, _) in &gone {
            self.now.sources.remove(address);
        }
        self.list()?;
        // A packet that read a service's pool before may be about to look at the row.
        self.grace_period();
        for (address, number) in gone {
            self.act(Action::RetireSource { number });
            self.say(format!("source address {address}: removed"));
        }
        Ok(())
    }

    /// Marks the rows of endpoints that full-NAT services have: before such a service is listed, after it is gone.
    pub(super) fn mark(&mut self, is_new: impl Fn(u16) -> bool, full_nat: &BTreeSet<u16>) {
        let behind: BTreeSet<_> = self
            .now
            .backends
            .values()
            .filter(|row| full_nat.contains(&row.service))
            .map(|row| row.endpoint)
            .collect();
        let stale: Vec<_> = self
            .now
            .backends
            .iter()
            .map(|(&id, row)| (id, *row, behind.contains(&row.endpoint)))
            .filter(|(_, row, behind_full_nat)| row.standing.behind_full_nat != *behind_full_nat)
            .collect();
        for (id, row, behind_full_nat) in stale {
            let standing = Standing { behind_full_nat, ..row.standing };
            self.now.backends.insert(id, ObservedBackend { standing, ..row });
            if !is_new(id) {
                self.act(Action::SetBackend { id, standing });
            }
        }
    }

    /// The services in use that are full-NAT services.
    pub(super) fn full_nat(&self) -> BTreeSet<u16> {
        let services = self.now.services.values();
        services.filter(|service| service.options.has(Options::FULL_NAT)).map(|service| service.id).collect()
    }
}

/// The source addresses of all services.
fn addresses(wanted: &Wanted) -> BTreeSet<IpAddr> {
    wanted.services.iter().flat_map(|service| service.source_pool.iter().copied()).collect()
}

/// Gives each sixteenth of a service's flows an address: evenly, and so that another address takes over few of them.
fn spread(pool: &[IpAddr], number: impl Fn(IpAddr) -> u8) -> Numbers {
    let mut entries = [NO_ADDRESS; ENTRIES as usize];
    let mut taken = vec![0; pool.len()];
    let most = entries.len().div_ceil(pool.len().max(1));
    for (entry, place) in (0u64..).zip(&mut entries) {
        let draw = |address: IpAddr| {
            let Address([head, tail]) = address.into();
            mix3([head, tail, entry], u64::from_le_bytes(*b"source\0\0"))
        };
        let free = (0..pool.len()).filter(|&at| taken[at] < most);
        if let Some(at) = free.max_by_key(|&at| draw(pool[at])) {
            taken[at] += 1;
            *place = number(pool[at]);
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(count: u8) -> Vec<IpAddr> {
        (1..=count).map(|last| IpAddr::from([10, 0, 1, last])).collect()
    }

    fn last(address: IpAddr) -> u8 {
        match address {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(_) => 0,
        }
    }

    #[test]
    fn every_address_has_its_share() {
        assert_eq!(spread(&[], last), [NO_ADDRESS; 16]);
        for count in 1..=16u8 {
            let entries = spread(&pool(count), last);
            for number in 1..=count {
                let share = entries.iter().filter(|&&entry| entry == number).count();
                assert!(share <= 16usize.div_ceil(count.into()), "{count}: {number} has {share}");
            }
            assert!(!entries.contains(&NO_ADDRESS), "{count}");
        }
    }

    #[test]
    fn another_address_takes_over_few() {
        for count in 1..=7u8 {
            let (before, after) = (spread(&pool(count), last), spread(&pool(count + 1), last));
            let kept = before.iter().zip(after).filter(|&(&before, after)| before == after).count();
            assert!(kept >= 5, "{count}: {before:?} {after:?}");
        }
    }
}
