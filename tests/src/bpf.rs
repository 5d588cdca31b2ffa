//! The few bpf(2) commands that programs of the tests' own need; the balancer itself is loaded by `aya`.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, anyhow};

/// `enum bpf_map_type`.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub(crate) enum MapType {
    Array = 2,
    ProgArray = 3,
    LruHash = 9,
}

/// `BPF_F_MMAPABLE`: an array that userspace can map into its memory.
pub(crate) const MMAPABLE: u32 = 1 << 10;

/// What XDP programs answer.
pub(crate) mod verdict {
    /// Nowhere.
    pub(crate) const DROP: u32 = 1;
    /// To the kernel's stack.
    pub(crate) const PASS: u32 = 2;
    /// Back out of the interface that the frame came in by.
    pub(crate) const TX: u32 = 3;

    /// The verdict's name.
    pub(crate) fn name(verdict: u32) -> &'static str {
        ["ABORTED", "DROP", "PASS", "TX", "REDIRECT"].get(verdict as usize).unwrap_or(&"?")
    }
}

const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const LINK_CREATE: libc::c_long = 28;

/// `BPF_PROG_TYPE_XDP`.
const XDP: u32 = 6;
/// `BPF_XDP` of `enum bpf_attach_type`: a tail call needs caller and callee to be loaded alike, and `aya` sets it.
const ATTACH_XDP: u32 = 37;
/// `XDP_FLAGS_DRV_MODE` of linux/if_link.h: native mode.
const DRIVER_MODE: u32 = 1 << 2;
/// `BPF_F_TEST_XDP_LIVE_FRAMES` of linux/bpf.h.
const LIVE_FRAMES: u32 = 1 << 1;
const LICENSE: &CStr = c"Dual MIT/GPL";
/// Bytes of the verifier's log that are kept: the reason stands at its end.
const LOG_SIZE: usize = 1 << 16;

/// Makes one bpf(2) call with one of the layouts of `union bpf_attr`, which may be given shorter than the kernel's.
fn call<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the kernel reads and writes `size_of::<T>()` bytes there, and follows the pointers that the callers
    // below put in from live buffers with their sizes beside them.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    i32::try_from(result).ok().filter(|&result| result >= 0).ok_or_else(io::Error::last_os_error)
}

fn descriptor<T>(command: libc::c_long, attributes: &mut T) -> io::Result<OwnedFd> {
    let fd = call(command, attributes)?;
    // SAFETY: both commands that come here return a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn address<T: ?Sized>(of: &T) -> u64 {
    std::ptr::from_ref(of).cast::<u8>() as u64
}

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

/// Creates a map.
pub(crate) fn create_map(
    map_type: MapType,
    key_size: usize,
    value_size: usize,
    max_entries: u32,
    flags: u32,
) -> Result<OwnedFd> {
    let (key_size, value_size) = (key_size as u32, value_size as u32);
    let mut attributes = MapCreate { map_type: map_type as u32, key_size, value_size, max_entries, flags };
    descriptor(MAP_CREATE, &mut attributes)
        .with_context(|| format!("cannot create a {map_type:?} map of {max_entries} entries; is this root?"))
}

#[repr(C)]
struct MapUpdate {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Puts a program into a program array.
pub(crate) fn set_program(array: impl AsFd, index: u32, program: impl AsFd) -> Result<()> {
    let program = program.as_fd().as_raw_fd();
    let mut attributes = MapUpdate {
        map: array.as_fd().as_raw_fd().cast_unsigned(),
        padding: 0,
        key: address(&index),
        value: address(&program),
        flags: 0,
    };
    call(MAP_UPDATE, &mut attributes)
        .map(drop)
        .context("the kernel refuses the tail call between two programs")
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
}

/// Loads an XDP program.
pub(crate) fn load_program(name: &str, instructions: &[u64]) -> Result<OwnedFd> {
    let mut log = vec![0_u8; LOG_SIZE];
    let mut attributes = ProgLoad {
        prog_type: XDP,
        instruction_count: instructions.len() as u32,
        instructions: address(instructions),
        license: LICENSE.as_ptr() as u64,
        log_level: 1,
        log_size: log.len() as u32,
        log: log.as_mut_ptr() as u64,
        kernel_version: 0,
        flags: 0,
        name: [0; 16],
        ifindex: 0,
        expected_attach_type: ATTACH_XDP,
    };
    // The last byte stays zero.
    for (to, from) in attributes.name[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    descriptor(PROG_LOAD, &mut attributes).map_err(|error| {
        let text =
            String::from_utf8_lossy(log.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned();
        let lines: Vec<_> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(12)..].join("\n");
        anyhow!("the kernel refuses program {name}: {error}\n{last}")
    })
}

#[repr(C)]
#[derive(Default)]
struct ProgTestRun {
    program: u32,
    verdict: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    /// Zero, or the kernel takes it for something that it does not know.
    padding: u32,
}

/// `struct xdp_md`, what a program is told of its frame.
#[repr(C)]
struct XdpMd {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

/// Runs a program `repeat` times over one frame that came in by an interface; returns its last verdict.
///
/// The interface belongs to the calling thread's network namespace and has an XDP program attached.
pub(crate) fn test_run(program: impl AsFd, frame: &[u8], ingress: u32, repeat: u32) -> io::Result<u32> {
    run(program, frame, ingress, repeat, 0)
}

/// [`test_run`] with frames of their own, which go where the program's verdicts say (Linux 5.18).
pub(crate) fn live_run(program: impl AsFd, frame: &[u8], ingress: u32, packets: u32) -> io::Result<()> {
    run(program, frame, ingress, packets, LIVE_FRAMES).map(drop)
}

fn run(program: impl AsFd, frame: &[u8], ingress: u32, repeat: u32, flags: u32) -> io::Result<u32> {
    let context = XdpMd {
        data: 0,
        data_end: frame.len() as u32,
        data_meta: 0,
        ingress_ifindex: ingress,
        rx_queue_index: 0,
        egress_ifindex: 0,
    };
    let mut attributes = ProgTestRun {
        program: program.as_fd().as_raw_fd().cast_unsigned(),
        size_in: frame.len() as u32,
        data_in: address(frame),
        repeat,
        context_size_in: size_of::<XdpMd>() as u32,
        context_in: address(&context),
        flags,
        ..ProgTestRun::default()
    };
    call(PROG_TEST_RUN, &mut attributes)?;
    Ok(attributes.verdict)
}

/// Runs a program over one frame, which is overwritten by what comes out; returns its verdict.
pub(crate) fn test_run_in_place(program: impl AsFd, frame: &mut [u8]) -> io::Result<u32> {
    let mut attributes = ProgTestRun {
        program: program.as_fd().as_raw_fd().cast_unsigned(),
        size_in: frame.len() as u32,
        size_out: frame.len() as u32,
        // The kernel has read the frame before it writes it.
        data_in: address(frame),
        data_out: frame.as_mut_ptr() as u64,
        repeat: 1,
        ..ProgTestRun::default()
    };
    call(PROG_TEST_RUN, &mut attributes)?;
    Ok(attributes.verdict)
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches an XDP program to an interface of this thread's network namespace in native mode, until the link is dropped.
pub(crate) fn attach(program: impl AsFd, interface: u32) -> io::Result<OwnedFd> {
    let program = program.as_fd().as_raw_fd().cast_unsigned();
    let mut attributes = LinkCreate { program, interface, attach_type: ATTACH_XDP, flags: DRIVER_MODE };
    descriptor(LINK_CREATE, &mut attributes)
}

/// The beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    program_type: u32,
    id: u32,
    tag: [u8; 8],
    compiled_length: u32,
    translated_length: u32,
    compiled: u64,
    translated: u64,
}

#[repr(C)]
struct GetInfo {
    object: u32,
    length: u32,
    info: u64,
}

/// A program's instructions as the verifier left them, all functions one behind the other.
pub(crate) fn translated(program: impl AsFd) -> Result<Vec<u64>> {
    let ask = |mut info: ProgramInfo| -> Result<ProgramInfo> {
        let mut attributes = GetInfo {
            object: program.as_fd().as_raw_fd().cast_unsigned(),
            length: size_of::<ProgramInfo>() as u32,
            info: std::ptr::from_mut(&mut info) as u64,
        };
        call(OBJ_GET_INFO_BY_FD, &mut attributes).context("cannot ask the kernel about a program")?;
        Ok(info)
    };
    let translated_length = ask(ProgramInfo::default())?.translated_length;
    let mut code = vec![0_u64; translated_length as usize / size_of::<u64>()];
    ask(ProgramInfo { translated_length, translated: code.as_mut_ptr() as u64, ..ProgramInfo::default() })?;
    Ok(code)
}
