//! What the C library's allocator keeps back.

/// Has memory that is given up go back to the system.
///
/// Lookup tables and the verifier's logs are large and short-lived. glibc learns from the first of them that is freed to take the
/// next from its heap, up to 32 MB in each, and keeps them; fixed thresholds (mallopt(3)) switch that off. The defaults are
/// these numbers. Without glibc there is nothing to do.
pub(super) fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    for parameter in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: the parameters are known and the value is allowed; no other thread is there yet. A refusal costs memory alone.
        unsafe { libc::mallopt(parameter, 128 << 10) };
    }
}
