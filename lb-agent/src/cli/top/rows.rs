//! The rows of a page: what they match, and their order.

use std::cmp::Ordering;

use crate::api::types::{BackendView, ServiceRates};
use crate::control::{Condition, Rates};
use crate::model::ServiceName;

/// A row.
#[derive(Clone, Copy)]
pub(super) enum Row<'a> {
    Service(&'a ServiceRates),
    Backend(&'a BackendView),
}

/// By what rows are ordered: numbers from the highest, conditions from the worst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Condition,
    Name,
    Active,
    New,
    In,
    Out,
}

impl Sort {
    const ALL: [Self; 6] = [Self::Condition, Self::Name, Self::Active, Self::New, Self::In, Self::Out];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Condition => "state",
            Self::Name => "name",
            Self::Active => "active",
            Self::New => "new",
            Self::In => "in",
            Self::Out => "out",
        }
    }

    pub(super) fn next(self) -> Self {
        Self::ALL[(self as usize + 1) % Self::ALL.len()]
    }

    /// Rows that are alike stay in the order of their names, in which they come.
    pub(super) fn compare(
        self,
        a: &Row<'_>,
        b: &Row<'_>,
        worst: &impl Fn(&ServiceName) -> Condition,
    ) -> Ordering {
        let highest = |of: fn(&Row<'_>) -> f64| of(b).total_cmp(&of(a));
        match self {
            Self::Condition => a.condition(worst).cmp(&b.condition(worst)),
            Self::Name => Ordering::Equal,
            Self::Active => highest(|row| row.active() as f64),
            Self::New => highest(|row| row.rates().connections_per_second),
            Self::In => highest(|row| row.rates().rx_bytes_per_second),
            Self::Out => highest(|row| row.rates().tx_bytes_per_second),
        }
    }
}

impl Row<'_> {
    /// What it is known by within its page.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Service(rates) => rates.service.name.to_string(),
            Self::Backend(backend) => backend.address.to_string(),
        }
    }

    /// Whether a text, in small letters, is part of what it shows.
    pub(super) fn matches(&self, filter: &str) -> bool {
        let shown = match self {
            Self::Service(rates) => {
                let service = &rates.service;
                format!("{} {}/{} {}", service.name, service.vip, service.protocol, service.strategy)
            }
            Self::Backend(backend) => format!("{} {}", backend.address, backend.condition),
        };
        shown.to_lowercase().contains(filter)
    }

    fn condition(&self, worst: &impl Fn(&ServiceName) -> Condition) -> Condition {
        match self {
            Self::Service(rates) => worst(&rates.service.name),
            Self::Backend(backend) => backend.condition,
        }
    }

    pub(super) fn active(&self) -> u64 {
        match self {
            Self::Service(rates) => rates.service.active_connections,
            Self::Backend(backend) => backend.traffic.active_connections,
        }
    }

    pub(super) fn rates(&self) -> Rates {
        match self {
            Self::Service(rates) => rates.rates,
            Self::Backend(backend) => backend.rates,
        }
    }
}
