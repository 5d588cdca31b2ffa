//! `lb-agent plan`: how large a machine has to be.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow, ensure};
use clap::Args;

use super::output::Output;
use crate::capacity::{Costs, Demand, Forecast, Quantity};
use crate::model::{Mode, Track};

/// Tells what a load takes: tables, memory, cores and links, from what packets were measured to cost.
///
/// It asks no agent. Numbers may have a suffix: k, M, G or T.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Connections that are open at the same time.
    #[arg(long, value_name = "N")]
    connections: Quantity,
    /// Connections that are opened in a second.
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true)]
    new_connections: Quantity,
    /// Packets in a second, requests and replies together.
    #[arg(long, value_name = "N")]
    packets: Quantity,
    /// Bits in a second, the larger of the two directions.
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true)]
    bandwidth: Quantity,
    /// The share of all that is IPv6, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=100))]
    ipv6: u64,
    /// How the services track flows: `full` or `exceptions`.
    #[arg(long, default_value = "full")]
    track: Track,
    /// How the services address backends: `dnat` or `full-nat`.
    #[arg(long, default_value = "dnat")]
    mode: Mode,
    /// Services.
    #[arg(long, value_name = "N", default_value = "512")]
    services: Quantity,
    /// Backends, counted once for each service that has them.
    #[arg(long, value_name = "N", default_value = "4096")]
    backends: Quantity,
    /// Bits that a link takes in a second.
    #[arg(long, value_name = "N", default_value = "25G")]
    link: Quantity,
    /// Nanoseconds that driver and kernel need for a packet beside the program: 20 to 60 are usual.
    #[arg(long, value_name = "NS", default_value_t = 40, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    driver: u32,
    /// What packets cost on a machine of yours, as `cargo xtask bench --json FILE` writes it, instead of the published figures.
    #[arg(long, value_name = "FILE")]
    bench: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  lb-agent plan --connections 1M --new-connections 20k --packets 3M --bandwidth 15G
  lb-agent plan --connections 10M --packets 10M --ipv6 30 --track exceptions
  lb-agent plan --connections 200k --packets 1M --mode full-nat --bench rows.json";

impl Arguments {
    pub(super) fn execute(self, output: &Output) -> anyhow::Result<()> {
        ensure!(self.link.0 > 0, "invalid --link 0: a link takes at least one bit in a second");
        let costs = match &self.bench {
            Some(path) => {
                let text = std::fs::read_to_string(path);
                let text = text.with_context(|| format!("cannot read {}", path.display()))?;
                Costs::parse(&text).with_context(|| path.display().to_string())?
            }
            None => Costs::published()?,
        };
        let demand = self.demand();
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u32);
        let forecast = demand.forecast(&costs, cpus).map_err(|error| anyhow!(error))?;
        output.data(&forecast, text)
    }

    fn demand(&self) -> Demand {
        Demand {
            connections: self.connections.0,
            new_connections: self.new_connections.0,
            packets: self.packets.0,
            bandwidth: self.bandwidth.0,
            ipv6: self.ipv6,
            track: self.track,
            mode: self.mode,
            services: self.services.0,
            backends: self.backends.0,
            link: self.link.0,
            driver: f64::from(self.driver),
        }
    }
}

fn text(forecast: &Forecast) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<14}{value}");
    };
    let megabytes = forecast.memory_bytes.div_ceil(1 << 20);
    line(
        "memory",
        format!("{megabytes} MiB of tables, {:.0} bytes a connection", forecast.bytes_per_connection),
    );
    line(
        "packet",
        format!(
            "{:.0} ns of an established flow, {:.0} ns of a new one",
            forecast.packet_ns, forecast.new_flow_ns
        ),
    );
    line(
        "cores",
        format!(
            "{} for receive queues, {:.0} % busy; one carries {} packets a second at most",
            forecast.cores,
            100.0 * forecast.load / forecast.cores as f64,
            Quantity(forecast.packets_per_core)
        ),
    );
    line("links", forecast.links.to_string());
    line("binds first", forecast.binds_first.to_owned());
    for remark in &forecast.remarks {
        line("note", remark.clone());
    }
    text + &limits(forecast)
}

/// What to write into the configuration.
fn limits(forecast: &Forecast) -> String {
    let limits = &forecast.limits;
    let mut text = format!(
        "\n[limits]\nflows = {}\nflows6 = {}\nservices = {}\nbackends = {}\n",
        limits.flows, limits.flows6, limits.services, limits.backends
    );
    if forecast.source_addresses > 0 {
        let _ = writeln!(text, "source_addresses = {}", limits.source_addresses);
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    /// What the command computes for the options in the first cell of a row, as the row has it.
    fn computed(options: &str, costs: &Costs) -> String {
        let words = std::iter::once("plan").chain(options.split_whitespace());
        let demand = Line::try_parse_from(words).unwrap().arguments.demand();
        let Forecast { memory_bytes, packet_ns, cores, links, binds_first, .. } =
            demand.forecast(costs, 2).unwrap();
        let megabytes = memory_bytes.div_ceil(1 << 20);
        format!("| `{options}` | {megabytes} | {packet_ns:.0} | {cores} | {links} | {binds_first} |")
    }

    #[test]
    fn the_design_document_s_capacity_table_is_what_is_computed() {
        let page = include_str!("../../../docs/design/operation.md");
        let costs = Costs::published().unwrap();
        let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| `--connections ")).collect();
        assert!(rows.len() > 4, "{rows:?}");
        for row in rows {
            let options = row.split('`').nth(1).unwrap();
            assert_eq!(row, computed(options, &costs));
        }
    }
}
