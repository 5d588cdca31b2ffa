//! What the verifier makes of each program.

use std::fmt;
use std::os::fd::AsFd as _;

use anyhow::{Context, Result, bail};
use aya::programs::Program;

use super::{create, refused};
use crate::bpf;

/// A program that the verifier has accepted, and what it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The program's name.
    pub name: String,
    /// Instructions that the verifier walked, all paths together; none where the kernel does not tell (before 5.16).
    pub walked: Option<u32>,
    /// Instructions of the program as the kernel runs it.
    pub length: usize,
    /// Bytes of stack along the deepest chain of calls, each frame rounded up to 32, as the verifier of older kernels does;
    /// newer ones round to 16 where they compile.
    pub stack: u32,
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let walked = self.walked.map_or_else(|| "?".to_owned(), |walked| walked.to_string());
        write!(f, "{:<18}{walked:>9} walked {:>6} long {:>4} B stack", self.name, self.length, self.stack)
    }
}

/// Loads every program of an object into the kernel, as the agent does; they are in the order of their names.
///
/// # Errors
/// Which program the verifier refuses, and the last line of its log.
pub fn verify(file: &str) -> Result<Vec<Verified>> {
    let mut object = create(file, [])?;
    let mut programs = Vec::new();
    for (name, program) in object.programs_mut() {
        let loaded = match program {
            Program::Xdp(program) => program.load(),
            Program::TracePoint(program) => program.load(),
            _ => bail!("program {name} is of a kind that nobody expects"),
        };
        loaded.map_err(|error| refused(name, &error))?;
        let code = bpf::translated(program.fd()?.as_fd()).with_context(|| format!("program {name}"))?;
        let code: Vec<_> = code.into_iter().map(Instruction::from).collect();
        programs.push(Verified {
            name: name.to_owned(),
            walked: program.info()?.verified_instruction_count(),
            length: code.len(),
            stack: deepest(&code, 0),
        });
    }
    programs.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(programs)
}

/// `struct bpf_insn`.
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl From<u64> for Instruction {
    fn from(word: u64) -> Self {
        let [code, registers, low, high, immediate @ ..] = word.to_ne_bytes();
        let offset = i16::from_ne_bytes([low, high]);
        Self { code, registers, offset, immediate: i32::from_ne_bytes(immediate) }
    }
}

// linux/bpf.h
const CALL: u8 = 0x85;
const PSEUDO_CALL: u8 = 1;
const EXIT: u8 = 0x95;
const MOVE: u8 = 0xbf;
const ADD_IMMEDIATE: u8 = 0x07;
/// The register that points to the end of a function's stack.
const FRAME: u8 = 10;

impl Instruction {
    const fn destination(self) -> u8 {
        self.registers & 15
    }

    const fn source(self) -> u8 {
        self.registers >> 4
    }

    /// The function that a call to one of the program's own leads to. Once compiled, the distance stands in `offset`.
    fn callee(self, at: usize) -> Option<usize> {
        let is_call = self.code == CALL && self.source() == PSEUDO_CALL;
        is_call.then(|| at.wrapping_add_signed(isize::from(self.offset)) + 1)
    }

    /// The lowest byte below the end of the stack that it reads or writes by the frame register.
    const fn depth(self) -> u32 {
        let base = match self.code & 7 {
            1 => self.source(),
            2 | 3 => self.destination(),
            _ => return 0,
        };
        if base == FRAME && self.offset < 0 { self.offset.unsigned_abs() as u32 } else { 0 }
    }
}

/// Bytes of stack from the function that begins at `first`, through the deepest of those that it calls.
fn deepest(code: &[Instruction], first: usize) -> u32 {
    let starts: Vec<usize> = code.iter().enumerate().filter_map(|(at, one)| one.callee(at)).collect();
    let end = starts.iter().copied().filter(|&start| start > first).min().unwrap_or(code.len());
    let (mut own, mut below) = (0, 0);
    let mut copies = 0_u16;
    for (at, one) in code.iter().enumerate().take(end).skip(first) {
        own = own.max(one.depth());
        let bit = 1 << one.destination();
        if one.code == MOVE && one.source() == FRAME {
            copies |= bit;
        } else if matches!(one.code & 7, 0 | 1 | 4 | 7) {
            // An address on the stack is a copy of the frame register and a distance; anything else written there is
            // another value.
            if one.code == ADD_IMMEDIATE && copies & bit != 0 && one.immediate < 0 {
                own = own.max(one.immediate.unsigned_abs());
            }
            copies &= !bit;
        }
        if one.code == EXIT {
            copies = 0;
        }
        if let Some(callee) = one.callee(at) {
            below = below.max(deepest(code, callee));
        }
    }
    // A function that uses none is counted all the same.
    own.max(1).next_multiple_of(32) + below
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
        Instruction { code, registers: source << 4 | destination, offset, immediate }
    }

    const EXIT_HERE: Instruction = instruction(EXIT, 0, 0, 0, 0);

    #[test]
    fn stack_is_what_the_deepest_chain_of_calls_uses() {
        let code = [
            // *(u64 *)(r10 - 40) = r1
            instruction(0x7b, FRAME, 1, -40, 0),
            instruction(CALL, 0, PSEUDO_CALL, 2, 0),
            instruction(CALL, 0, PSEUDO_CALL, 5, 0),
            EXIT_HERE,
            // r2 = r10; r2 += -100; r2 = 0; r2 += -400
            instruction(MOVE, 2, FRAME, 0, 0),
            instruction(ADD_IMMEDIATE, 2, 0, 0, -100),
            instruction(0xb7, 2, 0, 0, 0),
            instruction(ADD_IMMEDIATE, 2, 0, 0, -400),
            // r1 = *(u32 *)(r10 - 8)
            instruction(0x61, 1, FRAME, -8, 0),
        ];
        let code = [&code[..8], &[code[8], EXIT_HERE]].concat();
        // 40 and 100 bytes; the second function called has 8.
        assert_eq!(deepest(&code, 0), 64 + 128);
        assert_eq!(deepest(&code, 8), 32);
    }
}
