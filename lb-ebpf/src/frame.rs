//! Bytes of a frame, whoever holds them: the driver's buffer in the kernel, a vector on the host.

/// One Ethernet frame, as received.
///
/// Every access is one bounds check that hands out a reference to an array of constant length, after which
/// indexing with constants cannot fail: no panic path survives, and the verifier sees what it needs.
/// A reference cannot be kept across [`move_front`](Self::move_front): that does not compile.
pub trait Frame {
    /// Bytes from the first of the link-layer header to the last.
    fn length(&self) -> usize;

    /// Index of the interface that the frame came in by.
    fn ingress(&self) -> u32;

    /// `N` bytes from `at` on; `None` where the frame ends before.
    fn bytes<const N: usize>(&self, at: usize) -> Option<&[u8; N]>;

    /// As [`bytes`](Self::bytes), to be written.
    fn bytes_mut<const N: usize>(&mut self, at: usize) -> Option<&mut [u8; N]>;

    /// Moves the start of the frame by that many bytes: negative grows it at the front. New bytes are undefined.
    fn move_front(&mut self, by: i32) -> Option<()>;

    /// Moves the end of the frame; negative cuts it.
    fn move_end(&mut self, by: i32) -> Option<()>;
}

/// Offsets beyond this are not read. A bound that the verifier can use, far above any chain of headers.
pub const MAX_OFFSET: usize = 0x3fff;
