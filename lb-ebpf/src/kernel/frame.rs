//! A frame in the driver's buffer. The one place where packet memory is touched.

use core::arch::asm;
use core::marker::PhantomData;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail};
use aya_ebpf::programs::XdpContext;
use lb_ebpf::frame::{Fields, FieldsMut, Frame, MAX_OFFSET};

/// The frame of a program.
pub(super) struct XdpFrame<'a>(pub(super) &'a XdpContext);

/// Hides from the compiler where a number comes from and so what it can be, at the price of a register move.
///
/// Without this it proves from one bounds check that another is not needed, drops that, and computes the second
/// address anew from the frame's start. The verifier does not follow: each address needs a check of its own.
#[inline(always)]
pub(super) fn opaque(mut number: usize) -> usize {
    // SAFETY: a move to itself. Not nothing at all: line information of two places at one instruction is refused.
    unsafe { asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack, preserves_flags)) };
    number
}

impl XdpFrame<'_> {
    /// The address of `N` bytes at `at`, proven to lie within the frame: the verifier follows the same comparison.
    #[inline(always)]
    fn check<const N: usize>(&self, at: usize) -> Option<*mut u8> {
        if at > MAX_OFFSET {
            return None;
        }
        let start = opaque(self.0.data() + at);
        if start + N > self.0.data_end() {
            return None;
        }
        Some(start as *mut u8)
    }
}

/// Moves `N` bytes out of a packet, eight at a time.
///
/// In truth they are not aligned: an IP header follows 14 bytes of Ethernet. Told so, the compiler would take every
/// field apart into single bytes. But BPF's loads and stores need no alignment in packets where the machine's do not
/// (x86-64, arm64), and a pointer's type means nothing once it is an instruction. (The compiler's own switch for
/// this, `allows-misaligned-mem-access`, misaligns the stack as well, which the verifier refuses.)
///
/// # Safety
///
/// All `N` bytes lie within the packet.
#[inline(always)]
unsafe fn load<const N: usize>(from: *const u8) -> [u8; N] {
    let mut bytes = [0; N];
    // By pointer: the bounds check of a slice would stay in the object as a function that nothing calls.
    let out = bytes.as_mut_ptr();
    let mut at = 0;
    // SAFETY: the caller's promise; `out` has room for as many.
    unsafe {
        while at + 8 <= N {
            out.add(at).cast::<[u8; 8]>().write(from.add(at).cast::<u64>().read().to_ne_bytes());
            at += 8;
        }
        if at + 4 <= N {
            out.add(at).cast::<[u8; 4]>().write(from.add(at).cast::<u32>().read().to_ne_bytes());
            at += 4;
        }
        if at + 2 <= N {
            out.add(at).cast::<[u8; 2]>().write(from.add(at).cast::<u16>().read().to_ne_bytes());
            at += 2;
        }
        if at < N {
            out.add(at).write(from.add(at).read());
        }
    }
    bytes
}

/// Moves `N` bytes into a packet, as [`load`] moves them out.
///
/// # Safety
///
/// All `N` bytes lie within the packet.
#[inline(always)]
unsafe fn store<const N: usize>(to: *mut u8, bytes: [u8; N]) {
    let from = bytes.as_ptr();
    let mut at = 0;
    // SAFETY: the caller's promise.
    unsafe {
        while at + 8 <= N {
            to.add(at).cast::<u64>().write(u64::from_ne_bytes(from.add(at).cast::<[u8; 8]>().read()));
            at += 8;
        }
        if at + 4 <= N {
            to.add(at).cast::<u32>().write(u32::from_ne_bytes(from.add(at).cast::<[u8; 4]>().read()));
            at += 4;
        }
        if at + 2 <= N {
            to.add(at).cast::<u16>().write(u16::from_ne_bytes(from.add(at).cast::<[u8; 2]>().read()));
            at += 2;
        }
        if at < N {
            to.add(at).write(from.add(at).read());
        }
    }
}

/// `N` bytes proven to lie within the frame, as long as it does not move.
pub(super) struct XdpFields<'a, const N: usize>(*mut u8, PhantomData<&'a mut [u8; N]>);

impl<const N: usize> Fields<N> for XdpFields<'_, N> {
    #[inline(always)]
    fn get<const AT: usize, const M: usize>(&self) -> [u8; M] {
        const { assert!(AT + M <= N) };
        // SAFETY: within the frame.
        unsafe { load(self.0.add(AT)) }
    }
}

impl<const N: usize> FieldsMut<N> for XdpFields<'_, N> {
    #[inline(always)]
    fn set<const AT: usize, const M: usize>(&mut self, bytes: [u8; M]) {
        const { assert!(AT + M <= N) };
        // SAFETY: within the frame, and ours alone: the driver does not touch it until we return.
        unsafe { store(self.0.add(AT), bytes) }
    }
}

impl Frame for XdpFrame<'_> {
    type Fields<'a, const N: usize>
        = XdpFields<'a, N>
    where
        Self: 'a;
    type FieldsMut<'a, const N: usize>
        = XdpFields<'a, N>
    where
        Self: 'a;

    #[inline(always)]
    fn length(&self) -> usize {
        // As a whole word: the verifier refuses half-word arithmetic on addresses, which the caller's cast would allow.
        opaque(self.0.data_end() - self.0.data())
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        self.0.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn fields<const N: usize>(&self, at: usize) -> Option<XdpFields<'_, N>> {
        Some(XdpFields(self.check::<N>(at)?, PhantomData))
    }

    #[inline(always)]
    fn fields_mut<const N: usize>(&mut self, at: usize) -> Option<XdpFields<'_, N>> {
        Some(XdpFields(self.check::<N>(at)?, PhantomData))
    }

    #[inline(always)]
    fn forget(&self, offset: usize) -> usize {
        // Masked and unmasked by a number that the verifier knows nothing of, and the compiler not that it is the same.
        let mask = self.length();
        (opaque(offset ^ mask) ^ mask) & MAX_OFFSET
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
