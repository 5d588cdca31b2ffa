//! How large a machine has to be: from connections and packets to tables, memory, cores and links. Pure arithmetic over what was
//! measured; `docs/design.md` has the account of it.

mod costs;
mod quantity;

use serde::Serialize;

use crate::config::{self, Limits};
use crate::datapath::footprint;
use crate::model::{Mode, Track};
pub use costs::{Costs, Traffic};
pub use quantity::Quantity;

/// Seconds that an entry stays when its connection is closed: `closing` in the design's table of states.
const LINGER: u64 = 60;
/// Seconds that a source port rests after its connection's last packet, on top of them.
const REST: u64 = 64;
/// The share of a core's time that packets may take: the rest is for bursts, the agent, and what else the machine does.
const BUSY: f64 = 0.6;
/// The share of a link that traffic may take.
const FULL: f64 = 0.7;

/// What a balancer is to carry.
#[derive(Clone, Debug)]
pub struct Demand {
    /// Connections that are open at the same time.
    pub connections: u64,
    /// Connections that are opened, a second.
    pub new_connections: u64,
    /// Packets a second, requests and replies together.
    pub packets: u64,
    /// Bits a second, the larger of the two directions.
    pub bandwidth: u64,
    /// The share of it that is IPv6, in percent.
    pub ipv6: u64,
    /// How flows are tracked.
    pub track: Track,
    /// How backends are addressed.
    pub mode: Mode,
    /// Services.
    pub services: u64,
    /// Backends, counted once for each service.
    pub backends: u64,
    /// Bits a second that a link takes.
    pub link: u64,
    /// Nanoseconds that driver and kernel need for a packet beside the program.
    pub driver: f64,
}

/// What it takes. Bytes, nanoseconds; cores and links as whole ones.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// `[limits]` for the configuration.
    pub limits: PlannedLimits,
    /// Of all tables, in the kernel.
    pub memory_bytes: u64,
    /// Of the flow tables, for each open connection.
    pub bytes_per_connection: f64,
    /// For a packet of an established flow, the driver's share included.
    pub packet_ns: f64,
    /// For the first packet of a flow, the driver's share included.
    pub new_flow_ns: f64,
    /// Of one core's time that all packets take: 1 is a whole core.
    pub load: f64,
    /// Cores that serve receive queues.
    pub cores: u64,
    /// Packets a second that one core carries with that many flows, at its full time.
    pub packets_per_core: u64,
    /// Links for the bandwidth. On one with both directions in one arm, requests and replies share a direction.
    pub links: u64,
    /// Source addresses of the pool, for full NAT.
    pub source_addresses: u64,
    /// What is exhausted first when everything grows alike.
    pub binds_first: &'static str,
    /// What the figures do not hold for.
    pub remarks: Vec<String>,
}

/// As `config.toml` has them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedLimits {
    /// IPv4 flows.
    pub flows: u64,
    /// IPv6 flows.
    pub flows6: u64,
    /// Services.
    pub services: u64,
    /// Backends.
    pub backends: u64,
    /// Slots of a service's table.
    pub table_size: u32,
    /// Source addresses.
    pub source_addresses: u64,
}

impl Demand {
    /// What this takes, at those costs, on a machine with so many CPUs.
    ///
    /// # Errors
    /// Where one machine's tables cannot hold it: which, and how many they hold.
    pub fn forecast(&self, costs: &Costs, cpus: u32) -> Result<Forecast, String> {
        let limits = self.limits()?;
        let bytes = footprint(&limits, cpus);
        let memory = |names: &[&str]| -> u64 {
            bytes.iter().filter(|(map, _)| names.contains(map)).map(|(_, bytes)| bytes).sum()
        };
        let flows = memory(&[lb_common::maps::FLOWS4, lb_common::maps::FLOWS6]);
        let (packet_ns, new_flow_ns) = (self.mean(|t| costs.packet(t)), self.mean(|t| costs.new_flow(t)));
        let established = self.packets.saturating_sub(self.new_connections);
        let load = (established as f64 * packet_ns + self.new_connections as f64 * new_flow_ns) / 1e9;
        let cores = ((load / BUSY).ceil() as u64).max(1);
        let links = ((self.bandwidth as f64 / FULL / self.link as f64).ceil() as u64).max(1);
        Ok(Forecast {
            memory_bytes: bytes.iter().map(|(_, bytes)| bytes).sum(),
            bytes_per_connection: flows as f64 / self.connections.max(1) as f64,
            packet_ns,
            new_flow_ns,
            load,
            cores,
            packets_per_core: (1e9 / packet_ns) as u64,
            links,
            source_addresses: self.source_addresses(),
            binds_first: self.binds_first(load / cores as f64, links),
            remarks: self.remarks(costs),
            limits: PlannedLimits {
                flows: u64::from(limits.flows),
                flows6: u64::from(limits.flows6()),
                services: u64::from(limits.services),
                backends: u64::from(limits.backends),
                table_size: limits.table_size,
                source_addresses: u64::from(limits.source_addresses),
            },
        })
    }

    /// Entries that the flow tables hold: closed connections stay for a minute.
    fn entries(&self) -> u64 {
        match self.track {
            Track::Full => self.connections.saturating_add(self.new_connections.saturating_mul(LINGER)),
            // Those of slots that have changed hands; a tenth of them is a change of a tenth of the backends.
            Track::Exceptions => self.connections / 10,
        }
    }

    fn limits(&self) -> Result<Limits, String> {
        let entries6 = (u128::from(self.entries()) * u128::from(self.ipv6) / 100) as u64;
        let within = |what: &str, wanted: u64, (low, high): (u32, u32)| -> Result<u32, String> {
            let wanted = wanted.max(u64::from(low));
            u32::try_from(wanted).ok().filter(|wanted| *wanted <= high).ok_or_else(|| {
                format!(
                    "{what}: {wanted} are needed, and one machine's table holds {high} at most; share the load between machines"
                )
            })
        };
        Ok(Limits {
            flows: within("IPv4 flows", self.entries() - entries6, config::FLOWS)?,
            flows6: Some(within("IPv6 flows", entries6, config::FLOWS6)?),
            services: within("services", self.services, config::SERVICES)?,
            backends: within("backends", self.backends, config::BACKENDS)?,
            source_addresses: within("source addresses", self.source_addresses(), config::SOURCE_ADDRESSES)?,
            ..Limits::default()
        })
    }

    /// A port serves one flow at a time, whatever its backend, and rests when the flow has ended.
    fn source_addresses(&self) -> u64 {
        match self.mode {
            Mode::Dnat => 0,
            Mode::FullNat => {
                let ports = u64::from(Limits::default().source_ports.count());
                // Nine tenths: beyond them a client may find none of the ports that it looks at free.
                let busy = self.new_connections.saturating_mul(LINGER + REST);
                self.connections.saturating_add(busy).div_ceil(ports * 9 / 10).max(1)
            }
        }
    }

    /// The mean of what the two families' packets cost.
    fn mean(&self, cost: impl Fn(Traffic) -> f64) -> f64 {
        let by_exception = self.track == Track::Exceptions;
        let of = |family| cost(Traffic { family, flows: self.connections, by_exception });
        let ipv6 = self.ipv6 as f64 / 100.0;
        of(4) * (1.0 - ipv6) + of(6) * ipv6 + self.driver
    }

    fn binds_first(&self, busy: f64, links: u64) -> &'static str {
        let link = self.bandwidth as f64 / (links * self.link) as f64 / FULL;
        if link > busy / BUSY { "links" } else { "cores" }
    }

    fn remarks(&self, costs: &Costs) -> Vec<String> {
        let measured = costs.measured_flows();
        let mut remarks = Vec::new();
        if self.connections > measured && self.track == Track::Full {
            let measured = Quantity(measured);
            remarks.push(format!(
                "costs were measured with up to {measured} flows; beyond them they are drawn out on a logarithm"
            ));
        }
        if self.mode == Mode::FullNat {
            remarks.push("full NAT was not measured: its packets pay for a port's row on top".to_owned());
        }
        if self.track == Track::Exceptions {
            remarks.push(
                "by exception only flows of slots that changed hands are held: a tenth of them is provided for".to_owned(),
            );
        }
        remarks
    }
}

#[cfg(test)]
mod tests;
