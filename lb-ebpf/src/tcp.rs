//! What a TCP segment does to the state of its flow (RFC 9293 section 3.3.2, seen from the middle).

use lb_common::flow::{Data, State};

/// What a TCP header says, as far as the middle needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The flag bits; none set stands for "not TCP".
    pub flags: u8,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

impl Segment {
    /// No TCP header.
    pub const NONE: Self = Self { flags: 0, sequence: 0, acknowledgement: 0 };

    /// Whether it opens a connection.
    #[inline(always)]
    pub const fn is_syn(self) -> bool {
        self.flags & (SYN | ACK | RST) == SYN
    }

    /// Whether it accepts one.
    #[inline(always)]
    pub const fn is_syn_ack(self) -> bool {
        self.flags & (SYN | ACK | RST) == SYN | ACK
    }

    /// Whether it ends one, in this direction or in both.
    #[inline(always)]
    pub const fn is_ending(self) -> bool {
        self.flags & (FIN | RST) != 0
    }

    /// Whether it resets one. A reset is never answered.
    #[inline(always)]
    pub const fn is_reset(self) -> bool {
        self.flags & RST != 0
    }

    /// Whether its acknowledgement number counts.
    #[inline(always)]
    pub const fn is_acknowledging(self) -> bool {
        self.flags & ACK != 0
    }

    /// What it occupies of the sequence space besides its data.
    #[inline(always)]
    pub const fn phantom_length(self) -> u32 {
        ((self.flags & SYN != 0) as u32) + ((self.flags & FIN != 0) as u32)
    }
}

/// The entry after a segment from the client.
///
/// Established only by an ACK of the very SYN-ACK that the client was sent: a backend's SYN-ACK alone proves
/// nothing, since backends answer spoofed SYNs, and an unchecked ACK can be forged blind.
#[inline(always)]
pub fn after_request(data: Data, segment: Segment, now: u64) -> Data {
    match data.state() {
        State::DATAGRAM => data.stamped(now),
        _ if segment.is_ending() => data.in_state(State::CLOSING).stamped(now),
        State::ANSWERED if segment.is_syn() => data.answered(data.expected_acknowledgement(), now),
        State::ANSWERED if proves(data, segment) => data.in_state(State::ESTABLISHED).stamped(now),
        State::ANSWERED => data,
        _ => data.stamped(now),
    }
}

/// Whether a segment of the client acknowledges the SYN-ACK that an answered entry waits for.
#[inline(always)]
pub const fn proves(data: Data, segment: Segment) -> bool {
    segment.is_acknowledging() && segment.acknowledgement as u16 == data.expected_acknowledgement()
}

/// The entry after a segment from the backend.
#[inline(always)]
pub fn after_reply(data: Data, segment: Segment, now: u64) -> Data {
    match data.state() {
        State::DATAGRAM => data.stamped(now),
        _ if segment.is_ending() => data.in_state(State::CLOSING).stamped(now),
        State::HALF_OPEN | State::ANSWERED if segment.is_syn_ack() => {
            data.answered(segment.sequence.wrapping_add(1) as u16, now)
        }
        State::ANSWERED => data,
        _ => data.stamped(now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 100;

    fn segment(flags: u8, sequence: u32, acknowledgement: u32) -> Segment {
        Segment { flags, sequence, acknowledgement }
    }

    fn half_open() -> Data {
        Data::succeeding(Data(0), State::HALF_OPEN, 3, NOW)
    }

    #[test]
    fn a_handshake_establishes() {
        let answered = after_reply(half_open(), segment(SYN | ACK, 0xffff_ffff, 1), NOW);
        assert_eq!((answered.state(), answered.expected_acknowledgement()), (State::ANSWERED, 0));
        let established = after_request(answered, segment(ACK, 1, 0), NOW + 1);
        assert_eq!(
            (established.state(), established.age(NOW + 1), established.backend()),
            (State::ESTABLISHED, 0, 3)
        );
    }

    #[test]
    fn a_blind_ack_does_not() {
        let answered = after_reply(half_open(), segment(SYN | ACK, 7, 1), NOW);
        assert_eq!(after_request(answered, segment(ACK, 1, 9), NOW).state(), State::ANSWERED);
        assert_eq!(after_request(half_open(), segment(ACK, 1, 8), NOW).state(), State::HALF_OPEN);
    }

    #[test]
    fn a_retransmitted_syn_changes_nothing_but_the_time() {
        let answered = after_reply(half_open(), segment(SYN | ACK, 41, 1), NOW);
        let again = after_request(answered, segment(SYN, 0, 0), NOW + 3);
        assert_eq!(
            (again.state(), again.expected_acknowledgement(), again.age(NOW + 3)),
            (State::ANSWERED, 42, 0)
        );
    }

    #[test]
    fn fin_and_rst_close_from_either_side_and_closing_stays() {
        for flags in [FIN | ACK, RST, RST | ACK] {
            let established = half_open().in_state(State::ESTABLISHED);
            let closing = after_request(established, segment(flags, 1, 1), NOW);
            assert_eq!(closing.state(), State::CLOSING);
            assert_eq!(after_reply(established, segment(flags, 1, 1), NOW).state(), State::CLOSING);
            assert_eq!(after_reply(closing, segment(ACK, 1, 1), NOW).state(), State::CLOSING);
        }
    }

    #[test]
    fn udp_has_no_flags_to_heed() {
        let datagram = half_open().in_state(State::DATAGRAM);
        assert_eq!(after_request(datagram, Segment::NONE, NOW).state(), State::DATAGRAM);
    }
}
