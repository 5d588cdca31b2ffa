//! The traffic source: a program that writes the next flow's packet in place and tail-calls the program under test.
//!
//! `BPF_PROG_TEST_RUN` runs a program over one frame again and again. With this in front, one call is a million
//! packets of as many flows as there shall be, each with right checksums, in a frame put back to where it was.

use std::mem::offset_of;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Result, ensure};

use super::asm::{Alu, Assembler, Helper, If, Label, Reg, Size};
use super::traffic::{PORT_BITS, Places, Template, Traffic};
use crate::bpf::{self, MMAPABLE, MapType};
use crate::object::Mapping;
use Alu::{Add, And, Move, ShiftLeft, ShiftRight, Sub, Xor};
use Reg::{R0, R1, R2, R3, R4, R5, R6, R7, R8, R9};
use Size::{Byte, Double, Half, Word};

/// Entries of the list of flows: a power of two, so that the count of packets wraps by a mask.
pub(super) const LIST: u32 = 1 << 20;
/// Bytes of headers that a template has room for; IPv6 and TCP take 74.
const TEMPLATE: usize = 128;

// Offsets in `struct xdp_md`.
const DATA: usize = 0;
const DATA_END: usize = 4;

/// What the source reads for each packet, and counts.
#[repr(C)]
#[derive(Clone, Copy)]
struct Control {
    /// Packets sent: the position in the list, or the number of the next new flow.
    sent: u64,
    ip_sum: u32,
    tcp_sum: u32,
    first_client: u32,
    first_peer: u32,
    length: u32,
    reserved: u32,
    headers: [u8; TEMPLATE],
}

/// What sources read: one kind of packet at a time, and the list that its flows are drawn from.
pub(super) struct Feed {
    control_map: OwnedFd,
    control: Mapping<Control>,
    list_map: OwnedFd,
    list: Mapping<[u32; 2]>,
}

impl Feed {
    /// A feed with a list of flow 0 alone.
    pub(super) fn new() -> Result<Self> {
        let control_map = bpf::create_map(MapType::Array, 4, size_of::<Control>(), 1, MMAPABLE)?;
        let list_map = bpf::create_map(MapType::Array, 4, LIST as usize * 4, 1, MMAPABLE)?;
        // SAFETY: integers, and as much memory as the maps were created with.
        let (control, list) = unsafe { (Mapping::map(&control_map, 1)?, Mapping::map(&list_map, LIST / 2)?) };
        Ok(Self { control_map, control, list_map, list })
    }

    /// Sets the list, entry by entry; see [`flow_bits`](super::traffic::Path::flow_bits).
    pub(super) fn fill(&mut self, mut entry: impl FnMut(u32) -> u32) -> Result<()> {
        for pair in 0..LIST / 2 {
            self.list.write(pair as usize, [entry(pair * 2), entry(pair * 2 + 1)])?;
        }
        Ok(())
    }

    /// Sets what is sent next, and which packet of it.
    pub(super) fn prepare(&mut self, template: &Template, sent: u64) -> Result<()> {
        let mut headers = [0; TEMPLATE];
        for (to, from) in headers.iter_mut().zip(&template.frame) {
            *to = *from;
        }
        let control = Control {
            sent,
            ip_sum: template.ip_sum,
            tcp_sum: template.tcp_sum,
            first_client: template.first_client,
            first_peer: template.first_peer,
            length: template.frame.len() as u32,
            reserved: 0,
            headers,
        };
        self.control.write(0, control)
    }
}

/// A source in front of a program under test.
pub(super) struct Source {
    program: OwnedFd,
    /// Keeps the program under test loaded.
    _next: OwnedFd,
}

impl Source {
    /// The source of a kind of traffic, for one program under test.
    pub(super) fn new(feed: &Feed, traffic: &Traffic, under_test: impl AsFd) -> Result<Self> {
        let next = bpf::create_map(MapType::ProgArray, 4, 4, 1, 0)?;
        // First the program under test: the array learns from it what programs it takes.
        bpf::set_program(&next, 0, under_test)?;
        let code =
            Writer { feed, next: &next, places: traffic.places(), listed: traffic.comes_again }.assemble()?;
        Ok(Self { program: bpf::load_program("bench_source", &code)?, _next: next })
    }

    /// The program to run.
    pub(super) fn program(&self) -> &OwnedFd {
        &self.program
    }
}

/// Writes the source. Registers that last: `R6` the context, `R7` the control row; from the flow's choice on, `R2`
/// the frame, `R5` the flow's number, `R8` the other end's, `R9` the sum of both addresses' words, `R4` the port.
struct Writer<'a> {
    feed: &'a Feed,
    next: &'a OwnedFd,
    places: Places,
    listed: bool,
}

impl Writer<'_> {
    fn assemble(&self) -> Result<Vec<u64>> {
        ensure!(self.places.end <= TEMPLATE, "headers of {} bytes do not fit the template", self.places.end);
        let mut asm = Assembler::default();
        let failed = asm.label();
        asm.alu(Move, R6, R1);
        asm.map_value(R7, &self.feed.control_map);
        restore_front(&mut asm, failed);
        asm.alu(Move, R4, R2);
        asm.alu(Add, R4, self.places.end as i32);
        asm.jump(If::Greater, R4, R3, failed);
        self.choose_flow(&mut asm);
        self.write_headers(&mut asm);
        self.write_ends(&mut asm);
        self.write_checksums(&mut asm);
        self.hand_over(&mut asm);
        asm.place(failed);
        asm.exit_with(0);
        Ok(asm.finish())
    }

    fn choose_flow(&self, asm: &mut Assembler) {
        asm.load(Double, R5, R7, offset_of!(Control, sent));
        if self.listed {
            asm.alu(And, R5, LIST as i32 - 1);
            asm.alu(ShiftLeft, R5, 2);
            asm.map_value(R8, &self.feed.list_map);
            asm.alu(Add, R8, R5);
            asm.load(Word, R5, R8, 0);
            asm.alu(Move, R8, R5);
            asm.alu(ShiftRight, R8, self.places.flow_bits as i32);
            asm.alu(And, R5, (1 << self.places.flow_bits) - 1);
        } else {
            asm.alu(Move, R8, 0);
        }
    }

    fn write_headers(&self, asm: &mut Assembler) {
        let mut at = 0;
        for size in [Double, Word, Half, Byte] {
            while at + size.bytes() <= self.places.end {
                asm.load(size, R0, R7, offset_of!(Control, headers) + at);
                asm.store(size, R2, at as isize, R0);
                at += size.bytes();
            }
        }
    }

    /// Client's port and address, then the other end's address.
    fn write_ends(&self, asm: &mut Assembler) {
        asm.alu(Move, R4, R5);
        asm.alu(And, R4, (1 << PORT_BITS) - 1);
        asm.alu(Add, R4, 1 << PORT_BITS);
        asm.network_order(R4, 16);
        asm.store(Half, R2, self.places.client_port as isize, R4);
        asm.alu(ShiftRight, R5, PORT_BITS as i32);
        asm.alu(Move, R9, 0);
        let ends = [
            (R5, offset_of!(Control, first_client), self.places.client),
            (R8, offset_of!(Control, first_peer), self.places.peer),
        ];
        for (number, first, place) in ends {
            asm.load(Word, R0, R7, first);
            asm.alu(Add, number, R0);
            asm.network_order(number, 32);
            asm.store(Word, R2, place as isize, number);
            asm.alu(Move, R0, number);
            asm.alu(ShiftRight, R0, 16);
            asm.alu(Add, R9, R0);
            asm.alu(And, number, 0xffff);
            asm.alu(Add, R9, number);
        }
    }

    fn write_checksums(&self, asm: &mut Assembler) {
        if let Some(place) = self.places.ip_checksum {
            asm.load(Word, R1, R7, offset_of!(Control, ip_sum));
            asm.alu(Add, R1, R9);
            write_folded(asm, place);
        }
        asm.load(Word, R1, R7, offset_of!(Control, tcp_sum));
        asm.alu(Add, R1, R9);
        asm.alu(Add, R1, R4);
        write_folded(asm, self.places.tcp_checksum);
    }

    /// Counts the packet by a locked addition, which drains the store buffer: the program under test shall not wait
    /// for bytes just written, as it would not behind a network card. Then calls it.
    fn hand_over(&self, asm: &mut Assembler) {
        asm.alu(Move, R0, 1);
        asm.atomic_add(R7, offset_of!(Control, sent), R0);
        asm.alu(Move, R1, R6);
        asm.map(R2, self.next);
        asm.alu(Move, R3, 0);
        asm.call(Helper::TailCall);
    }
}

/// Undoes what the program under test did to the frame's front the last time; leaves start and end in `R2` and `R3`.
fn restore_front(asm: &mut Assembler, failed: Label) {
    let in_place = asm.label();
    asm.load(Word, R2, R6, DATA);
    asm.load(Word, R3, R6, DATA_END);
    asm.alu(Move, R4, R3);
    asm.alu(Sub, R4, R2);
    asm.load(Word, R5, R7, offset_of!(Control, length));
    asm.jump(If::Equal, R4, R5, in_place);
    asm.alu(Sub, R4, R5);
    asm.alu(Move, R1, R6);
    asm.alu(Move, R2, R4);
    asm.call(Helper::AdjustHead);
    asm.jump(If::NotEqual, R0, 0, failed);
    asm.load(Word, R2, R6, DATA);
    asm.load(Word, R3, R6, DATA_END);
    asm.place(in_place);
}

/// Folds the sum in `R1` to 16 bits and writes its complement. Two rounds do for any header's sum.
fn write_folded(asm: &mut Assembler, place: usize) {
    for _ in 0..2 {
        asm.alu(Move, R0, R1);
        asm.alu(ShiftRight, R0, 16);
        asm.alu(And, R1, 0xffff);
        asm.alu(Add, R1, R0);
    }
    asm.alu(Xor, R1, 0xffff);
    asm.store(Half, R2, place as isize, R1);
}
