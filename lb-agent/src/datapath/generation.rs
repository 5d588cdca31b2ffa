//! What belongs to one loaded program and is no map of the data plane: its stages, and the tracepoint programs that
//! count what the kernel does with its verdicts.
//!
//! A program array is not swapped together with a link, and it is emptied when its last reference from userspace
//! goes: so there is one for each loaded program, pinned for as long as that program may run.

use std::ffi::CStr;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use aya::maps::{HashMap, MapData, ProgramArray};
use aya::programs::TracePoint;
use aya::programs::links::FdLink;
use aya::util::KernelVersion;
use lb_common::maps;
use lb_ebpf::verdict::Stage;
use rustix::mount::{MountFlags, mount};
use tracing::{info, warn};

use super::load::{ENTRY, Loaded, chain, refused};
use super::pins::{PinDir, unpin_all};

/// Where distributions mount tracefs.
const TRACEFS: &str = "/sys/kernel/tracing";

/// The tracepoint programs: each has the name of its tracepoint.
const TRACEPOINTS: [&str; 4] = ["xdp_redirect_err", "xdp_exception", "xdp_bulk_tx", "xdp_devmap_xmit"];

/// Puts the stages in place and pins them.
pub(super) fn fill_stages(loaded: &mut Loaded, directory: &Path) -> anyhow::Result<()> {
    let mut descriptors = Vec::new();
    for stage in Stage::ALL {
        let program = loaded.xdp(stage.program())?;
        descriptors.push((stage.index(), program.fd()?.try_clone().context("cannot copy a descriptor")?));
    }
    let map =
        loaded.object.map_mut(maps::STAGES).ok_or_else(|| anyhow!("the BPF object has no map STAGES"))?;
    let mut stages: ProgramArray<&mut MapData> = ProgramArray::try_from(map).context("map STAGES")?;
    for (index, program) in &descriptors {
        stages.set(*index, program, 0).with_context(|| format!("cannot set stage {index}"))?;
    }
    let map = loaded.object.map(maps::STAGES).ok_or_else(|| anyhow!("the BPF object has no map STAGES"))?;
    let path = directory.join(maps::STAGES);
    map.pin(&path).map_err(|error| anyhow!("cannot pin {}: {}", path.display(), chain(&error)))
}

/// Has the tracepoint programs count what becomes of this program's packets. Without them those counters stay zero,
/// and nothing else is lost.
pub(super) fn trace(loaded: &mut Loaded, interfaces: &[u32], directory: &Path) {
    let attached = mount_tracefs()
        .and_then(|()| watch(loaded, interfaces))
        .and_then(|()| TRACEPOINTS.iter().try_for_each(|name| attach_tracepoint(loaded, name, directory)));
    if let Err(error) = attached {
        warn!("redirects and transmissions that fail after the verdict are not counted: {error:#}");
    }
}

/// Where tracepoints are looked up by name. The kernel mounts it by itself only below debugfs, where that is mounted.
fn mount_tracefs() -> anyhow::Result<()> {
    let places = [TRACEFS, "/sys/kernel/debug/tracing"];
    if places.iter().any(|place| Path::new(place).join("events").exists()) || !Path::new(TRACEFS).exists() {
        return Ok(());
    }
    mount("tracefs", TRACEFS, "tracefs", MountFlags::empty(), None::<&CStr>)
        .with_context(|| format!("cannot mount tracefs at {TRACEFS}"))?;
    info!("mounted tracefs at {TRACEFS}");
    Ok(())
}

/// Has the tracepoint programs count for these interfaces, and for every stage.
pub(super) fn watch(loaded: &mut Loaded, interfaces: &[u32]) -> anyhow::Result<()> {
    let mut keys: Vec<_> =
        interfaces.iter().map(|&index| maps::WATCHED_INTERFACE | u64::from(index)).collect();
    for name in Stage::ALL.iter().map(|stage| stage.program()).chain([ENTRY]) {
        keys.push(u64::from(loaded.xdp(name)?.info().context("cannot ask about a program")?.id()));
    }
    let map =
        loaded.object.map_mut(maps::WATCHED).ok_or_else(|| anyhow!("the BPF object has no map WATCHED"))?;
    let mut watched: HashMap<&mut MapData, u64, u32> = HashMap::try_from(map).context("map WATCHED")?;
    keys.iter().try_for_each(|key| watched.insert(key, 1, 0)).context("cannot write WATCHED")
}

fn attach_tracepoint(loaded: &mut Loaded, name: &str, directory: &Path) -> anyhow::Result<()> {
    let program =
        loaded.object.program_mut(name).ok_or_else(|| anyhow!("the BPF object has no program {name}"))?;
    let program: &mut TracePoint = program.try_into().with_context(|| format!("program {name}"))?;
    program.load().map_err(|error| refused(name, &error))?;
    let id = program
        .attach("xdp", name)
        .map_err(|error| anyhow!("cannot attach to tracepoint xdp/{name}: {}", chain(&error)))?;
    // Links to tracepoints are from kernel 5.15; before, the attachment lives as long as this process.
    if KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(5, 15, 0)) {
        let link = FdLink::try_from(program.take_link(id)?).map_err(|error| anyhow!(chain(&error)))?;
        link.pin(directory.join(name))
            .map_err(|error| anyhow!("cannot pin the tracepoint: {}", chain(&error)))?;
    }
    Ok(())
}

/// Lets go of the generations before `current`, which no interface runs any more.
pub(super) fn drop_older(pins: &PinDir, current: u32) -> anyhow::Result<()> {
    for number in pins.generations()?.into_iter().filter(|&number| number != current) {
        unpin_all(&pins.generation(number))?;
        info!(generation = number, "let go of the program before");
    }
    Ok(())
}
