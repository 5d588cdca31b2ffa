//! VLAN devices, as the data plane needs them: XDP sends through the physical interface and writes the tags itself.

use crate::abi::row;
use crate::next_hop::Tag;

/// What a VLAN device's index stands for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The physical interface at the bottom.
    pub ifindex: u32,
    /// Tags that frames carry there, 1 or 2.
    pub tag_count: u32,
    /// Outermost first.
    pub tags: [Tag; 2],
}
row!(copy Link, 16, { u32, u32, [Tag; 2] });
