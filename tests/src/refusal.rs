//! Kernels that refuse a system call, played by a seccomp filter.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

// linux/filter.h and linux/seccomp.h
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
/// Offset of the system call's number in `struct seccomp_data`.
const NUMBER: u32 = 0;

/// Lets the command, and whatever it starts, meet an error at every such system call: `number` of [`libc`], and what
/// `errno` says.
pub fn refuse(command: &mut Command, number: libc::c_long, errno: i32) {
    let filter = [
        statement(LOAD_WORD, NUMBER, 0),
        statement(JUMP_IF_EQUAL, number as u32, 1),
        statement(RETURN, ERRNO | errno.unsigned_abs(), 0),
        statement(RETURN, ALLOW, 0),
    ];
    // SAFETY: between fork and exec the closure makes one system call over memory that it owns; it neither allocates nor
    // takes a lock.
    unsafe { command.pre_exec(move || install(&filter)) };
}

/// One instruction of a filter; a jump that is not taken skips so many.
const fn statement(code: u16, operand: u32, otherwise: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: otherwise, k: operand }
}

fn install(filter: &[libc::sock_filter; 4]) -> io::Result<()> {
    let program = libc::sock_fprog { len: 4, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the program, which lives on this stack frame, and the filter behind it.
    let done =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, std::ptr::from_ref(&program)) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skip;

    #[test]
    fn a_refused_call_fails_and_others_do_not() {
        if let Some(reason) = skip::reason_without_root() {
            return skip::announce(reason);
        }
        let mut uname = Command::new("uname");
        assert!(uname.status().unwrap().success());
        refuse(&mut uname, libc::SYS_uname, libc::EINVAL);
        let output = uname.output().unwrap();
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains("Invalid argument"), "{output:?}");
    }
}
