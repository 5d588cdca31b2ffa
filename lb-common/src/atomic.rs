//! A 64-bit word that several CPUs, and the agent through shared memory, read and write at once.
//!
//! The host uses `core::sync::atomic`. The BPF target has no atomic types, so there the same operations are
//! compiler intrinsics, which become the instructions of `-mcpu=v3` (kernel 5.12, arm64 JIT 5.18).
//!
//! # Ordering
//!
//! BPF's value-returning atomics are full barriers when they succeed; loads and stores are relaxed. On x86 loads
//! are not reordered with loads, nor stores with stores, which is what the protocols built on this need.
//! On arm64 they need an acquire load, available to BPF from kernel 6.15 on.

#[cfg(all(not(target_arch = "bpf"), not(loom)))]
use core::sync::atomic::{AtomicU64, Ordering};
#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};

/// A shared 64-bit word. All bit patterns are valid; a zeroed map is a map of zero words.
#[repr(transparent)]
#[derive(Default)]
pub struct Word(
    #[cfg(not(target_arch = "bpf"))] AtomicU64,
    #[cfg(target_arch = "bpf")] core::cell::UnsafeCell<u64>,
);

#[cfg(not(target_arch = "bpf"))]
impl Word {
    /// A word that holds `value`.
    #[cfg(not(loom))]
    pub const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// A word that holds `value`.
    #[cfg(loom)]
    pub fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// Reads the word.
    #[inline(always)]
    pub fn load(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Writes the word. What was written before it is seen before it.
    #[inline(always)]
    pub fn store(&self, value: u64) {
        self.0.store(value, Ordering::Release);
    }

    /// Replaces `old` by `new`; false, and nothing written, where the word is no longer `old`.
    #[inline(always)]
    pub fn replace(&self, old: u64, new: u64) -> bool {
        self.0.compare_exchange(old, new, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Sets bits; returns the word as it was.
    #[inline(always)]
    pub fn set_bits(&self, bits: u64) -> u64 {
        self.0.fetch_or(bits, Ordering::SeqCst)
    }

    /// Clears the bits that are not in `mask`; returns the word as it was.
    #[inline(always)]
    pub fn keep_bits(&self, mask: u64) -> u64 {
        self.0.fetch_and(mask, Ordering::SeqCst)
    }

    /// Adds, whoever else does, and wraps; returns the word as it was.
    #[inline(always)]
    pub fn add(&self, amount: u64) -> u64 {
        self.0.fetch_add(amount, Ordering::SeqCst)
    }

    /// Turns bits over; returns the word as it was. What was written before it is seen before it.
    #[inline(always)]
    pub fn flip_bits(&self, bits: u64) -> u64 {
        self.0.fetch_xor(bits, Ordering::SeqCst)
    }

    /// Adds to a word that has one writer: a counter in its CPU's own row. Not a read-modify-write for others.
    #[inline(always)]
    pub fn count(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }
}

#[cfg(target_arch = "bpf")]
impl Word {
    /// Reads the word. Volatile: the compiler must not merge two reads into one.
    #[inline(always)]
    pub fn load(&self) -> u64 {
        // SAFETY: the cell is a live, aligned map value.
        unsafe { core::ptr::read_volatile(self.0.get()) }
    }

    /// Writes the word.
    #[inline(always)]
    pub fn store(&self, value: u64) {
        // SAFETY: as in `load`; a torn write cannot happen for an aligned 64-bit store.
        unsafe { core::ptr::write_volatile(self.0.get(), value) }
    }

    /// Replaces `old` by `new`; false, and nothing written, where the word is no longer `old`.
    #[inline(always)]
    pub fn replace(&self, old: u64, new: u64) -> bool {
        use core::intrinsics::{AtomicOrdering, atomic_cxchg};
        // SAFETY: as in `load`.
        unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                self.0.get(),
                old,
                new,
            )
            .1
        }
    }

    /// Sets bits; returns the word as it was.
    #[inline(always)]
    pub fn set_bits(&self, bits: u64) -> u64 {
        use core::intrinsics::{AtomicOrdering, atomic_or};
        // SAFETY: as in `load`.
        unsafe { atomic_or::<u64, u64, { AtomicOrdering::SeqCst }>(self.0.get(), bits) }
    }

    /// Clears the bits that are not in `mask`; returns the word as it was.
    #[inline(always)]
    pub fn keep_bits(&self, mask: u64) -> u64 {
        use core::intrinsics::{AtomicOrdering, atomic_and};
        // SAFETY: as in `load`.
        unsafe { atomic_and::<u64, u64, { AtomicOrdering::SeqCst }>(self.0.get(), mask) }
    }

    /// Adds, whoever else does, and wraps; returns the word as it was.
    #[inline(always)]
    pub fn add(&self, amount: u64) -> u64 {
        use core::intrinsics::{AtomicOrdering, atomic_xadd};
        // SAFETY: as in `load`.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(self.0.get(), amount) }
    }

    /// Turns bits over; returns the word as it was. What was written before it is seen before it.
    #[inline(always)]
    pub fn flip_bits(&self, bits: u64) -> u64 {
        use core::intrinsics::{AtomicOrdering, atomic_xor};
        // SAFETY: as in `load`.
        unsafe { atomic_xor::<u64, u64, { AtomicOrdering::SeqCst }>(self.0.get(), bits) }
    }

    /// Adds to a word that has one writer: a counter in its CPU's own row. Not a read-modify-write for others.
    #[inline(always)]
    pub fn count(&self, amount: u64) {
        let cell = self.0.get();
        // SAFETY: as in `load`; XDP runs with its CPU to itself, so nobody writes in between.
        unsafe { *cell = (*cell).wrapping_add(amount) }
    }
}

// SAFETY: shared by design; every access is a whole aligned word.
#[cfg(target_arch = "bpf")]
unsafe impl Sync for Word {}

impl core::fmt::Debug for Word {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#018x}", self.load())
    }
}

/// A copy of the value at this moment: rows are copied when userspace writes or prints them.
impl Clone for Word {
    fn clone(&self) -> Self {
        Self::from(self.load())
    }
}

impl From<u64> for Word {
    fn from(value: u64) -> Self {
        #[cfg(not(target_arch = "bpf"))]
        return Self::new(value);
        #[cfg(target_arch = "bpf")]
        return Self(core::cell::UnsafeCell::new(value));
    }
}
