//! The link-layer header: Ethernet, with up to two 802.1Q/802.1ad tags.

use lb_common::address::Be16;
use lb_common::next_hop::{Hop, Tag};

use crate::frame::Frame;
use crate::verdict::{Step, Verdict};

/// Bytes of an Ethernet header without tags.
pub const HEADER: usize = 14;
/// Bytes of a tag.
pub const TAG: usize = 4;
/// Customer tag (IEEE 802.1Q) and service tag (802.1ad, "QinQ").
const TAG_TYPES: [Be16; 2] = [Be16::new(0x8100), Be16::new(0x88a8)];

/// Whether this EtherType announces a tag.
#[inline(always)]
pub fn is_tag(ethertype: Be16) -> bool {
    ethertype == TAG_TYPES[0] || ethertype == TAG_TYPES[1]
}

/// The EtherType at an offset.
#[inline(always)]
pub fn ethertype<F: Frame>(frame: &F, at: usize) -> Option<Be16> {
    frame.read::<2>(at).map(Be16::from_wire)
}

/// A whole link-layer header, taken off a frame before its front moves.
#[derive(Clone, Copy, Debug)]
pub struct LinkHeader {
    destination: [u8; 6],
    source: [u8; 6],
    tag_count: u8,
    tags: [Tag; 2],
    ethertype: Be16,
}

impl LinkHeader {
    /// Reads a header whose payload starts at `l3`.
    #[inline(always)]
    pub fn read<F: Frame>(frame: &F, l3: usize, ethertype: Be16) -> Option<Self> {
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = frame.read::<12>(0)?;
        let mut header = Self {
            destination: [d0, d1, d2, d3, d4, d5],
            source: [s0, s1, s2, s3, s4, s5],
            tag_count: 0,
            tags: [Tag::default(); 2],
            ethertype,
        };
        if l3 > HEADER {
            header.tags[0] = tag(frame, 12)?;
            header.tag_count = 1;
        }
        if l3 > HEADER + TAG {
            header.tags[1] = tag(frame, 16)?;
            header.tag_count = 2;
        }
        Some(header)
    }

    /// The header of a frame that goes back to whom it came from, the way it came.
    #[inline(always)]
    pub const fn answered(self) -> Self {
        Self { destination: self.source, source: self.destination, ..self }
    }

    /// The header that leads to a next hop.
    #[inline(always)]
    pub const fn towards(hop: &Hop, ethertype: Be16) -> Self {
        Self {
            destination: hop.destination,
            source: hop.source,
            tag_count: hop.tag_count,
            tags: hop.tags,
            ethertype,
        }
    }

    /// Writes the header to the front of a frame that has room for it.
    #[inline(always)]
    pub fn write<F: Frame>(&self, frame: &mut F) -> Option<()> {
        let [d0, d1, d2, d3, d4, d5] = self.destination;
        let [s0, s1, s2, s3, s4, s5] = self.source;
        frame.write(0, [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5])?;
        match self.tag_count {
            0 => frame.write(12, self.ethertype.to_wire())?,
            1 => {
                write_tag(frame, 12, self.tags[0])?;
                frame.write(16, self.ethertype.to_wire())?;
            }
            _ => {
                write_tag(frame, 12, self.tags[0])?;
                write_tag(frame, 16, self.tags[1])?;
                frame.write(20, self.ethertype.to_wire())?;
            }
        }
        Some(())
    }
}

#[inline(always)]
fn tag<F: Frame>(frame: &F, at: usize) -> Option<Tag> {
    let [p0, p1, c0, c1] = frame.read::<4>(at)?;
    Some(Tag { protocol: Be16::from_wire([p0, p1]), control: Be16::from_wire([c0, c1]) })
}

#[inline(always)]
fn write_tag<F: Frame>(frame: &mut F, at: usize, tag: Tag) -> Option<()> {
    let [[p0, p1], [c0, c1]] = [tag.protocol.to_wire(), tag.control.to_wire()];
    frame.write(at, [p0, p1, c0, c1])?;
    Some(())
}

/// Gives a frame the link-layer header of its next hop, whose payload starts at `l3` now.
#[inline(always)]
pub fn address_to<F: Frame>(frame: &mut F, l3: usize, hop: &Hop, ethertype: Be16) -> Step<()> {
    let needed = HEADER + TAG * hop.tag_count as usize;
    if needed != l3 {
        frame.move_front(l3 as i32 - needed as i32).ok_or(Verdict::INTERNAL)?;
    }
    LinkHeader::towards(hop, ethertype).write(frame).ok_or(Verdict::INTERNAL)
}
