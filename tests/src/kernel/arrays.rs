//! The array maps as memory.

use std::os::fd::AsFd as _;
use std::ptr::{self, NonNull};

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::maps::Map;
use lb_common::backend::{Backend, Load};
use lb_common::counters::{IcmpBudget, Outcomes, Traffic};
use lb_common::directory;
use lb_common::flow::{Bucket4, Bucket6};
use lb_common::maps;
use lb_common::next_hop::NextHop;
use lb_common::service::{Service, ServiceState};
use lb_common::settings::Settings;
use lb_common::slot::SlotLine;
use rustix::mm::{self, MapFlags, ProtFlags};

use crate::lab::Rows;

/// Rows of the backend array, and so of each CPU's traffic.
pub(super) const BACKENDS: u32 = 64;
const SERVICES: u32 = 64;
const SLOT_LINES: u32 = 64;
const FLOW_BUCKETS: u32 = 4096;
const DIRECTORY_BUCKETS: u32 = 256;
/// Far more than the tests use: the LRU starts to forget long before it is full.
const FRAGMENTS: u32 = 65_536;

/// The sizes that do not depend on the machine.
pub(super) const SIZES: &[(&str, u32)] = &[
    (maps::SETTINGS, 1),
    (maps::DIRECTORY, DIRECTORY_BUCKETS * directory::HALVES),
    (maps::SERVICES, SERVICES),
    (maps::BACKENDS, BACKENDS),
    (maps::SERVICE_STATES, SERVICES),
    (maps::LOADS, BACKENDS),
    (maps::SLOTS, SLOT_LINES),
    (maps::FLOWS4, FLOW_BUCKETS),
    (maps::FLOWS6, FLOW_BUCKETS),
    (maps::NEXT_HOPS, maps::NEXT_HOP_CAPACITY),
    (maps::FRAGMENTS, FRAGMENTS),
];

/// The sizes that do.
pub(super) const fn sizes_by_cpu(cpus: u32) -> [(&'static str, u32); 3] {
    [(maps::OUTCOMES, cpus), (maps::TRAFFIC, cpus * BACKENDS), (maps::ICMP_BUDGET, cpus)]
}

/// CPUs that the kernel may ever use, which are numbered up to there.
pub(super) fn possible_cpus() -> Result<u32> {
    let count = aya::util::nr_cpus().map_err(|(file, error)| anyhow::anyhow!("{file}: {error}"))?;
    Ok(count as u32)
}

/// All arrays.
pub(super) struct Arrays {
    settings: Mapping<Settings>,
    directory: Mapping<directory::Bucket>,
    services: Mapping<Service>,
    backends: Mapping<Backend>,
    service_states: Mapping<ServiceState>,
    loads: Mapping<Load>,
    slots: Mapping<SlotLine>,
    flows4: Mapping<Bucket4>,
    flows6: Mapping<Bucket6>,
    next_hops: Mapping<NextHop>,
    outcomes: Mapping<Outcomes>,
    traffic: Mapping<Traffic>,
    icmp_budget: Mapping<IcmpBudget>,
}

impl Arrays {
    pub(super) fn map(object: &Ebpf, cpus: u32) -> Result<Self> {
        // SAFETY: each row's type is the one that the program has under this name, `repr(C)`, without padding, and
        // valid for any bits.
        unsafe {
            Ok(Self {
                settings: Mapping::new(object, maps::SETTINGS, 1)?,
                directory: Mapping::new(object, maps::DIRECTORY, DIRECTORY_BUCKETS * directory::HALVES)?,
                services: Mapping::new(object, maps::SERVICES, SERVICES)?,
                backends: Mapping::new(object, maps::BACKENDS, BACKENDS)?,
                service_states: Mapping::new(object, maps::SERVICE_STATES, SERVICES)?,
                loads: Mapping::new(object, maps::LOADS, BACKENDS)?,
                slots: Mapping::new(object, maps::SLOTS, SLOT_LINES)?,
                flows4: Mapping::new(object, maps::FLOWS4, FLOW_BUCKETS)?,
                flows6: Mapping::new(object, maps::FLOWS6, FLOW_BUCKETS)?,
                next_hops: Mapping::new(object, maps::NEXT_HOPS, maps::NEXT_HOP_CAPACITY)?,
                outcomes: Mapping::new(object, maps::OUTCOMES, cpus)?,
                traffic: Mapping::new(object, maps::TRAFFIC, cpus * BACKENDS)?,
                icmp_budget: Mapping::new(object, maps::ICMP_BUDGET, cpus)?,
            })
        }
    }

    /// As slices; the exclusive borrow says that no program runs meanwhile.
    pub(super) fn rows(&mut self) -> Rows<'_> {
        Rows {
            settings: &mut self.settings.slice()[0],
            directory: self.directory.slice(),
            services: self.services.slice(),
            backends: self.backends.slice(),
            service_states: self.service_states.slice(),
            loads: self.loads.slice(),
            slots: self.slots.slice(),
            flows4: self.flows4.slice(),
            flows6: self.flows6.slice(),
            next_hops: self.next_hops.slice(),
            outcomes: self.outcomes.slice(),
            traffic: self.traffic.slice(),
            icmp_budget: self.icmp_budget.slice(),
        }
    }
}

/// The rows of one array, shared with the kernel. Mapped until the process ends, as the program is loaded.
struct Mapping<T> {
    base: NonNull<T>,
    length: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl<T: Send> Send for Mapping<T> {}

impl<T> Mapping<T> {
    /// # Safety
    ///
    /// `T` is what the program keeps in this array.
    unsafe fn new(object: &Ebpf, name: &str, length: u32) -> Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8) && !std::mem::needs_drop::<T>()) };
        let Some(Map::Array(array)) = object.map(name) else { bail!("the object has no array {name}") };
        let length = length as usize;
        let bytes = (length * size_of::<T>()).next_multiple_of(rustix::param::page_size());
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base =
            unsafe { mm::mmap(ptr::null_mut(), bytes, access, MapFlags::SHARED, array.fd().as_fd(), 0) }
                .with_context(|| format!("mapping {name}"))?;
        let base = NonNull::new(base.cast()).context("mapped at address 0")?;
        Ok(Self { base, length })
    }

    fn slice(&mut self) -> &mut [T] {
        // SAFETY: mapped for good, aligned to a page, zeros at least; exclusive in this process by the borrow, and
        // the kernel's side runs only when this process makes it.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.length) }
    }
}
