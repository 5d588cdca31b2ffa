//! The BPF program as the kernel has it, fed with frames by `BPF_PROG_TEST_RUN`.
//!
//! Loaded once for a process, since the verifier takes a second for it, and lent to one test at a time. It runs in a
//! network namespace without a name, which ends with the process, and whose routing table answers as
//! [`crate::lab::routes`] says.

mod arrays;
mod namespace;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{HashMap, Map, MapData, ProgramArray};
use aya::programs::{Program, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use lb_common::fragment::{FragmentKey, Ports};
use lb_common::maps;
use lb_ebpf::verdict::Stage;

use crate::lab;
use arrays::Arrays;
use namespace::Anonymous;

/// The entry program.
const ENTRY: &str = "balance";
/// The program that tells the kernel's clock.
const CLOCK: &str = "clock";
/// The longest frame that a run may return: what the kernel takes in one page, and what an answer adds in front.
const FRAME_ROOM: usize = 4096;

/// The loaded program and its maps.
pub struct Kernel {
    object: Ebpf,
    arrays: Arrays,
    fragments: HashMap<MapData, FragmentKey, Ports>,
    namespace: Anonymous,
    /// The program array's descriptor: the kernel empties the array when nobody in userspace holds it.
    _stages: ProgramArray<MapData>,
}

/// The loaded program, for the calling test alone: with empty tables, the thread on one CPU and in the namespace.
/// Whoever has it and asks again waits for ever.
///
/// # Panics
/// When the program cannot be loaded.
pub fn borrow() -> MutexGuard<'static, Kernel> {
    // The failure is kept as well: trying again for each test would take minutes to say the same.
    static KERNEL: OnceLock<Result<Mutex<Kernel>>> = OnceLock::new();
    let shared = match KERNEL.get_or_init(|| Kernel::load().map(Mutex::new)) {
        Ok(kernel) => kernel,
        Err(error) => panic!("the BPF program cannot be loaded: {error:#}"),
    };
    // A test that failed leaves nothing behind that the next does not overwrite.
    let mut kernel = shared.lock().unwrap_or_else(PoisonError::into_inner);
    kernel.prepare().expect("a thread of our own in a namespace of our own");
    kernel
}

/// The directory of the BPF objects.
fn objects() -> PathBuf {
    match std::env::var_os("LB_BPF_DIR") {
        Some(directory) => directory.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bpf"),
    }
}

impl Kernel {
    fn load() -> Result<Self> {
        let path = objects().join("lb.bpf.o");
        let hint = || format!("{}: `cargo xtask build` makes it", path.display());
        let bytes = std::fs::read(&path).with_context(hint)?;
        let mut loader = EbpfLoader::new();
        for (name, rows) in arrays::SIZES {
            loader.map_max_entries(name, *rows);
        }
        let cpus = arrays::possible_cpus()?;
        for (name, rows) in arrays::sizes_by_cpu(cpus) {
            loader.map_max_entries(name, rows);
        }
        let mut object = loader.load(&bytes).context("loading the maps")?;
        for program in [ENTRY, CLOCK].into_iter().chain(Stage::ALL.map(Stage::program)) {
            xdp(&mut object, program)?.load().with_context(|| format!("loading program {program}"))?;
        }
        let mut stages: ProgramArray<_> = take(&mut object, maps::STAGES)?.try_into()?;
        for stage in Stage::ALL {
            let program = xdp(&mut object, stage.program())?.fd()?.try_clone()?;
            stages.set(stage.index(), &program, 0)?;
        }
        let mut links: HashMap<_, _, _> = take(&mut object, maps::LINKS)?.try_into()?;
        for (index, link) in lab::LINKS {
            links.insert(index, link, 0)?;
        }
        let fragments = take(&mut object, maps::FRAGMENTS)?.try_into()?;
        let arrays = Arrays::map(&object, cpus)?;
        let namespace = Anonymous::create(&lab::script())?;
        Ok(Self { object, arrays, fragments, namespace, _stages: stages })
    }

    fn prepare(&mut self) -> Result<()> {
        self.namespace.enter()?;
        namespace::stay_on_one_cpu()?;
        self.arrays.rows().clear();
        self.forget_fragments()
    }

    /// The arrays, as long as no program runs.
    pub fn rows(&mut self) -> lab::Rows<'_> {
        self.arrays.rows()
    }

    /// Backends that each CPU has counters for.
    #[must_use]
    pub const fn backends_per_cpu(&self) -> u32 {
        arrays::BACKENDS
    }

    /// Forgets the datagrams whose first fragments were seen.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forget_fragments(&mut self) -> Result<()> {
        let keys: Vec<FragmentKey> = self.fragments.keys().collect::<Result<_, _>>()?;
        keys.iter().try_for_each(|key| Ok(self.fragments.remove(key)?))
    }

    /// Runs a frame through; what the program returned, and the frame after it.
    ///
    /// # Errors
    /// When the kernel does not take the frame: less than a link-layer header, or more than fits in a page.
    pub fn run(&self, frame: &[u8]) -> Result<(u32, Vec<u8>)> {
        self.run_program(ENTRY, frame)
    }

    /// The kernel's clock.
    ///
    /// # Errors
    /// When the program that tells it cannot be run.
    pub fn jiffies(&self) -> Result<u64> {
        let (_, bytes) = self.run_program(CLOCK, &[0; 64])?;
        let word = bytes.first_chunk().context("the clock program cut its packet off")?;
        Ok(u64::from_ne_bytes(*word))
    }

    fn run_program(&self, name: &str, frame: &[u8]) -> Result<(u32, Vec<u8>)> {
        let program: &Xdp = self.object.program(name).context("a program of the object")?.try_into()?;
        let mut out = vec![0; FRAME_ROOM];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = program.test_run(options)?;
        let length = result.data_size_out as usize;
        ensure!(length <= out.len(), "a frame of {length} bytes came out");
        out.truncate(length);
        Ok((result.return_value, out))
    }
}

/// Loads every program of an object into the kernel, as the agent does; their names.
///
/// # Errors
/// Which program the verifier refuses, and its log.
pub fn load_all(object: &str) -> Result<Vec<String>> {
    let bytes = std::fs::read(objects().join(object)).with_context(|| object.to_owned())?;
    let mut object = EbpfLoader::new().load(&bytes).context("loading the maps")?;
    let mut names = Vec::new();
    for (name, program) in object.programs_mut() {
        let refused = || format!("loading program {name}");
        match program {
            Program::Xdp(program) => program.load().with_context(refused)?,
            Program::TracePoint(program) => program.load().with_context(refused)?,
            _ => bail!("program {name} is of a kind that nobody expects"),
        }
        names.push(name.to_owned());
    }
    names.sort();
    Ok(names)
}

fn xdp<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    match object.program_mut(name) {
        Some(program) => Ok(program.try_into()?),
        None => bail!("the object has no program {name}"),
    }
}

fn take(object: &mut Ebpf, name: &str) -> Result<Map> {
    object.take_map(name).with_context(|| format!("the object has no map {name}"))
}
