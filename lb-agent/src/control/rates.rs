//! Rates from counters: two samples and the time between them.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::model::ServiceName;

/// What a service's counters stand at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) connections: u64,
    pub(super) rx_bytes: u64,
    pub(super) tx_bytes: u64,
}

/// What a service carries a second, over the last second or so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Rates {
    /// Flows opened.
    pub connections_per_second: f64,
    /// Bytes from clients.
    pub rx_bytes_per_second: f64,
    /// Bytes to clients.
    pub tx_bytes_per_second: f64,
}

/// What everything stands at, at one moment.
#[derive(Debug, Default)]
pub(super) struct Sample {
    pub(super) services: BTreeMap<ServiceName, Totals>,
    /// The data plane's reasons and events, by their names.
    pub(super) counters: BTreeMap<String, u64>,
}

/// Keeps the last sample and the rates that it gave.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    last: Option<(Instant, Sample)>,
    services: BTreeMap<ServiceName, Rates>,
    counters: BTreeMap<String, f64>,
}

impl Sampler {
    /// Takes a sample.
    pub(super) fn sample(&mut self, now: Instant, sample: Sample) {
        if let Some((then, before)) = &self.last {
            let seconds = now.duration_since(*then).as_secs_f64();
            let service = |(name, after): (&ServiceName, &Totals)| {
                Some((name.clone(), Rates::between(before.services.get(name)?, after, seconds)))
            };
            self.services = sample.services.iter().filter_map(service).collect();
            let counter = |(name, after): (&String, &u64)| {
                Some((name.clone(), per_second(*before.counters.get(name)?, *after, seconds)))
            };
            self.counters = sample.counters.iter().filter_map(counter).collect();
        }
        self.last = Some((now, sample));
    }

    /// Zeros for a service that was not there for two samples.
    pub(super) fn rates(&self, service: &ServiceName) -> Rates {
        self.services.get(service).copied().unwrap_or_default()
    }

    /// By how much each reason and event rises a second; nothing before there are two samples.
    pub(super) const fn counters(&self) -> &BTreeMap<String, f64> {
        &self.counters
    }
}

/// A counter that went back (a backend was removed) counts as one that stood still.
fn per_second(before: u64, after: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { after.saturating_sub(before) as f64 / seconds } else { 0.0 }
}

impl Rates {
    fn between(before: &Totals, after: &Totals, seconds: f64) -> Self {
        let rate = |before, after| per_second(before, after, seconds);
        Self {
            connections_per_second: rate(before.connections, after.connections),
            rx_bytes_per_second: rate(before.rx_bytes, after.rx_bytes),
            tx_bytes_per_second: rate(before.tx_bytes, after.tx_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sample(connections: u64) -> Sample {
        let totals = Totals { connections, rx_bytes: 10 * connections, tx_bytes: 0 };
        Sample {
            services: [("web".parse().unwrap(), totals)].into(),
            counters: [("flow_evicted".to_owned(), 3 * connections)].into(),
        }
    }

    #[test]
    fn a_rate_is_the_difference_over_the_time() {
        let (mut sampler, start, web) = (Sampler::default(), Instant::now(), "web".parse().unwrap());
        sampler.sample(start, sample(100));
        assert_eq!(sampler.rates(&web), Rates::default());
        assert!(sampler.counters().is_empty());
        sampler.sample(start + Duration::from_secs(2), sample(150));
        let expected =
            Rates { connections_per_second: 25.0, rx_bytes_per_second: 250.0, tx_bytes_per_second: 0.0 };
        assert_eq!(sampler.rates(&web), expected);
        assert_eq!(*sampler.counters(), [("flow_evicted".to_owned(), 75.0)].into());
    }

    #[test]
    fn a_counter_that_went_back_is_no_rate() {
        let (mut sampler, start, web) = (Sampler::default(), Instant::now(), "web".parse().unwrap());
        sampler.sample(start, sample(100));
        sampler.sample(start + Duration::from_secs(1), sample(1));
        assert_eq!(sampler.rates(&web), Rates::default());
        assert_eq!(*sampler.counters(), [("flow_evicted".to_owned(), 0.0)].into());
        sampler.sample(start + Duration::from_secs(1), sample(5));
        assert_eq!(sampler.rates(&web), Rates::default());
    }
}
