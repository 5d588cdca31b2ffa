//! The BPF program as the kernel has it, fed with frames by `BPF_PROG_TEST_RUN`.
//!
//! Loaded once for a process, since the verifier takes a second for it, and lent to one test at a time. It runs in a
//! network namespace without a name, which ends with the process, and whose routing table answers as
//! [`crate::lab::routes`] says.

mod arrays;
mod namespace;
mod runner;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::Result;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, MapData};
use lb_common::fragment::{FragmentKey, Ports};
use lb_common::maps;
use lb_common::prefix::{LIST_BITS, PrefixKey};

use crate::lab;
use crate::object::{Object, possible_cpus};
use arrays::Arrays;
use namespace::Anonymous;
pub use runner::Runner;

/// The loaded program and its maps.
pub struct Kernel {
    object: Object,
    arrays: Arrays,
    fragments: HashMap<MapData, FragmentKey, Ports>,
    prefixes: LpmTrie<MapData, PrefixKey, u32>,
    namespace: Anonymous,
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

impl Kernel {
    fn load() -> Result<Self> {
        let cpus = possible_cpus()?;
        let by_cpu = arrays::sizes_by_cpu(cpus);
        let mut object = Object::load(arrays::SIZES.iter().copied().chain(by_cpu))?;
        let mut links: HashMap<_, _, _> = object.take(maps::LINKS)?.try_into()?;
        for (index, link) in lab::LINKS {
            links.insert(index, link, 0)?;
        }
        let fragments = object.take(maps::FRAGMENTS)?.try_into()?;
        let arrays = Arrays::map(&object, cpus)?;
        let namespace = Anonymous::create(&lab::script())?;
        let prefixes = object.take(maps::PREFIXES)?.try_into()?;
        Ok(Self { object, arrays, fragments, prefixes, namespace })
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

    /// Gives the trie the lists of a lab, and nothing else.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn list_prefixes(&mut self, lab: &lab::Lab) -> Result<()> {
        let keys: Vec<Key<PrefixKey>> = self.prefixes.keys().collect::<Result<_, _>>()?;
        keys.iter().try_for_each(|key| self.prefixes.remove(key))?;
        lab.prefixes().try_for_each(|(bits, key, verdict)| {
            Ok(self.prefixes.insert(&Key::new(LIST_BITS + bits, key), verdict, 0)?)
        })
    }

    /// Runs a frame through; what the program returned, and the frame after it.
    ///
    /// # Errors
    /// When the kernel does not take the frame: less than a link-layer header, or more than fits in a page.
    pub fn run(&self, frame: &[u8]) -> Result<(u32, Vec<u8>)> {
        self.object.run(frame)
    }

    /// The program for several threads at once.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn runner(&self) -> Result<Runner<'_>> {
        Ok(Runner { program: self.object.entry()?, namespace: &self.namespace })
    }

    /// The kernel's clock.
    ///
    /// # Errors
    /// When the program that tells it cannot be run.
    pub fn jiffies(&self) -> Result<u64> {
        self.object.jiffies()
    }
}
