//! A frame in the driver's buffer. The one place where packet memory is touched.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail};
use aya_ebpf::programs::XdpContext;
use lb_ebpf::frame::{Frame, MAX_OFFSET};

pub(super) struct XdpFrame<'a>(pub(super) &'a XdpContext);

impl XdpFrame<'_> {
    /// The address of `N` bytes at `at`, proven to lie within the frame: the verifier follows the same comparison.
    #[inline(always)]
    fn check<const N: usize>(&self, at: usize) -> Option<*mut [u8; N]> {
        if at > MAX_OFFSET {
            return None;
        }
        let start = self.0.data() + at;
        if start + N > self.0.data_end() {
            return None;
        }
        Some(start as *mut [u8; N])
    }
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn length(&self) -> usize {
        self.0.data_end() - self.0.data()
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        self.0.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn bytes<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        // SAFETY: within the frame; shared for as long as `self` is, and the frame moves only by `&mut self`.
        self.check(at).map(|bytes| unsafe { &*bytes })
    }

    #[inline(always)]
    fn bytes_mut<const N: usize>(&mut self, at: usize) -> Option<&mut [u8; N]> {
        // SAFETY: as above, and exclusive since `self` is.
        self.check(at).map(|bytes| unsafe { &mut *bytes })
    }

    #[inline(always)]
    fn move_front(&mut self, by: i32) -> Option<()> {
        // SAFETY: the context is the kernel's own.
        let refused = unsafe { bpf_xdp_adjust_head(self.0.ctx, by) };
        (refused == 0).then_some(())
    }

    #[inline(always)]
    fn move_end(&mut self, by: i32) -> Option<()> {
        // SAFETY: the context is the kernel's own.
        let refused = unsafe { bpf_xdp_adjust_tail(self.0.as_ptr().cast(), by) };
        (refused == 0).then_some(())
    }
}
