//! The BPF object as it ships, in the kernel: the only place of the tests that loads it.

mod mapping;
mod verified;

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail, ensure};
use aya::maps::{Map, MapData, ProgramArray};
use aya::programs::{ProgramError, TestRun as _, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use lb_common::maps;
use lb_ebpf::verdict::Stage;

pub(crate) use mapping::Mapping;
pub use verified::{Verified, verify};

/// The entry program.
const ENTRY: &str = "balance";
/// The program that tells the kernel's clock.
const CLOCK: &str = "clock";
/// The longest frame that a run may return: what the kernel takes in one page, and what an answer adds in front.
const FRAME_ROOM: usize = 4096;

/// The object with its XDP programs loaded, stages in place, and maps of the caller's sizes.
pub(crate) struct Object {
    object: Ebpf,
    /// The program array's descriptor: the kernel empties the array when nobody in userspace holds it.
    _stages: ProgramArray<MapData>,
}

impl Object {
    /// Loads `lb.bpf.o`, with so many rows in each of these maps.
    pub(crate) fn load<'n>(sizes: impl IntoIterator<Item = (&'n str, u32)>) -> Result<Self> {
        let mut object = create("lb.bpf.o", sizes)?;
        for name in [ENTRY, CLOCK].into_iter().chain(Stage::ALL.map(Stage::program)) {
            xdp(&mut object, name)?.load().map_err(|error| refused(name, &error))?;
        }
        let map = object.take_map(maps::STAGES).with_context(|| no_map(maps::STAGES))?;
        let mut stages = ProgramArray::try_from(map)?;
        for stage in Stage::ALL {
            let program = xdp(&mut object, stage.program())?.fd()?.try_clone()?;
            stages.set(stage.index(), &program, 0)?;
        }
        Ok(Self { object, _stages: stages })
    }

    /// Takes a map that is not an array out of the object.
    pub(crate) fn take(&mut self, name: &str) -> Result<Map> {
        self.object.take_map(name).with_context(|| no_map(name))
    }

    /// Maps rows of one of the object's arrays into memory.
    ///
    /// # Safety
    ///
    /// As [`Mapping::map`].
    pub(crate) unsafe fn rows<T>(&self, name: &str, length: u32) -> Result<Mapping<T>> {
        let Some(Map::Array(array)) = self.object.map(name) else {
            bail!("the BPF object has no array {name}")
        };
        // SAFETY: the caller's promise.
        unsafe { Mapping::map(array.fd().as_fd(), length) }.with_context(|| name.to_owned())
    }

    /// Attaches the entry program, in native mode, to an interface of this thread's network namespace.
    pub(crate) fn attach(&mut self, interface: &str) -> Result<()> {
        xdp(&mut self.object, ENTRY)?
            .attach(interface, XdpMode::Driver)
            .with_context(|| format!("cannot attach the program to {interface}"))?;
        Ok(())
    }

    /// The entry program.
    pub(crate) fn entry(&self) -> Result<OwnedFd> {
        let fd = self.program(ENTRY)?.fd().context("the entry program is not loaded")?;
        Ok(fd.as_fd().try_clone_to_owned()?)
    }

    /// Runs a frame through the entry program; what it returned, and the frame after it.
    ///
    /// # Errors
    /// When the kernel does not take the frame: less than a link-layer header, or more than fits in a page.
    pub(crate) fn run(&self, frame: &[u8]) -> Result<(u32, Vec<u8>)> {
        self.run_program(ENTRY, frame)
    }

    /// The kernel's clock.
    pub(crate) fn jiffies(&self) -> Result<u64> {
        let (_, bytes) = self.run_program(CLOCK, &[0; 64])?;
        let word = bytes.first_chunk().context("the clock program cut its packet off")?;
        Ok(u64::from_ne_bytes(*word))
    }

    fn run_program(&self, name: &str, frame: &[u8]) -> Result<(u32, Vec<u8>)> {
        let mut out = vec![0; FRAME_ROOM];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = self.program(name)?.test_run(options)?;
        let length = result.data_size_out as usize;
        ensure!(length <= out.len(), "a frame of {length} bytes came out");
        out.truncate(length);
        Ok((result.return_value, out))
    }

    fn program(&self, name: &str) -> Result<&Xdp> {
        let program = self.object.program(name).with_context(|| no_program(name))?;
        program.try_into().with_context(|| format!("program {name}"))
    }
}

/// CPUs that the kernel may ever use, which are numbered up to there.
pub(crate) fn possible_cpus() -> Result<u32> {
    let count = aya::util::nr_cpus().map_err(|(file, error)| anyhow!("cannot read {file}: {error}"))?;
    Ok(count as u32)
}

/// Reads an object from where `cargo xtask build` leaves it, and makes its maps.
fn create<'n>(file: &str, sizes: impl IntoIterator<Item = (&'n str, u32)>) -> Result<Ebpf> {
    let directory = std::env::var_os("LB_BPF_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bpf"), PathBuf::from);
    let path = directory.join(file);
    let bytes = std::fs::read(&path)
        .with_context(|| format!("cannot read {}; `cargo xtask build` makes it", path.display()))?;
    let mut loader = EbpfLoader::new();
    for (name, rows) in sizes {
        loader.map_max_entries(name, rows);
    }
    loader.load(&bytes).with_context(|| format!("cannot load {}", path.display()))
}

fn xdp<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = object.program_mut(name).with_context(|| no_program(name))?;
    program.try_into().with_context(|| format!("program {name}"))
}

fn no_program(name: &str) -> String {
    format!("the BPF object has no program {name}")
}

fn no_map(name: &str) -> String {
    format!("the BPF object has no map {name}")
}

/// Why the kernel refuses a program: of the verifier's log, which has thousands of lines, the last that is no statistic.
fn refused(program: &str, error: &ProgramError) -> anyhow::Error {
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return anyhow!("the kernel refuses program {program}: {error}");
    };
    let log = verifier_log.to_string();
    let statistics = ["processed ", "verification time ", "stack depth "];
    let last = log
        .lines()
        .rfind(|line| !line.is_empty() && !statistics.iter().any(|start| line.starts_with(start)))
        .unwrap_or("no reason given");
    anyhow!("the kernel refuses program {program}: {io_error}: {last}")
}
