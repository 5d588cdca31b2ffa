//! Bytes of a frame, whoever holds them: the driver's buffer in the kernel, a vector on the host.

/// One Ethernet frame, as received.
///
/// Every access is one bounds check of a constant length, after which nothing within it can fail: no panic path
/// survives, and the verifier sees what it needs. Nothing outlives an access, so nothing dangles when the frame moves.
pub trait Frame {
    /// Bytes that have been checked, to be read.
    type Fields<'a, const N: usize>: Fields<N>
    where
        Self: 'a;
    /// Bytes that have been checked, to be changed.
    type FieldsMut<'a, const N: usize>: FieldsMut<N>
    where
        Self: 'a;

    /// Bytes from the first of the link-layer header to the last.
    fn length(&self) -> usize;

    /// Index of the interface that the frame came in by.
    fn ingress(&self) -> u32;

    /// The fields of `N` bytes from `at` on; `None` where the frame ends before.
    fn fields<const N: usize>(&self, at: usize) -> Option<Self::Fields<'_, N>>;

    /// The same, to be changed.
    fn fields_mut<const N: usize>(&mut self, at: usize) -> Option<Self::FieldsMut<'_, N>>;

    /// `N` bytes from `at` on; `None` where the frame ends before.
    #[inline(always)]
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.fields::<N>(at).map(|fields| fields.get::<0, N>())
    }

    /// Replaces `N` bytes from `at` on; `None`, and nothing replaced, where the frame ends before.
    #[inline(always)]
    fn write<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Option<()> {
        self.fields_mut::<N>(at).map(|mut fields| fields.set::<0, N>(bytes))
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

/// `N` bytes of a header, read field by field: each is one load of its own width, and what is not asked for costs nothing.
pub trait Fields<const N: usize> {
    /// The `M` bytes from `AT` on, which the compiler proves to lie within.
    fn get<const AT: usize, const M: usize>(&self) -> [u8; M];
}

/// The same, to be changed in place.
pub trait FieldsMut<const N: usize>: Fields<N> {
    /// Replaces the `M` bytes from `AT` on.
    fn set<const AT: usize, const M: usize>(&mut self, bytes: [u8; M]);
}

/// A header that was moved out as a whole. The slow parser does so: where offsets vary, the verifier follows loads of
/// single fields through half as many paths again.
impl<const N: usize> Fields<N> for [u8; N] {
    #[inline(always)]
    fn get<const AT: usize, const M: usize>(&self) -> [u8; M] {
        const { assert!(AT + M <= N) };
        core::array::from_fn(|at| self[AT + at])
    }
}
