//! Bytes of a frame, whoever holds them: the driver's buffer in the kernel, a vector on the host.

/// One Ethernet frame, as received.
///
/// Every access is one bounds check that moves an array of constant length, after which indexing with constants
/// cannot fail: no panic path survives, and the verifier sees what it needs. Nothing outlives an access, so nothing
/// dangles when the frame moves.
pub trait Frame {
    /// Bytes from the first of the link-layer header to the last.
    fn length(&self) -> usize;

    /// Index of the interface that the frame came in by.
    fn ingress(&self) -> u32;

    /// `N` bytes from `at` on; `None` where the frame ends before.
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]>;

    /// Changes `N` bytes from `at` on; `None`, and nothing changed, where the frame ends before.
    fn modify<const N: usize>(&mut self, at: usize, change: impl FnOnce(&mut [u8; N])) -> Option<()>;

    /// Replaces `N` bytes from `at` on; `None`, and nothing replaced, where the frame ends before.
    #[inline(always)]
    fn write<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Option<()> {
        self.modify(at, |place| *place = bytes)
    }

    /// The same offset, at most [`MAX_OFFSET`], with its history forgotten.
    ///
    /// The kernel's verifier follows every combination of tags, options and extension headers through the rest of the
    /// program, as if each offset were a program of its own. Where what follows does not depend on how an offset came
    /// about, this joins the paths.
    #[inline(always)]
    fn forget(&self, offset: usize) -> usize {
        offset
    }

    /// Moves the start of the frame by that many bytes: negative grows it at the front. New bytes are undefined.
    fn move_front(&mut self, by: i32) -> Option<()>;

    /// Moves the end of the frame; negative cuts it.
    fn move_end(&mut self, by: i32) -> Option<()>;
}

/// Offsets beyond this are not read. A bound that the verifier can use, far above any chain of headers.
pub const MAX_OFFSET: usize = 0x3fff;
