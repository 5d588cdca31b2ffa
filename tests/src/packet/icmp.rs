//! ICMP messages by their meaning, whichever family the packet is of.

use super::Packet;
use super::network::Network;

impl Packet {
    fn is_v6(&self) -> bool {
        matches!(self.network, Network::V6(_))
    }

    fn message(self, v4: (u8, u8), v6: (u8, u8), rest: u32) -> Self {
        let (kind, code) = if self.is_v6() { v6 } else { v4 };
        self.icmp(kind, code, rest)
    }

    /// An echo request.
    #[must_use]
    pub fn echo_request(self, identifier: u16, sequence: u16) -> Self {
        self.message((8, 0), (128, 0), u32::from(identifier) << 16 | u32::from(sequence))
    }

    /// An echo reply.
    #[must_use]
    pub fn echo_reply(self, identifier: u16, sequence: u16) -> Self {
        self.message((0, 0), (129, 0), u32::from(identifier) << 16 | u32::from(sequence))
    }

    /// "Fragmentation needed" or "packet too big", naming the link's MTU.
    #[must_use]
    pub fn too_big(self, mtu: u16) -> Self {
        self.message((3, 4), (2, 0), u32::from(mtu))
    }

    /// "Time exceeded in transit".
    #[must_use]
    pub fn time_exceeded(self) -> Self {
        self.message((11, 0), (3, 0), 0)
    }

    /// "Port unreachable".
    #[must_use]
    pub fn port_unreachable(self) -> Self {
        self.message((3, 3), (1, 4), 0)
    }

    /// Carries that packet from its IP header on, cut off after so many bytes.
    #[must_use]
    pub fn quoting(self, packet: &Packet, bytes: usize) -> Self {
        let mut quote = packet.ip_bytes();
        quote.truncate(bytes);
        self.payload(quote)
    }
}
