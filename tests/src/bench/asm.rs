//! An assembler for BPF, as far as the bench's own programs need it: a method for each instruction, labels for jumps.
//!
//! The programs are a few dozen instructions each and must cost what they seem to cost, which a compiler does not
//! promise. The encoding is that of RFC 9669; words are little endian, as everywhere beside `bpfel` programs.

use std::os::fd::{AsFd, AsRawFd};

/// A register. A call takes its arguments in `R1` to `R5`, leaves its result in `R0`, and keeps `R6` to `R9`.
/// `R10` points to the end of the stack.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "a number each")]
pub(super) enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

/// How much a load or store moves.
#[repr(u8)]
#[derive(Clone, Copy, Debug)]
pub(super) enum Size {
    Word = 0x00,
    Half = 0x08,
    Byte = 0x10,
    Double = 0x18,
}

impl Size {
    /// In bytes.
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
            Self::Double => 8,
        }
    }
}

/// Arithmetic on whole 64-bit registers.
#[repr(u8)]
#[derive(Clone, Copy, Debug)]
pub(super) enum Alu {
    Add = 0x00,
    Sub = 0x10,
    And = 0x50,
    ShiftLeft = 0x60,
    ShiftRight = 0x70,
    Xor = 0xa0,
    Move = 0xb0,
}

/// What a jump depends on; comparisons are unsigned.
#[repr(u8)]
#[derive(Clone, Copy, Debug)]
pub(super) enum If {
    Equal = 0x10,
    Greater = 0x20,
    NotEqual = 0x50,
}

/// Kernel functions by their numbers (`enum bpf_func_id`).
#[repr(i32)]
#[derive(Clone, Copy, Debug)]
pub(super) enum Helper {
    MapLookup = 1,
    MapUpdate = 2,
    TailCall = 12,
    Redirect = 23,
    AdjustHead = 44,
}

/// The second operand: a register or a number.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operand {
    Reg(Reg),
    Number(i32),
}

impl From<Reg> for Operand {
    fn from(register: Reg) -> Self {
        Self::Reg(register)
    }
}

impl From<i32> for Operand {
    fn from(number: i32) -> Self {
        Self::Number(number)
    }
}

/// A place in the program that jumps go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

// Instruction classes and modes (RFC 9669, sections 3 to 5).
const LOAD: u8 = 0x61;
const STORE: u8 = 0x63;
const STORE_NUMBER: u8 = 0x62;
const LOAD_IMMEDIATE_64: u8 = 0x18;
const ALU64: u8 = 0x07;
const JUMP: u8 = 0x05;
const FROM_REGISTER: u8 = 0x08;
const ATOMIC_ADD_64: u8 = 0xdb;
const TO_BIG_ENDIAN: u8 = 0xdc;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// Source "register" of a 64-bit load: the number is a map's descriptor.
const MAP: u8 = 1;
/// The same: the address of the value of an array's first element.
const MAP_VALUE: u8 = 2;

/// A program under construction.
#[derive(Default)]
pub(super) struct Assembler {
    code: Vec<u64>,
    labels: Vec<Option<usize>>,
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    fn emit(&mut self, opcode: u8, destination: u8, source: u8, offset: i16, number: i32) {
        let registers = u64::from(destination | source << 4);
        self.code.push(
            u64::from(opcode)
                | registers << 8
                | u64::from(offset.cast_unsigned()) << 16
                | u64::from(number.cast_unsigned()) << 32,
        );
    }

    /// `to = *(from + offset)`, the rest of `to` zero.
    pub(super) fn load(&mut self, size: Size, to: Reg, from: Reg, offset: usize) {
        self.emit(LOAD | size as u8, to as u8, from as u8, offset as i16, 0);
    }

    /// `*(to + offset) = from`. The stack is below its register: hence the sign.
    pub(super) fn store(&mut self, size: Size, to: Reg, offset: isize, from: impl Into<Operand>) {
        match from.into() {
            Operand::Reg(from) => self.emit(STORE | size as u8, to as u8, from as u8, offset as i16, 0),
            Operand::Number(number) => {
                self.emit(STORE_NUMBER | size as u8, to as u8, 0, offset as i16, number);
            }
        }
    }

    /// `lock *(u64 *)(to + offset) += amount`
    pub(super) fn atomic_add(&mut self, to: Reg, offset: usize, amount: Reg) {
        self.emit(ATOMIC_ADD_64, to as u8, amount as u8, offset as i16, 0);
    }

    /// `to = to <operation> with`
    pub(super) fn alu(&mut self, operation: Alu, to: Reg, with: impl Into<Operand>) {
        match with.into() {
            Operand::Reg(with) => {
                self.emit(ALU64 | FROM_REGISTER | operation as u8, to as u8, with as u8, 0, 0);
            }
            Operand::Number(number) => self.emit(ALU64 | operation as u8, to as u8, 0, 0, number),
        }
    }

    /// Swaps the lower 16 or 32 bits to network byte order; the rest becomes zero.
    pub(super) fn network_order(&mut self, register: Reg, bits: i32) {
        self.emit(TO_BIG_ENDIAN, register as u8, 0, 0, bits);
    }

    /// `to = map`, as helpers take it.
    pub(super) fn map(&mut self, to: Reg, map: impl AsFd) {
        self.emit(LOAD_IMMEDIATE_64, to as u8, MAP, 0, map.as_fd().as_raw_fd());
        self.emit(0, 0, 0, 0, 0);
    }

    /// `to = &map[0]` of an array.
    pub(super) fn map_value(&mut self, to: Reg, map: impl AsFd) {
        self.emit(LOAD_IMMEDIATE_64, to as u8, MAP_VALUE, 0, map.as_fd().as_raw_fd());
        self.emit(0, 0, 0, 0, 0);
    }

    /// Calls a kernel function.
    pub(super) fn call(&mut self, helper: Helper) {
        self.emit(CALL, 0, 0, 0, helper as i32);
    }

    /// Ends the program with `value`.
    pub(super) fn exit_with(&mut self, value: i32) {
        self.alu(Alu::Move, Reg::R0, value);
        self.exit();
    }

    /// Ends the program with what is in `R0`.
    pub(super) fn exit(&mut self) {
        self.emit(EXIT, 0, 0, 0, 0);
    }

    /// A label, to be placed once.
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Puts a label here.
    pub(super) fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    /// Goes to `label` if `left <condition> right`.
    pub(super) fn jump(&mut self, condition: If, left: Reg, right: impl Into<Operand>, label: Label) {
        self.jumps.push((self.code.len(), label));
        match right.into() {
            Operand::Reg(right) => {
                self.emit(JUMP | FROM_REGISTER | condition as u8, left as u8, right as u8, 0, 0);
            }
            Operand::Number(number) => self.emit(JUMP | condition as u8, left as u8, 0, 0, number),
        }
    }

    /// The instructions, jumps resolved.
    ///
    /// # Panics
    /// Where a label that is jumped to was never placed.
    pub(super) fn finish(mut self) -> Vec<u64> {
        for (at, label) in self.jumps {
            let target = self.labels[label.0].expect("a label that is jumped to is placed");
            // Relative to the instruction after the jump.
            let distance = target as i64 - at as i64 - 1;
            self.code[at] |= u64::from((distance as i16).cast_unsigned()) << 16;
        }
        self.code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `bpftool prog dump xlated opcodes` shows them: opcode, registers, offset, number.
    fn bytes(code: &[u64]) -> Vec<[u8; 8]> {
        code.iter().map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn instructions_are_encoded_as_the_kernel_reads_them() {
        let mut asm = Assembler::default();
        asm.load(Size::Half, Reg::R5, Reg::R2, 12);
        asm.store(Size::Double, Reg::R10, -16, Reg::R3);
        asm.store(Size::Word, Reg::R10, -4, 7);
        asm.alu(Alu::Add, Reg::R4, Reg::R2);
        asm.alu(Alu::ShiftRight, Reg::R4, 16);
        asm.network_order(Reg::R0, 32);
        asm.atomic_add(Reg::R7, 8, Reg::R0);
        asm.call(Helper::TailCall);
        asm.exit_with(2);
        let expected = [
            [0x69, 0x25, 12, 0, 0, 0, 0, 0],
            [0x7b, 0x3a, 0xf0, 0xff, 0, 0, 0, 0],
            [0x62, 0x0a, 0xfc, 0xff, 7, 0, 0, 0],
            [0x0f, 0x24, 0, 0, 0, 0, 0, 0],
            [0x77, 0x04, 0, 0, 16, 0, 0, 0],
            [0xdc, 0x00, 0, 0, 32, 0, 0, 0],
            [0xdb, 0x07, 8, 0, 0, 0, 0, 0],
            [0x85, 0x00, 0, 0, 12, 0, 0, 0],
            [0xb7, 0x00, 0, 0, 2, 0, 0, 0],
            [0x95, 0x00, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(bytes(&asm.finish()), expected);
    }

    #[test]
    fn jumps_go_both_ways() {
        let mut asm = Assembler::default();
        let (back, ahead) = (asm.label(), asm.label());
        asm.place(back);
        asm.jump(If::Greater, Reg::R4, Reg::R3, ahead);
        asm.jump(If::NotEqual, Reg::R0, 5, back);
        asm.place(ahead);
        asm.exit_with(0);
        let code = bytes(&asm.finish());
        assert_eq!(code[0], [0x2d, 0x34, 1, 0, 0, 0, 0, 0]);
        assert_eq!(code[1], [0x55, 0x00, 0xfe, 0xff, 5, 0, 0, 0]);
    }
}
