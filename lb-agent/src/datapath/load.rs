//! Loads the BPF object and takes over, or creates, the maps it works on.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::{Context as _, anyhow, bail, ensure};
use aya::maps::{Map, MapData, MapInfo};
use aya::programs::{Program, ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader};
use lb_common::settings::Settings;
use lb_common::{ABI_VERSION, maps};
use lb_ebpf::verdict::Stage;
use tracing::{debug, info};

use super::arrays::{Arrays, Sizes};
use super::clock;
use super::pins::{PinDir, unpin};
use super::rows::Rows;
use crate::config::PortRange;

/// The object that balances.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb.bpf.o"));
/// The same with logging.
static DIAGNOSTICS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-log.bpf.o"));

/// Name of the entry program.
pub(super) const ENTRY: &str = "balance";

/// A loaded object and its rows.
pub(super) struct Loaded {
    pub(super) object: Ebpf,
    pub(super) arrays: Arrays,
    /// Whether the maps were there before.
    pub(super) adopted: bool,
}

/// Loads the object over the maps pinned in `pins`; those that are missing are created.
pub(super) fn load(pins: &PinDir, sizes: Sizes, diagnostics: bool) -> anyhow::Result<Loaded> {
    let adopted = check(pins, &sizes)?;
    let mut loader = EbpfLoader::new();
    for (name, rows) in sizes.rows() {
        loader.map_max_entries(name, rows).map_pin_path(name, pins.map(name));
    }
    let object = loader
        .load(if diagnostics { DIAGNOSTICS } else { OBJECT })
        .map_err(|error| anyhow!("cannot create the BPF maps: {}", chain(&error)))?;
    let arrays = Arrays::map(sizes, |name| descriptor(&object, name))?;
    let mut loaded = Loaded { object, arrays, adopted };
    loaded.verify_all()?;
    if !adopted {
        loaded.write_settings()?;
    }
    Ok(loaded)
}

/// Has the kernel verify every program over maps of the smallest size, and lets go of all of it; how many those were.
pub(super) fn try_out() -> anyhow::Result<usize> {
    let cpus = aya::util::nr_cpus().map_err(|(file, error)| anyhow!("cannot read {file}: {error}"))?;
    let sizes = Sizes {
        flows: 1024,
        flows6: 16,
        services: 1,
        backends: 1,
        table_size: 251,
        cpus: cpus as u32,
        source_addresses: 1,
        source_ports: PortRange { first: 1024, last: 1024 },
    };
    let mut loader = EbpfLoader::new();
    for (name, rows) in sizes.rows() {
        loader.map_max_entries(name, rows);
    }
    let object =
        loader.load(OBJECT).map_err(|error| anyhow!("cannot create the BPF maps: {}", chain(&error)))?;
    let arrays = Arrays::map(sizes, |name| descriptor(&object, name))?;
    let mut loaded = Loaded { object, arrays, adopted: false };
    loaded.verify_all()
}

impl Loaded {
    /// Loads every XDP program of the object into the kernel, side by side: the verifier takes seconds for all of them
    /// on one CPU. How many those are.
    ///
    /// # Errors
    ///
    /// That of the first one which is refused, in the order of the stages: the same at every start.
    pub(super) fn verify_all(&mut self) -> anyhow::Result<usize> {
        let names: Vec<_> =
            Stage::ALL.iter().map(|stage| stage.program()).chain([ENTRY, clock::PROGRAM]).collect();
        let mut refusals: Vec<(usize, anyhow::Error)> = std::thread::scope(|scope| {
            let mut loading = Vec::new();
            for (name, program) in self.object.programs_mut() {
                let Some(place) = names.iter().position(|wanted| *wanted == name) else { continue };
                let name = names[place];
                loading.push((place, scope.spawn(move || load_xdp(name, program).map(drop))));
            }
            loading
                .into_iter()
                .filter_map(|(place, thread)| {
                    let result = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                    result.err().map(|error| (place, error))
                })
                .collect()
        });
        refusals.sort_by_key(|(place, _)| *place);
        refusals.into_iter().next().map_or(Ok(names.len()), |(_, error)| Err(error))
    }

    /// A program of the object, loaded into the kernel.
    pub(super) fn xdp(&mut self, name: &str) -> anyhow::Result<&mut Xdp> {
        let program =
            self.object.program_mut(name).ok_or_else(|| anyhow!("the BPF object has no program {name}"))?;
        load_xdp(name, program)
    }

    /// Random numbers are a keyed hash of their count: no two CPUs begin at the same.
    fn seed_draws(&mut self) -> anyhow::Result<()> {
        let mut bytes = [0; 8];
        for row in self.arrays.outcomes.iter() {
            rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
                .context("cannot draw where random numbers begin")?;
            row.draws.store(u64::from_ne_bytes(bytes));
        }
        Ok(())
    }

    /// Written last of all that is new: settings with a version say that the maps are complete.
    fn write_settings(&mut self) -> anyhow::Result<()> {
        let jiffies_per_second = clock::calibrate(self.xdp(clock::PROGRAM)?)?;
        let mut key = [0; 8];
        let drawn = rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty())
            .context("cannot draw the flow table's key")?;
        ensure!(
            drawn == key.len(),
            "cannot draw the flow table's key: {drawn} bytes of randomness instead of 8"
        );
        let settings = self.arrays.sizes.settings(jiffies_per_second, u64::from_ne_bytes(key));
        info!(jiffies_per_second, "created the BPF maps");
        self.seed_draws()?;
        self.arrays.settings.write(0, settings);
        Ok(())
    }
}

/// The program, loaded into the kernel if it is not yet.
fn load_xdp<'a>(name: &str, program: &'a mut Program) -> anyhow::Result<&'a mut Xdp> {
    let xdp: &mut Xdp = program.try_into().with_context(|| format!("program {name}"))?;
    if xdp.fd().is_err() {
        xdp.load().map_err(|error| refused(name, &error))?;
    }
    Ok(xdp)
}

/// Compares what is pinned with what is configured. False where there is nothing complete to adopt.
fn check(pins: &PinDir, sizes: &Sizes) -> anyhow::Result<bool> {
    let settings = match pins.map(maps::SETTINGS).exists() {
        true => read_settings(pins)?,
        false => Settings::default(),
    };
    if settings.abi == 0 {
        // None yet, or an agent died while it made them: nothing can have been attached.
        for name in maps::PINNED.iter().filter(|name| pins.map(name).exists()) {
            unpin(&pins.map(name))?;
        }
        return Ok(false);
    }
    let stop = "run `lb-agent detach`, which interrupts traffic, then start again";
    if settings.abi != ABI_VERSION {
        bail!(
            "the maps pinned in {} have layout version {}, this agent has {ABI_VERSION}: {stop}",
            pins.path().display(),
            settings.abi
        );
    }
    let new = sizes.settings(settings.jiffies_per_second, settings.flow_key);
    let range = |settings: &Settings| {
        let first = settings.pool_port;
        format!("{first}-{}", first + settings.pool_ports() - 1)
    };
    if range(&settings) != range(&new) {
        bail!(
            "[limits] source_ports: the running data plane uses {}, the configuration asks for {}: restore the limit, or {stop}",
            range(&settings),
            range(&new)
        );
    }
    for (name, rows) in sizes.rows() {
        let Ok(info) = MapInfo::from_pin(pins.map(name)) else { continue };
        let (there, wanted) = (info.max_entries(), rows);
        if there != wanted {
            bail!(
                "[limits] {}: the running data plane has {there} rows in {name}, the configuration asks for {wanted}: \
                 restore the limit, or {stop}",
                limit(name)
            );
        }
    }
    Ok(true)
}

/// The limit that a map's size follows from.
fn limit(map: &str) -> &'static str {
    match map {
        maps::FLOWS4 => "flows",
        maps::FLOWS6 => "flows6, by default a quarter of flows",
        maps::SERVICES | maps::SERVICE_STATES => "services",
        maps::BACKENDS | maps::LOADS => "backends",
        maps::DIRECTORY | maps::TRAFFIC => "services or backends",
        maps::POOL_ADDRESSES | maps::PORTS => "source_addresses or source_ports",
        maps::SLOTS => "services or table_size",
        _ => "(fixed, or by the number of CPUs)",
    }
}

fn read_settings(pins: &PinDir) -> anyhow::Result<Settings> {
    let map = MapData::from_pin(pins.map(maps::SETTINGS)).context("cannot open the pinned SETTINGS")?;
    let size = map.info().context("cannot ask about SETTINGS")?.value_size() as usize;
    ensure!(
        size == size_of::<Settings>(),
        "SETTINGS in {} has {size} bytes a row instead of {}: not made by this software, choose another pin_dir",
        pins.path().display(),
        size_of::<Settings>()
    );
    let rows: Rows<Settings> = Rows::map(map.fd(), 1).context("cannot map SETTINGS into memory")?;
    Ok(rows[0].clone())
}

/// The descriptor of one of the object's maps. A duplicate: it is needed only while memory is mapped.
fn descriptor(object: &Ebpf, name: &str) -> anyhow::Result<OwnedFd> {
    let map = object.map(name).ok_or_else(|| anyhow!("the BPF object has no map {name}"))?;
    let Map::Array(data) = map else { bail!("map {name} of the BPF object is not an array") };
    let fd: BorrowedFd<'_> = data.fd().as_fd();
    fd.try_clone_to_owned().with_context(|| format!("map {name}"))
}

/// A program that the kernel does not take. The verifier's whole log, thousands of lines, goes to the debug log.
pub(super) fn refused(name: &str, error: &ProgramError) -> anyhow::Error {
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return anyhow!("the kernel refuses program {name}: {}", chain(error));
    };
    let log = verifier_log.to_string();
    debug!(program = name, "{log}");
    let statistics = ["processed ", "verification time ", "stack depth "];
    let last = log
        .lines()
        .rfind(|line| !line.trim().is_empty() && !statistics.iter().any(|start| line.starts_with(start)))
        .unwrap_or("no reason given");
    anyhow!("the kernel refuses program {name}: {io_error}: {} (whole log at level debug)", last.trim())
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
