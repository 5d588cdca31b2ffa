//! Backends that register themselves. That they are there is part of the state, and so is how long they are fit without
//! being heard of; when they were heard of last is not: a heartbeat costs no revision, and nothing on disk.

use super::{Control, ControlError, Order, Report};
use crate::health::Health;
use crate::model::{Backend, BackendChange, Change, Endpoint, Lease, Load, ServiceName, Weight};

/// What a backend says when it lets itself be heard of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Renewal {
    /// How long it is fit without being heard of again.
    pub lease: Lease,
    /// The weight that it wants; what it has, where absent.
    pub weight: Option<Weight>,
    /// How loaded it is, where it tells.
    pub load: Option<Load>,
}

impl Control {
    /// Hears of a backend.
    pub(super) fn renew(
        &mut self,
        name: &ServiceName,
        address: Endpoint,
        renewal: Renewal,
    ) -> Result<(), ControlError> {
        let Renewal { lease, weight, load } = renewal;
        let known = self.desired.service(name)?.backends.get(&address).copied();
        let before = known.unwrap_or_default();
        let wanted = Backend { lease, weight: weight.unwrap_or(before.weight), ..before };
        if known != Some(wanted) {
            let change = BackendChange { lease: Some(lease), weight, ..BackendChange::default() };
            let change = match known {
                Some(_) => Change::SetBackend(name.clone(), address, change),
                None => Change::AddBackend(name.clone(), address, wanted),
            };
            let order = Order { reason: Some(format!("{address} registered itself")), ..Order::default() };
            self.change(&change, order)?;
        }
        let key = (name.clone(), address);
        let was_out = self.verdicts.get(&key) == Some(&Health::Unhealthy);
        self.fitness.hear(key, super::now());
        if let (Some(load), Some(ttl)) = (load, lease.period()) {
            self.take_report(name.clone(), address, Report { load, ttl: ttl.duration() })?;
        }
        if was_out {
            self.follow_fitness();
        }
        Ok(())
    }
}
