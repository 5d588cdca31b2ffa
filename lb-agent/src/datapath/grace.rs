//! Waiting for the packets that are under way: an XDP program runs within an RCU read-side section, so whoever waits for all
//! sections that have begun (`synchronize_rcu`) waits for all programs that may have read an old word.
//!
//! Userspace has two ways to ask for it. `membarrier(MEMBARRIER_CMD_GLOBAL)` is the plain one; kernels with CPUs without a
//! tick (`nohz_full`) refuse it with `EINVAL`. An update of a map of maps waits as well before it returns, "so that
//! userspace, when we return to it, knows that all programs that could be running use the new map value"
//! (`maybe_wait_bpf_programs` in kernel/bpf/syscall.c, Linux 5.0 to 6.18). The expedited commands of membarrier wait for
//! no RCU section and will not do.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use anyhow::Context as _;
use aya::maps::{ArrayOfMaps, Map, MapData};
use rustix::thread::{MembarrierCommand, membarrier};
use tracing::info;

// linux/bpf.h
const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;

/// A way to wait.
pub(super) enum Grace {
    /// By membarrier, for as long as the kernel does it.
    Membarrier,
    /// By updating a map of maps.
    MapOfMaps(Box<MapOfMaps>),
}

impl Grace {
    /// Returns once every packet that was under way at the call has been dealt with.
    pub(super) fn wait(&mut self) -> anyhow::Result<()> {
        if matches!(self, Self::Membarrier) {
            let Err(error) = membarrier(MembarrierCommand::Global) else { return Ok(()) };
            info!("membarrier is not to be had here ({error}): grace periods by a map of maps instead");
            *self = MapOfMaps::create()
                .map(|maps| Self::MapOfMaps(Box::new(maps)))
                .with_context(|| format!("membarrier failed ({error})"))?;
        }
        match self {
            Self::Membarrier => Ok(()),
            Self::MapOfMaps(maps) => maps.put_again(),
        }
    }
}

/// A map of one map.
pub(super) struct MapOfMaps {
    outer: ArrayOfMaps<MapData>,
    inner: MapData,
}

impl MapOfMaps {
    fn create() -> anyhow::Result<Self> {
        let inner = create(BPF_MAP_TYPE_ARRAY, None).context("cannot create a map")?;
        let outer = create(BPF_MAP_TYPE_ARRAY_OF_MAPS, Some(inner.as_fd()));
        let outer = MapData::from_fd(outer.context("cannot create a map of maps")?)?;
        Ok(Self { outer: Map::from_map_data(outer)?.try_into()?, inner: MapData::from_fd(inner)? })
    }

    /// Puts the inner map into the outer one, where it is already.
    fn put_again(&mut self) -> anyhow::Result<()> {
        self.outer.set(0, &self.inner, 0).context("cannot update a map of maps")
    }
}

/// The part of `union bpf_attr` that `BPF_MAP_CREATE` needs.
#[repr(C)]
struct CreateAttributes {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map: u32,
}

/// Creates a map with one value of four bytes: a number, or a map like `inner`.
fn create(map_type: u32, inner: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let attributes = CreateAttributes {
        map_type,
        key_size: size_of::<u32>() as u32,
        value_size: size_of::<u32>() as u32,
        max_entries: 1,
        flags: 0,
        inner_map: inner.map_or(0, |inner| inner.as_raw_fd().cast_unsigned()),
    };
    // SAFETY: the kernel reads as many bytes as it is told, the beginning of `union bpf_attr`; there is no pointer in them.
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_CREATE,
            std::ptr::from_ref(&attributes),
            size_of::<CreateAttributes>(),
        )
    };
    match i32::try_from(descriptor) {
        // SAFETY: the kernel has just made this descriptor for us; nobody else knows of it.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}
