//! The data plane in the kernel: one task of the agent owns it, through the [`Datapath`] trait.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use aya::maps::HashMap;
use aya::maps::lpm_trie::LpmTrie;
use aya::programs::Program;
use lb_common::maps;
use lb_common::service::{Options, Service, Table};
use lb_common::slot;
use tracing::{debug, warn};

mod follow;

pub use super::detach::{Detached, detach};

use super::attachments::Attachments;
use super::attendance;
use super::clock;
use super::diagnostics::Diagnostics;
use super::exceptions::{self, NewTable};
use super::execute::{World, execute, rest};
use super::host::Host;
use super::identity::Endpoint;
use super::links::Links;
use super::load::{Loaded, load};
use super::observed::{Observed, Occupancy, Rested, region_of, service_key, use_of_service};
use super::pins::PinDir;
use super::plan::{self, Action, TableInputs, diff};
use super::prefixes::Trie;
use super::sources::use_of_sources;
use super::start::{bring_up, interfaces, sizes};
use super::sweep::Sweep;
use super::sysctl::Sysctl;
use super::view::{self, View};
use super::vip::Vips;
use super::{
    ConnectTime, Datapath, EventCount, Explanation, FlowCursor, FlowInfo, FlowLoad, FlowPage,
    InterfaceStatus, Move, Network, Plan, ReasonCount, ServiceId, SourceAddress, Traffic, Wanted,
    WantedService,
};
use crate::config::{Config, XdpMode};
use crate::model::Protocol;

/// Ticks between two looks at the network around, in case that something was not told, or refused before.
const NETWORK_EVERY: u32 = 5;

/// Buckets of the flow tables whose flows are listed in one go: less than a millisecond, some thousand flows at rated load.
const BUCKETS_PER_PAGE: usize = 1 << 12;

/// Attaches the program to the configured interfaces, or takes over what an agent before has left attached.
///
/// # Errors
///
/// Where an interface is missing or refuses the program, where the kernel refuses the object, or where what is
/// pinned was made with other limits or by another version. A start that fails leaves nothing new behind.
pub fn open(config: &Config) -> anyhow::Result<(Box<dyn Datapath>, Network)> {
    let pins = PinDir::create(&config.pin_dir)?;
    let fresh = pins.linked()?.is_empty();
    drop(pins);
    match Kernel::open(config) {
        Ok(kernel) => {
            let network = kernel.network.clone();
            Ok((Box::new(kernel), network))
        }
        Err(error) => {
            if fresh && let Err(left) = detach(&config.pin_dir) {
                warn!("something is left in {}: {left:#}", config.pin_dir.display());
            }
            Err(error)
        }
    }
}

/// The kernel's data plane.
struct Kernel {
    loaded: Loaded,
    attachments: Attachments,
    mode: XdpMode,
    network: Network,
    flow_capacity: u64,
    /// Backend rows by service and endpoint.
    rows: BTreeMap<(Endpoint, Endpoint), u16>,
    rested: Rested,
    known: BTreeMap<u16, TableInputs>,
    sweep: Sweep,
    ticks: u32,
    links: Links,
    host: Host,
    diagnostics: Option<Diagnostics>,
    unattended: Option<Duration>,
    /// Holds the lock on the pin directory, too.
    pins: PinDir,
}

impl Kernel {
    fn open(config: &Config) -> anyhow::Result<Self> {
        let pins = PinDir::create(&config.pin_dir)?;
        // Before the first look, so that nothing goes unseen in between.
        let network = Network::listen()?;
        let all = interfaces(config)?;
        let sizes = sizes(config)?;
        let mut loaded = load(&pins, sizes, config.diagnostics)?;
        let diagnostics = config.diagnostics.then(|| Diagnostics::take(&mut loaded.object)).transpose()?;
        let attachments = bring_up(&mut loaded, &pins, config, &all)?;
        let mut sysctl = Sysctl::open(pins.path())?;
        for InterfaceStatus { name, .. } in attachments.statuses().iter().filter(|each| each.mode != "none") {
            sysctl.forward_ipv4(name).with_context(|| format!("interface {name}"))?;
        }
        let map =
            loaded.object.take_map(maps::LINKS).ok_or_else(|| anyhow!("the BPF object has no map LINKS"))?;
        let mut links = Links::new(HashMap::try_from(map).context("map LINKS")?)?;
        links.update(&all);
        let map = loaded.object.take_map(maps::PREFIXES);
        let map = map.ok_or_else(|| anyhow!("the BPF object has no map PREFIXES"))?;
        let trie = Trie::open(LpmTrie::try_from(map).context("map PREFIXES")?)?;
        let vips = match (config.manage_vips, attachments.first()) {
            (true, Some(first)) => {
                Some(Vips::open(pins.path(), sizes.services + sizes.source_addresses, first)?)
            }
            _ => None,
        };
        let mut rested = Rested::default();
        if !loaded.adopted {
            // No packet has ever read these maps.
            rest(&loaded.arrays, &mut rested);
        }
        let unattended = attendance::unattended(&loaded.arrays);
        let mut kernel = Self {
            loaded,
            attachments,
            mode: config.xdp_mode,
            network,
            flow_capacity: u64::from(config.limits.flows) + u64::from(config.limits.flows6()),
            rows: BTreeMap::new(),
            rested,
            known: BTreeMap::new(),
            sweep: Sweep::default(),
            ticks: 0,
            links,
            host: Host::new(vips, trie, sysctl),
            diagnostics,
            pins,
            unattended,
        };
        kernel.index_rows();
        Ok(kernel)
    }

    fn observed(&self) -> anyhow::Result<Observed> {
        let addresses = self.host.vips.as_ref().map(Vips::addresses).transpose()?;
        let lists = self.host.trie.lists.clone();
        Ok(Observed { lists, ..Observed::read(&self.loaded.arrays, &self.rested, addresses) })
    }

    fn diff(&self, wanted: &Wanted) -> anyhow::Result<plan::Plan> {
        diff(&self.loaded.arrays, self.observed()?, wanted, &self.known)
    }

    fn moves(&self, plan: &plan::Plan, wanted: &Wanted) -> Vec<Move> {
        let name = |vip: &Endpoint| {
            let same = |service: &&WantedService| Endpoint::new(service.vip, service.protocol) == *vip;
            wanted.services.iter().find(same).map_or_else(|| vip.to_string(), |service| service.name.clone())
        };
        let moves = plan::moves::moves(&self.loaded.arrays, &plan.actions);
        moves.into_iter().map(|(vip, each)| Move { service: name(&vip), ..each }).collect()
    }

    /// Where services in use change between full NAT and another mode: what is wanted without them, and their names.
    ///
    /// A flow's word means something else then, so such a service ends with its flows and is added anew.
    fn apart(&self, wanted: &Wanted) -> Option<(Wanted, Vec<String>)> {
        let observed = Observed::read(&self.loaded.arrays, &self.rested, None);
        let changes = |service: &WantedService| {
            let vip = Endpoint::new(service.vip, service.protocol);
            let now = observed.services.get(&vip).map(|service| service.options.has(Options::FULL_NAT));
            now.is_some_and(|full_nat| full_nat == service.source_pool.is_empty())
        };
        let (changed, kept): (Vec<_>, Vec<_>) = wanted.services.iter().cloned().partition(changes);
        let names: Vec<_> = changed.into_iter().map(|service| service.name).collect();
        (!names.is_empty()).then_some((Wanted { services: kept }, names))
    }

    /// As [`diff`](Self::diff), but no address is taken off the host: it is about to be needed again.
    fn diff_keeping_addresses(&self, wanted: &Wanted) -> anyhow::Result<plan::Plan> {
        let mut observed = self.observed()?;
        observed.addresses = None;
        diff(&self.loaded.arrays, observed, wanted, &self.known)
    }

    fn carry_out(&mut self, plan: &plan::Plan) -> anyhow::Result<()> {
        for action in &plan.actions {
            debug!(%action, "executing");
            execute(action, &mut self.loaded.arrays, &mut self.rested, &mut self.host)?;
        }
        Ok(())
    }

    fn index_rows(&mut self) {
        let arrays = &self.loaded.arrays;
        let observed = Observed::read(arrays, &self.rested, None);
        self.rows = observed
            .backends
            .iter()
            .map(|(&id, row)| ((service_key(&arrays.services[usize::from(row.service)]), row.endpoint), id))
            .collect();
    }

    fn jiffies(&self) -> anyhow::Result<u64> {
        let program = self.loaded.object.program(clock::PROGRAM);
        let Some(Program::Xdp(program)) = program else {
            bail!("the BPF object has no program {}", clock::PROGRAM)
        };
        clock::jiffies(program)
    }

    fn view(&self) -> View<'_> {
        let jiffies = self.jiffies().unwrap_or_else(|error| {
            warn!("{error:#}");
            0
        });
        View { arrays: &self.loaded.arrays, jiffies }
    }

    /// Expires flows, and lets memory and identifiers rest that nothing names any more.
    fn housekeeping(&mut self) -> anyhow::Result<()> {
        let now = self.loaded.arrays.settings().tick(self.jiffies()?);
        let wanted = || self.sweep.audits(now) || Sweep::wanted(&self.loaded.arrays) || self.is_restless();
        if self.sweep.begins() && wanted() {
            self.host.grace_period()?;
            rest(&self.loaded.arrays, &mut self.rested);
        }
        self.forget_bases(now)?;
        if let Some(pass) = self.sweep.step(&mut self.loaded.arrays, now) {
            let tables = exceptions::settled(&self.loaded.arrays, &pass);
            self.replace_tables(&tables)?;
        }
        Ok(())
    }

    /// Slots of services that track by exception forget former owners whose flows are over.
    fn forget_bases(&mut self, now: u64) -> anyhow::Result<()> {
        exceptions::date_changes(&self.loaded.arrays, now);
        let tables = exceptions::outlived(&self.loaded.arrays, now);
        self.replace_tables(&tables)?;
        for table in &tables {
            exceptions::forget_change(&self.loaded.arrays, table.service, now);
        }
        Ok(())
    }

    /// Gives services tables that say the same of new flows.
    fn replace_tables(&mut self, tables: &[NewTable]) -> anyhow::Result<()> {
        for NewTable { service, elements } in tables {
            let arrays = &mut self.loaded.arrays;
            let region = match self.rested.regions.pop_first() {
                Some(region) => region,
                None => {
                    self.host.grace_period()?;
                    rest(arrays, &mut self.rested);
                    self.rested.regions.pop_first().context("no free slot region")?
                }
            };
            let current = Table(arrays.services[usize::from(*service)].table.load());
            let table = current.at(region * slot::lines(arrays.sizes.table_size));
            for action in [
                Action::WriteTable { region, slots: elements.clone() },
                Action::SwitchTable { service: *service, table },
            ] {
                debug!(%action, "executing");
                execute(&action, arrays, &mut self.rested, &mut self.host)?;
            }
        }
        Ok(())
    }

    /// Whether something could be reused after a grace period: spent here, it is not spent by the next change.
    fn is_restless(&self) -> bool {
        let arrays = &self.loaded.arrays;
        let named = |row: &Service| region_of(Table(row.table.load()), arrays.sizes.table_size);
        let in_use = arrays.services.iter().filter_map(named).count();
        !self.rested.half || self.rested.regions.len() + in_use < arrays.sizes.regions() as usize
    }
}

impl Datapath for Kernel {
    fn plan(&self, wanted: &Wanted) -> anyhow::Result<Plan> {
        let Some((kept, changed)) = self.apart(wanted) else {
            let plan = self.diff(wanted)?;
            return Ok(Plan { moves: self.moves(&plan, wanted), steps: plan.steps });
        };
        let plan = self.diff_keeping_addresses(&kept)?;
        let moves = self.moves(&plan, wanted);
        let mut steps = plan.steps;
        steps.extend(changed.iter().map(|name| format!("service {name}: added anew, in the other mode")));
        Ok(Plan { steps, moves })
    }

    fn apply(&mut self, wanted: &Wanted) -> anyhow::Result<Plan> {
        let mut first = Vec::new();
        if let Some((kept, _)) = self.apart(wanted) {
            // What is wanted must not turn out to be impossible when half of it is done.
            plan::check(wanted)?;
            let plan = self.diff_keeping_addresses(&kept)?;
            self.known = BTreeMap::new();
            self.carry_out(&plan)?;
            first = plan.steps;
        }
        let plan = self.diff(wanted)?;
        if wanted.services.iter().any(|service| service.vip.is_ipv6()) {
            self.host.forward_ipv6()?;
        }
        let moves = self.moves(&plan, wanted);
        let carried_out = self.carry_out(&plan);
        // After a failure the rows tell how far it went; what tables were built from is not known any more.
        self.known = if carried_out.is_ok() { plan.tables } else { BTreeMap::new() };
        self.index_rows();
        carried_out.map(|()| Plan { steps: first.into_iter().chain(plan.steps).collect(), moves })
    }

    fn traffic(&self, service: ServiceId, backend: SocketAddr) -> Traffic {
        let vip = Endpoint::new(service.vip, service.protocol);
        let row = self.rows.get(&(vip, Endpoint::new(backend, service.protocol)));
        row.map_or_else(Traffic::default, |&id| view::traffic(&self.loaded.arrays, id))
    }

    fn connect_time(&self, service: ServiceId, backend: SocketAddr) -> Option<ConnectTime> {
        let vip = Endpoint::new(service.vip, service.protocol);
        let row = self.rows.get(&(vip, Endpoint::new(backend, service.protocol)))?;
        view::connect_time(&self.loaded.arrays, *row)
    }

    fn flows(&self, service: Option<ServiceId>, from: FlowCursor) -> FlowPage<FlowInfo> {
        let id = |service: ServiceId| {
            let vip = Endpoint::new(service.vip, service.protocol);
            let is_it = |row: &Service| use_of_service(row) == Occupancy::InUse && service_key(row) == vip;
            (0..).zip(self.loaded.arrays.services.iter()).find_map(|(id, row)| is_it(row).then_some(id))
        };
        match service.map(id) {
            Some(None) => FlowPage { flows: Vec::new(), next: None },
            id => self.view().flows(id.flatten(), from, BUCKETS_PER_PAGE),
        }
    }

    fn explain(&self, protocol: Protocol, client: SocketAddr, vip: SocketAddr) -> Explanation {
        self.view().explain(protocol, client, vip)
    }

    fn interfaces(&self) -> Vec<InterfaceStatus> {
        self.attachments.statuses()
    }

    fn flow_load(&self) -> FlowLoad {
        let sweep_cpu_microseconds = self.sweep.spent_at_last.as_micros().try_into().unwrap_or(u64::MAX);
        FlowLoad { active: self.sweep.live_at_last, capacity: self.flow_capacity, sweep_cpu_microseconds }
    }

    fn source_addresses(&self) -> Vec<SourceAddress> {
        use_of_sources(&self.loaded.arrays)
    }

    fn reasons(&self) -> Vec<ReasonCount> {
        view::reasons(&self.loaded.arrays)
    }

    fn events(&self) -> Vec<EventCount> {
        view::events(&self.loaded.arrays)
    }

    fn follow_network(&mut self) -> Vec<InterfaceStatus> {
        self.catch_up_with_network().unwrap_or_else(|error| {
            warn!("changes of the network are not followed: {error:#}");
            Vec::new()
        })
    }

    fn unattended(&self) -> Option<Duration> {
        self.unattended
    }

    fn tick(&mut self) {
        if let Err(error) = self.housekeeping() {
            warn!("idle flows are not expired: {error:#}");
        }
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(NETWORK_EVERY) {
            self.network.look();
            if let Err(error) = self.keep_neighbours_warm() {
                warn!("neighbours are not confirmed: {error:#}");
            }
        }
        if let Some(diagnostics) = &mut self.diagnostics {
            diagnostics.flush();
        }
        self.loaded.arrays.release();
        attendance::attend(&self.loaded.arrays);
    }
}
