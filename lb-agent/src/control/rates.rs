//! Rates from counters: two samples and the time between them.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::BackendKey;
use crate::datapath::Traffic;
use crate::model::ServiceName;

/// What is carried a second, over the last second or so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Rates {
    /// Flows opened.
    pub connections_per_second: f64,
    /// Packets from clients.
    pub rx_packets_per_second: f64,
    /// Packets to clients.
    pub tx_packets_per_second: f64,
    /// Bytes from clients.
    pub rx_bytes_per_second: f64,
    /// Bytes to clients.
    pub tx_bytes_per_second: f64,
}

/// What everything stands at, at one moment.
#[derive(Debug, Default)]
pub(super) struct Sample {
    pub(super) backends: BTreeMap<BackendKey, Traffic>,
    /// The data plane's reasons and events, by their names.
    pub(super) counters: BTreeMap<String, u64>,
}

/// Keeps the last sample and the rates that it gave.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    last: Option<(Instant, Sample)>,
    backends: BTreeMap<BackendKey, Rates>,
    services: BTreeMap<ServiceName, Rates>,
    counters: BTreeMap<String, f64>,
    stays: BTreeMap<BackendKey, Stay>,
}

impl Sampler {
    /// Takes a sample.
    pub(super) fn sample(&mut self, now: Instant, sample: Sample) {
        if let Some((then, before)) = &self.last {
            let seconds = now.duration_since(*then).as_secs_f64();
            let backend = |(key, after): (&BackendKey, &Traffic)| {
                Some((key.clone(), Rates::between(before.backends.get(key)?, after, seconds)))
            };
            self.backends = sample.backends.iter().filter_map(backend).collect();
            // A sum of rates, not the rate of a sum: a backend that comes or goes is no traffic.
            self.services = BTreeMap::new();
            for ((service, _), rates) in &self.backends {
                *self.services.entry(service.clone()).or_default() += *rates;
            }
            let counter = |(name, after): (&String, &u64)| {
                Some((name.clone(), per_second(*before.counters.get(name)?, *after, seconds)))
            };
            self.counters = sample.counters.iter().filter_map(counter).collect();
            self.average(&sample, seconds);
        }
        self.last = Some((now, sample));
    }

    fn average(&mut self, sample: &Sample, seconds: f64) {
        let stay = |(key, traffic): (&BackendKey, &Traffic)| {
            let before = self.stays.get(key).copied().unwrap_or_default();
            let opened = self.backend(key).connections_per_second;
            (key.clone(), before.after(seconds, traffic.active_connections as f64, opened))
        };
        self.stays = sample.backends.iter().map(stay).collect();
    }

    /// How long a backend's connections stay, where it has enough of them to tell.
    pub(super) fn connections_stay(&self, backend: &BackendKey) -> Option<Duration> {
        self.stays.get(backend)?.duration()
    }

    /// The sum over the backends of a service.
    pub(super) fn service(&self, service: &ServiceName) -> Rates {
        self.services.get(service).copied().unwrap_or_default()
    }

    /// Zeros for a backend that was not there for two samples.
    pub(super) fn backend(&self, backend: &BackendKey) -> Rates {
        self.backends.get(backend).copied().unwrap_or_default()
    }

    /// By how much each reason and event rises a second; nothing before there are two samples.
    pub(super) const fn counters(&self) -> &BTreeMap<String, f64> {
        &self.counters
    }
}

/// How long connections stay, by Little's law: those that are open over those that are opened a second, both averaged.
#[derive(Clone, Copy, Debug, Default)]
struct Stay {
    active: f64,
    opened: f64,
}

impl Stay {
    /// Seconds after which a sample counts for a third.
    const MEMORY: f64 = 4.0;
    /// Connections opened a second, below which chance decides.
    const ENOUGH: f64 = 1.0;

    fn after(self, seconds: f64, active: f64, opened: f64) -> Self {
        let kept = (-seconds / Self::MEMORY).exp();
        let average = |before: f64, now: f64| kept * before + (1.0 - kept) * now;
        Self { active: average(self.active, active), opened: average(self.opened, opened) }
    }

    fn duration(self) -> Option<Duration> {
        let seconds = (self.opened >= Self::ENOUGH).then(|| self.active / self.opened)?;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// A counter that went back (the data plane was made anew) counts as one that stood still.
fn per_second(before: u64, after: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { after.saturating_sub(before) as f64 / seconds } else { 0.0 }
}

impl Rates {
    fn between(before: &Traffic, after: &Traffic, seconds: f64) -> Self {
        let rate = |of: fn(&Traffic) -> u64| per_second(of(before), of(after), seconds);
        Self {
            connections_per_second: rate(|traffic| traffic.connections_total),
            rx_packets_per_second: rate(|traffic| traffic.rx_packets_total),
            tx_packets_per_second: rate(|traffic| traffic.tx_packets_total),
            rx_bytes_per_second: rate(|traffic| traffic.rx_bytes_total),
            tx_bytes_per_second: rate(|traffic| traffic.tx_bytes_total),
        }
    }
}

impl AddAssign for Rates {
    fn add_assign(&mut self, other: Self) {
        self.connections_per_second += other.connections_per_second;
        self.rx_packets_per_second += other.rx_packets_per_second;
        self.tx_packets_per_second += other.tx_packets_per_second;
        self.rx_bytes_per_second += other.rx_bytes_per_second;
        self.tx_bytes_per_second += other.tx_bytes_per_second;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(host: u8) -> BackendKey {
        ("web".parse().unwrap(), format!("10.0.1.{host}:80").parse().unwrap())
    }

    fn sample(connections: &[u64]) -> Sample {
        let traffic = |connections: u64| Traffic {
            connections_total: connections,
            rx_packets_total: 5 * connections,
            rx_bytes_total: 10 * connections,
            ..Traffic::default()
        };
        Sample {
            backends: (1..).zip(connections).map(|(host, &each)| (key(host), traffic(each))).collect(),
            counters: [("flow_evicted".to_owned(), 3 * connections[0])].into(),
        }
    }

    fn rates(connections_per_second: f64) -> Rates {
        Rates {
            connections_per_second,
            rx_packets_per_second: 5.0 * connections_per_second,
            rx_bytes_per_second: 10.0 * connections_per_second,
            ..Rates::default()
        }
    }

    #[test]
    fn a_rate_is_the_difference_over_the_time() {
        let (mut sampler, start, web) = (Sampler::default(), Instant::now(), "web".parse().unwrap());
        sampler.sample(start, sample(&[100, 7]));
        assert_eq!((sampler.service(&web), sampler.backend(&key(1))), (rates(0.0), rates(0.0)));
        assert!(sampler.counters().is_empty());
        sampler.sample(start + Duration::from_secs(2), sample(&[150, 17]));
        assert_eq!([1, 2].map(|host| sampler.backend(&key(host))), [rates(25.0), rates(5.0)]);
        assert_eq!(sampler.service(&web), rates(30.0), "they add up");
        assert_eq!(*sampler.counters(), [("flow_evicted".to_owned(), 75.0)].into());
    }

    #[test]
    fn a_backend_that_comes_or_goes_is_no_traffic_and_hides_none() {
        let (mut sampler, start, web) = (Sampler::default(), Instant::now(), "web".parse().unwrap());
        sampler.sample(start, sample(&[100, 1_000_000]));
        sampler.sample(start + Duration::from_secs(1), sample(&[110]));
        assert_eq!(sampler.service(&web), rates(10.0), "one has gone");
        sampler.sample(start + Duration::from_secs(2), sample(&[120, 500]));
        assert_eq!(sampler.service(&web), rates(10.0), "one has come");
    }

    #[test]
    fn connections_stay_as_long_as_they_are_many_for_their_rate() {
        let (mut sampler, start) = (Sampler::default(), Instant::now());
        let traffic = |second: u64, active_connections| Traffic {
            active_connections,
            connections_total: 20 * second,
            ..Traffic::default()
        };
        for second in 0..30 {
            let backends =
                [(key(1), traffic(second, 2)), (key(2), traffic(second, 60)), (key(3), traffic(0, 60))];
            let sample = Sample { backends: backends.into(), ..Sample::default() };
            sampler.sample(start + Duration::from_secs(second), sample);
        }
        let stay = |host| sampler.connections_stay(&key(host)).map(|stay| stay.as_secs_f64());
        assert!((stay(1).unwrap() - 0.1).abs() < 0.001, "{:?}", stay(1));
        assert!((stay(2).unwrap() - 3.0).abs() < 0.01, "{:?}", stay(2));
        assert_eq!(stay(3), None, "held open, none opened");
    }

    #[test]
    fn a_counter_that_went_back_is_no_rate() {
        let (mut sampler, start, web) = (Sampler::default(), Instant::now(), "web".parse().unwrap());
        sampler.sample(start, sample(&[100]));
        sampler.sample(start + Duration::from_secs(1), sample(&[1]));
        assert_eq!(sampler.service(&web), rates(0.0));
        assert_eq!(*sampler.counters(), [("flow_evicted".to_owned(), 0.0)].into());
        sampler.sample(start + Duration::from_secs(1), sample(&[5]));
        assert_eq!(sampler.service(&web), rates(0.0));
    }
}
