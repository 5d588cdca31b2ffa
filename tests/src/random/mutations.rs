//! What goes wrong with bytes.

use super::Random;

/// Bytes from the front within which most headers are.
const HEADERS: usize = 130;

/// Does one to three things to a frame that a sender should not.
pub fn mutate(random: &mut Random, frame: &mut Vec<u8>) {
    for _ in 0..=random.below(3) {
        match random.below(8) {
            0..3 => flip(random, frame),
            3 => overwrite(random, frame),
            4 => length_field(random, frame),
            5 => frame.truncate(random.below(frame.len() + 1)),
            6 => repeat(random, frame),
            _ => remove(random, frame),
        }
    }
}

fn place(random: &mut Random, frame: &[u8]) -> usize {
    random.below(frame.len().min(HEADERS))
}

fn flip(random: &mut Random, frame: &mut [u8]) {
    let at = place(random, frame);
    if let Some(byte) = frame.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
}

fn overwrite(random: &mut Random, frame: &mut [u8]) {
    let at = place(random, frame);
    let value = [0, 1, 0x45, 0x60, 0x7f, 0x80, 0xff, random.next() as u8];
    if let Some(byte) = frame.get_mut(at) {
        *byte = random.pick(&value);
    }
}

/// Where an untagged frame has IPv4's and IPv6's lengths, fragment fields and protocol.
fn length_field(random: &mut Random, frame: &mut [u8]) {
    let at = random.pick(&[12, 14, 16, 17, 18, 19, 20, 21, 23, 34, 38, 46, 54, 55, 58]);
    let change = random.pick(&[1, 0xff, 8, 0x80]);
    if let Some(byte) = frame.get_mut(at) {
        *byte = byte.wrapping_add(change);
    }
}

/// A piece twice: a header, or anything.
fn repeat(random: &mut Random, frame: &mut Vec<u8>) {
    let start = random.pick(&[0, 12, 14, 34, 54, 62]).min(frame.len());
    let end = (start + random.pick(&[4, 8, 14, 20, 40])).min(frame.len());
    let piece = frame[start..end].to_vec();
    frame.splice(start..start, piece);
}

fn remove(random: &mut Random, frame: &mut Vec<u8>) {
    let start = random.pick(&[0, 12, 14, 34, 54, 62]).min(frame.len());
    let end = (start + random.pick(&[1, 4, 8, 14, 20, 40])).min(frame.len());
    frame.drain(start..end);
}
