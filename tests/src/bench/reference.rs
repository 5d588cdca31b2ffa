//! The programs that the balancer is measured against, and the empty one that the traffic source's cost is taken
//! off with.

use std::os::fd::OwnedFd;

use anyhow::Result;

use super::asm::{Alu, Assembler, Helper, If, Label, Reg, Size};
use super::traffic::{ETHERNET, Family};
use crate::bpf::{self, MMAPABLE, MapType, verdict};
use crate::object::Mapping;
use Alu::{Add, Move, Xor};
use Reg::{R0, R1, R2, R3, R4, R5, R10};
use Size::{Byte, Double, Half, Word};

/// Key of the references' table: addresses, ports and protocol of an IPv4 packet; in IPv6, where 40 bytes would be
/// needed, the client's address with the ports folded in.
const KEY: usize = 16;
/// Value: room for a backend and a time stamp.
const VALUE: usize = 16;
/// Entries of the table.
const CAPACITY: u32 = 1 << 20;

/// Where key and value are put together, on the stack.
const KEY_AT: isize = -(KEY as isize);
const VALUE_AT: isize = KEY_AT - VALUE as isize;

/// `BPF_ANY`: inserts or replaces. `BPF_NOEXIST`: inserts, and fails where the key is there.
const ANY: i32 = 0;
const NO_EXIST: i32 = 1;

/// Answers at once.
pub(super) fn empty() -> Result<OwnedFd> {
    let mut asm = Assembler::default();
    asm.exit_with(verdict::TX as i32);
    bpf::load_program("bench_empty", &asm.finish())
}

/// Parses and transmits: the least that any balancer does.
pub(super) fn floor(family: Family) -> Result<OwnedFd> {
    let mut asm = Assembler::default();
    let other = asm.label();
    parse(&mut asm, family, other);
    transmit(&mut asm);
    pass(&mut asm, other);
    bpf::load_program("bench_floor", &asm.finish())
}

/// A kernel LRU hash table, what most balancers keep their flows in, and the programs that work on it.
pub(super) struct LruTable {
    table: OwnedFd,
    misses_map: OwnedFd,
    misses: Mapping<u64>,
    family: Family,
}

impl LruTable {
    /// An empty table.
    pub(super) fn new(family: Family) -> Result<Self> {
        let table = bpf::create_map(MapType::LruHash, KEY, VALUE, CAPACITY, 0)?;
        let misses_map = bpf::create_map(MapType::Array, 4, size_of::<u64>(), 1, MMAPABLE)?;
        // SAFETY: created with this very size; an integer.
        let misses = unsafe { Mapping::map(&misses_map, 1)? };
        Ok(Self { table, misses_map, misses, family })
    }

    /// Look-ups that did not find their flow.
    pub(super) fn misses(&self) -> u64 {
        // SAFETY: mapped and aligned; volatile, since the kernel's program writes it.
        unsafe { std::ptr::from_ref(&self.misses[0]).read_volatile() }
    }

    /// Parses, looks the flow up, transmits; passes what is not found.
    pub(super) fn look_up(&self) -> Result<OwnedFd> {
        let mut asm = Assembler::default();
        let (other, missing) = (asm.label(), asm.label());
        parse(&mut asm, self.family, other);
        self.write_key(&mut asm);
        // Kept over the call: the frame is addressed anew.
        asm.alu(Move, Reg::R6, R2);
        self.point_to_key(&mut asm);
        asm.call(Helper::MapLookup);
        asm.jump(If::Equal, R0, 0, missing);
        asm.load(Double, R5, R0, 0);
        asm.jump(If::Equal, R5, 0, missing);
        asm.alu(Move, R2, Reg::R6);
        transmit(&mut asm);
        asm.place(missing);
        asm.map_value(R1, &self.misses_map);
        asm.alu(Move, R2, 1);
        asm.atomic_add(R1, 0, R2);
        pass(&mut asm, other);
        bpf::load_program("bench_lru_lookup", &asm.finish())
    }

    /// Parses, puts the flow in, whether it is there or not, and transmits.
    pub(super) fn put(&self) -> Result<OwnedFd> {
        self.update("bench_lru_put", ANY)
    }

    /// Parses, inserts a flow that must not be there, and transmits; passes what cannot be inserted.
    pub(super) fn insert(&self) -> Result<OwnedFd> {
        self.update("bench_lru_insert", NO_EXIST)
    }

    fn update(&self, name: &str, mode: i32) -> Result<OwnedFd> {
        let mut asm = Assembler::default();
        let (other, refused) = (asm.label(), asm.label());
        parse(&mut asm, self.family, other);
        self.write_key(&mut asm);
        asm.alu(Move, Reg::R6, R2);
        asm.store(Double, R10, VALUE_AT, 1);
        asm.store(Double, R10, VALUE_AT + 8, 0);
        self.point_to_key(&mut asm);
        asm.alu(Move, R3, R10);
        asm.alu(Add, R3, VALUE_AT as i32);
        asm.alu(Move, R4, mode);
        asm.call(Helper::MapUpdate);
        asm.jump(If::NotEqual, R0, 0, refused);
        asm.alu(Move, R2, Reg::R6);
        transmit(&mut asm);
        asm.place(refused);
        pass(&mut asm, other);
        bpf::load_program(name, &asm.finish())
    }

    fn write_key(&self, asm: &mut Assembler) {
        let (ip, tcp) = (ETHERNET, self.family.tcp());
        match self.family {
            Family::V4 => {
                asm.load(Double, R4, R2, ip + 12);
                asm.load(Word, R5, R2, tcp);
                asm.store(Double, R10, KEY_AT, R4);
                asm.store(Word, R10, KEY_AT + 8, R5);
                asm.store(Word, R10, KEY_AT + 12, TCP);
            }
            Family::V6 => {
                asm.load(Double, R3, R2, ip + 8);
                asm.load(Double, R4, R2, ip + 16);
                asm.load(Word, R5, R2, tcp);
                asm.alu(Xor, R3, R5);
                asm.store(Double, R10, KEY_AT, R3);
                asm.store(Double, R10, KEY_AT + 8, R4);
            }
        }
    }

    fn point_to_key(&self, asm: &mut Assembler) {
        asm.map(R1, &self.table);
        asm.alu(Move, R2, R10);
        asm.alu(Add, R2, KEY_AT as i32);
    }
}

/// IP protocol number of TCP.
const TCP: i32 = 6;

/// Leaves the frame's start in `R2`; jumps where it is no plain TCP packet of the family.
fn parse(asm: &mut Assembler, family: Family, other: Label) {
    let (ethertype, version, protocol_at) = match family {
        Family::V4 => (0x0800_u16, 0x45, ETHERNET + 9),
        Family::V6 => (0x86dd, 0x60, ETHERNET + 6),
    };
    asm.load(Word, R2, R1, 0);
    asm.load(Word, R3, R1, 4);
    asm.alu(Move, R4, R2);
    asm.alu(Add, R4, family.tcp() as i32 + 20);
    asm.jump(If::Greater, R4, R3, other);
    asm.load(Half, R4, R2, 12);
    asm.jump(If::NotEqual, R4, i32::from(ethertype.to_be()), other);
    asm.load(Byte, R4, R2, ETHERNET);
    asm.jump(If::NotEqual, R4, version, other);
    asm.load(Byte, R4, R2, protocol_at);
    asm.jump(If::NotEqual, R4, TCP, other);
}

/// Sends the frame at `R2` back: swaps its MAC addresses.
fn transmit(asm: &mut Assembler) {
    asm.load(Word, R0, R2, 0);
    asm.load(Half, R1, R2, 4);
    asm.load(Word, R3, R2, 6);
    asm.load(Half, R4, R2, 10);
    asm.store(Word, R2, 0, R3);
    asm.store(Half, R2, 4, R4);
    asm.store(Word, R2, 6, R0);
    asm.store(Half, R2, 10, R1);
    asm.exit_with(verdict::TX as i32);
}

/// Leaves what was jumped here with to the kernel.
fn pass(asm: &mut Assembler, from: Label) {
    asm.place(from);
    asm.exit_with(verdict::PASS as i32);
}
