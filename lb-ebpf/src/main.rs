//! The BPF object: the XDP programs, the tracepoint programs, and the maps. Everything that decides is in the library.
//!
//! Built for `bpfel-unknown-none` by `cargo xtask build`; on any other target this is an empty program.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod kernel;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never linked in: were a panic reachable, the verifier would refuse this loop.
    loop {}
}

/// Says that the program's licence allows it the helpers that the kernel exports to GPL-compatible programs only.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
