//! The layout contract: fixed size, no padding, and plain data as far as `aya` is concerned.

/// Version of every layout in this crate together, kept in [`crate::settings::Settings`].
pub const ABI_VERSION: u32 = 3;

/// Asserts that a row has the given size and no padding.
///
/// The fields' sizes are added up at compile time: a hole would hold bytes that nobody wrote, which the
/// verifier refuses to copy and two builds would not agree on. `row!(copy T, ..)` also lets `aya` copy the row in
/// and out of maps by system call; rows with shared words are reached through shared memory only.
macro_rules! row {
    (copy $name:ty, $size:expr, { $($field:ty),* $(,)? }) => {
        row!($name, $size, { $($field),* });

        // SAFETY: `repr(C)`, no padding (asserted above), and every field is valid for any bit pattern.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $name {}
    };
    ($name:ty, $size:expr, { $($field:ty),* $(,)? }) => {
        // A word that loom watches is larger.
        #[cfg(not(loom))]
        const _: () = assert!(core::mem::size_of::<$name>() == $size);
        #[cfg(not(loom))]
        const _: () = assert!(0 $(+ core::mem::size_of::<$field>())* == $size);
    };
}

pub(crate) use row;
