//! Every family of metrics: its name, its labels, what it means, and where its numbers come from. Names are a contract, like
//! those of the API; `docs/metrics.md` is checked against this list.

use std::collections::BTreeMap;

use super::exposition::{Head, Kind, Samples, Value};
use super::{Prepared, Process};
use crate::control::{BackendNow, Condition, Durations, LoadNow};
use crate::health::Health;
use crate::model::Admin;

/// A family, and what writes its samples.
pub(super) struct Family {
    pub(super) head: Head,
    pub(super) write: fn(&Prepared<'_>, &mut Samples<'_>),
}

type Labels = &'static [&'static str];

/// What all have of which there is one.
const ALONE: Labels = &[];
const SERVICE: Labels = &["service"];
const BACKEND: Labels = &["service", "backend"];

const fn family(
    (kind, name, labels): (Kind, &'static str, Labels),
    help: &'static str,
    write: fn(&Prepared<'_>, &mut Samples<'_>),
) -> Family {
    Family { head: Head { name, kind, labels, help }, write }
}

const fn counter(name: &'static str, labels: Labels) -> (Kind, &'static str, Labels) {
    (Kind::Counter, name, labels)
}

const fn gauge(name: &'static str, labels: Labels) -> (Kind, &'static str, Labels) {
    (Kind::Gauge, name, labels)
}

const fn histogram(name: &'static str, labels: Labels) -> (Kind, &'static str, Labels) {
    (Kind::Histogram, name, labels)
}

/// In the order in which they are written.
pub(super) const FAMILIES: &[Family] = &[
    // What backends carry.
    family(counter("lb_backend_connections_total", BACKEND), "Flows opened to the backend.", |from, to| {
        from.each_backend(to, |now| Some(now.traffic.connections_total))
    }),
    family(gauge("lb_backend_active_connections", BACKEND), "Flows open now.", |from, to| {
        from.each_backend(to, |now| Some(now.traffic.active_connections));
    }),
    family(counter("lb_backend_rx_packets_total", BACKEND), "Packets from clients.", |from, to| {
        from.each_backend(to, |now| Some(now.traffic.rx_packets_total));
    }),
    family(counter("lb_backend_tx_packets_total", BACKEND), "Packets to clients.", |from, to| {
        from.each_backend(to, |now| Some(now.traffic.tx_packets_total));
    }),
    family(
        counter("lb_backend_rx_bytes_total", BACKEND),
        "Bytes from clients, as IP packets.",
        |from, to| from.each_backend(to, |now| Some(now.traffic.rx_bytes_total)),
    ),
    family(counter("lb_backend_tx_bytes_total", BACKEND), "Bytes to clients, as IP packets.", |from, to| {
        from.each_backend(to, |now| Some(now.traffic.tx_bytes_total));
    }),
    family(
        histogram("lb_backend_connect_duration_seconds", BACKEND),
        "From a client's SYN to the backend's SYN-ACK, as seen in the data plane: of one TCP flow in eight, with least-latency of every one.",
        connect_times,
    ),
    // What becomes of backends.
    family(
        gauge("lb_backend_health", &["service", "backend", "state"]),
        "1 for the state that the backend is in, 0 for the others.",
        |from, to| from.each_backend_state(to, Health::ALL, |now| now.health),
    ),
    family(
        gauge("lb_backend_admin", &["service", "backend", "state"]),
        "1 for what the operator wants of the backend, 0 for the rest.",
        |from, to| from.each_backend_state(to, Admin::ALL, |now| now.backend.admin),
    ),
    family(
        gauge("lb_backend_slow", BACKEND),
        "Whether the backend takes much longer than the others of its service.",
        |from, to| from.each_backend(to, |now| Some(now.condition == Condition::Slow)),
    ),
    family(gauge("lb_backend_weight", BACKEND), "The share of new flows that is wanted.", |from, to| {
        from.each_backend(to, |now| Some(u64::from(now.backend.weight.get())));
    }),
    family(
        gauge("lb_backend_effective_weight", BACKEND),
        "The share of new flows that it gets: 0 while it drains or is unfit.",
        |from, to| from.each_backend(to, |now| Some(now.effective_weight.number())),
    ),
    family(
        gauge("lb_backend_reported_load", BACKEND),
        "What the backend reported of its load, while that holds: from 0, idle, to 1, full.",
        |from, to| {
            let fresh = |load: &&LoadNow| load.fresh;
            from.each_backend(to, |now| now.load.as_ref().filter(fresh).map(|load| load.reported.get()));
        },
    ),
    family(
        gauge("lb_backend_check_passed", BACKEND),
        "Whether the backend's last check passed.",
        |from, to| from.each_backend(to, |now| now.check.as_ref().map(|check| check.passed)),
    ),
    family(
        gauge("lb_backend_check_duration_seconds", BACKEND),
        "How long the backend's last check took.",
        |from, to| {
            from.each_backend(to, |now| Some(now.check.as_ref()?.took_microseconds as f64 / 1e6));
        },
    ),
    // Services.
    family(
        gauge("lb_service_info", &["service", "vip", "protocol", "strategy", "mode", "track"]),
        "Always 1: what the service is.",
        service_info,
    ),
    family(gauge("lb_service_backends", SERVICE), "Backends of the service.", |from, to| {
        from.each_service(to, |_| true);
    }),
    family(
        gauge("lb_service_active_backends", SERVICE),
        "Backends of the service that new flows go to.",
        |from, to| from.each_service(to, |now| now.effective_weight.is_some()),
    ),
    family(
        gauge("lb_service_panic", SERVICE),
        "Whether so few backends of the service are fit that all of them take traffic.",
        |from, to| {
            let panicking = &from.source.snapshot.panicking;
            let services = from.source.snapshot.desired.services.keys();
            services.for_each(|name| to.sample(&[name.as_str()], u64::from(panicking.contains(name))));
        },
    ),
    // Packets.
    family(
        counter("lb_packets_total", &["reason"]),
        "Packets by how they ended, each once; docs/counters.md explains the reasons.",
        |from, to| {
            from.source.snapshot.reasons.iter().for_each(|each| to.sample(&[&each.reason], each.packets));
        },
    ),
    family(
        counter("lb_events_total", &["event"]),
        "What happened to packets on their way; docs/counters.md explains the events.",
        |from, to| from.source.snapshot.events.iter().for_each(|each| to.sample(&[&each.event], each.count)),
    ),
    // The flow table and the ports of full NAT.
    family(gauge("lb_flows", ALONE), "Entries of the flow table at the last sweep.", |from, to| {
        to.sample(&[], from.source.snapshot.flows.active);
    }),
    family(gauge("lb_flows_capacity", ALONE), "Flows that the flow table is made for.", |from, to| {
        to.sample(&[], from.source.snapshot.flows.capacity);
    }),
    family(
        gauge("lb_sweep_cpu_seconds", ALONE),
        "CPU time of the last sweep, which looks at every entry of the flow table.",
        |from, to| to.sample(&[], from.source.snapshot.flows.sweep_cpu_microseconds as f64 / 1e6),
    ),
    family(
        gauge("lb_source_ports", &["address", "state"]),
        "Ports of a source address of full NAT by what they do: used, resting, or free.",
        source_ports,
    ),
    // The agent.
    family(
        gauge("lb_interface_up", &["interface", "mode"]),
        "Whether packets are balanced on the interface.",
        |from, to| {
            let interfaces = &from.source.snapshot.interfaces;
            interfaces.iter().for_each(|each| to.sample(&[&each.name, &each.mode], each.problem.is_none()));
        },
    ),
    family(gauge("lb_in_step", ALONE), "Whether disk and data plane are what they shall be.", |from, to| {
        to.sample(&[], from.source.snapshot.in_step)
    }),
    family(gauge("lb_revision", ALONE), "The revision of the state.", |from, to| {
        to.sample(&[], from.source.snapshot.revision);
    }),
    family(
        histogram("lb_check_duration_seconds", &["result"]),
        "How long health checks took, passed and failed.",
        |from, to| {
            let timings = &from.source.snapshot.timings;
            durations(to, &["passed"], &timings.passed_checks);
            durations(to, &["failed"], &timings.failed_checks);
        },
    ),
    family(
        histogram("lb_change_duration_seconds", ALONE),
        "How long changes took that were asked for, until they were on disk and in the kernel, or refused.",
        |from, to| durations(to, &[], &from.source.snapshot.timings.changes),
    ),
    family(
        histogram("lb_reconcile_duration_seconds", ALONE),
        "How long it took to compare the data plane with what is wanted, and to put it right.",
        |from, to| durations(to, &[], &from.source.snapshot.timings.reconciles),
    ),
    family(
        histogram("lb_housekeeping_duration_seconds", ALONE),
        "How long the looks at the flow table took that are taken every second.",
        |from, to| durations(to, &[], &from.source.snapshot.timings.housekeeping),
    ),
    family(
        counter("lb_http_requests_total", ALONE),
        "Requests over TCP, the refused ones included.",
        |from, to| {
            to.sample(&[], from.source.http.requests_total);
        },
    ),
    family(
        counter("lb_http_refused_total", &["reason"]),
        "Requests over TCP that were refused.",
        |from, to| {
            let http = &from.source.http;
            to.sample(&["no_token"], http.refused_no_token_total);
            to.sample(&["wrong_token"], http.refused_wrong_token_total);
            to.sample(&["read_only"], http.refused_read_only_total);
        },
    ),
    family(gauge("lb_build_info", &["version"]), "Always 1: which agent this is.", |_, to| {
        to.sample(&[env!("CARGO_PKG_VERSION")], 1_u64);
    }),
    // What every process has, under the names that every Prometheus client gives it.
    family(counter("process_cpu_seconds_total", ALONE), "CPU time of the agent.", |from, to| {
        from.process(to, |process| Some(process.cpu_seconds));
    }),
    family(
        gauge("process_resident_memory_bytes", ALONE),
        "Memory of the agent that is there.",
        |from, to| {
            from.process(to, |process| Some(process.resident_bytes));
        },
    ),
    family(gauge("process_virtual_memory_bytes", ALONE), "Addresses that the agent has.", |from, to| {
        from.process(to, |process| Some(process.virtual_bytes));
    }),
    family(gauge("process_open_fds", ALONE), "File descriptors that the agent has.", |from, to| {
        from.process(to, |process| Some(process.open_fds));
    }),
    family(gauge("process_max_fds", ALONE), "File descriptors that it may have.", |from, to| {
        from.process(to, |process| process.max_fds);
    }),
    family(gauge("process_threads", ALONE), "Threads of the agent.", |from, to| {
        from.process(to, |process| Some(process.threads));
    }),
    family(
        gauge("process_start_time_seconds", ALONE),
        "When the agent was started, in seconds since 1970.",
        |from, to| from.process(to, |process| Some(process.start_seconds)),
    ),
];

impl Prepared<'_> {
    fn each_backend<V: Into<Value>>(&self, to: &mut Samples<'_>, value: impl Fn(&BackendNow) -> Option<V>) {
        for ([service, backend], now) in &self.backends {
            if let Some(value) = value(now) {
                to.sample(&[service, backend], value);
            }
        }
    }

    fn each_backend_state<S: Copy + PartialEq + ToString>(
        &self,
        to: &mut Samples<'_>,
        all: &[S],
        state: impl Fn(&BackendNow) -> S,
    ) {
        for each in all {
            let name = each.to_string();
            for ([service, backend], now) in &self.backends {
                to.sample(&[service, backend, &name], state(now) == *each);
            }
        }
    }

    fn each_service(&self, to: &mut Samples<'_>, counts: impl Fn(&BackendNow) -> bool) {
        let services = self.source.snapshot.desired.services.keys();
        let mut counted: BTreeMap<&str, usize> = services.map(|service| (service.as_str(), 0)).collect();
        for ([service, _], now) in &self.backends {
            *counted.entry(service).or_default() += usize::from(counts(now));
        }
        counted.into_iter().for_each(|(service, count)| to.sample(&[service], count));
    }

    fn process<V: Into<Value>>(&self, to: &mut Samples<'_>, value: impl Fn(&Process) -> Option<V>) {
        if let Some(value) = self.source.process.as_ref().and_then(value) {
            to.sample(&[], value);
        }
    }
}

fn connect_times(from: &Prepared<'_>, to: &mut Samples<'_>) {
    for ([service, backend], now) in &from.backends {
        let Some(times) = &now.connect_time else { continue };
        let seconds = |microseconds: u64| microseconds as f64 / 1e6;
        let buckets =
            times.histogram.iter().map(|bucket| (bucket.below_microseconds.map(seconds), bucket.count_total));
        to.histogram(&[service, backend], buckets, seconds(times.sum_microseconds_total));
    }
}

fn service_info(from: &Prepared<'_>, to: &mut Samples<'_>) {
    for service in from.source.snapshot.desired.services.values() {
        let labels = [
            service.name.to_string(),
            service.vip.to_string(),
            service.protocol.to_string(),
            service.strategy.to_string(),
            service.mode.to_string(),
            service.track.to_string(),
        ];
        to.sample(&labels.each_ref().map(String::as_str), 1_u64);
    }
}

fn source_ports(from: &Prepared<'_>, to: &mut Samples<'_>) {
    for each in &from.source.snapshot.source_addresses {
        let address = each.address.to_string();
        to.sample(&[&address, "used"], each.used);
        to.sample(&[&address, "resting"], each.resting);
        to.sample(&[&address, "free"], each.ports.saturating_sub(each.used + each.resting));
    }
}

fn durations(to: &mut Samples<'_>, labels: &[&str], durations: &Durations) {
    let bounds = Durations::BOUNDS.into_iter().map(Some).chain([None]);
    to.histogram(labels, bounds.zip(durations.counts().iter().copied()), durations.sum().as_secs_f64());
}
