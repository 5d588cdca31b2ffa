//! Every way a packet can end, and everything worth counting that happens on its way.

/// Defines an enum whose variants are rows of a counter array: a number, a stable name and a sentence each.
macro_rules! counted {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $text:literal, $doc:literal;)* }) => {
        $(#[$meta])*
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $(#[doc = $doc] $variant,)*
        }

        impl $name {
            /// Every variant, in the order of its counter.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Stable name: in metrics, in the API, in the documentation.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// One sentence for people.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

counted! {
    /// The outcome of a packet. Each packet counts once.
    Reason {
        RequestForwarded = "request_forwarded", "Sent to a backend.";
        ReplyForwarded = "reply_forwarded", "A backend's reply, sent to the client from the virtual address.";
        IcmpToBackend = "icmp_to_backend", "An ICMP error about a reply, translated and sent to the backend.";
        IcmpToClient = "icmp_to_client", "An ICMP error about a request, translated and sent to the client.";
        EchoAnswered = "echo_answered", "An ICMP echo request to a virtual address, answered.";
        ResetNoBackend = "reset_no_backend", "TCP to a service without a backend: answered with a reset.";
        UnreachableNoBackend = "unreachable_no_backend", "UDP to a service without a backend: answered with ICMP port unreachable.";
        ResetBackendDown = "reset_backend_down", "TCP of a flow whose backend is gone, to a service that then resets: answered with a reset.";
        UnreachableBackendDown = "unreachable_backend_down", "UDP of a flow whose backend is gone, to a service that then resets: answered with ICMP port unreachable, once.";
        ResetUnknownFlow = "reset_unknown_flow", "TCP in mid-stream of a flow that nobody knows, to a service whose strategy does not compute its backend: answered with a reset.";
        ResetSynAckStale = "reset_syn_ack_stale", "A SYN-ACK from a backend that its flow has left for another: answered to the backend with a reset.";
        RequestRetried = "request_retried", "A backend's reset of a new connection: turned into the client's SYN and sent to another backend.";
        TimeExceeded = "time_exceeded", "TTL or hop limit used up: answered with ICMP time exceeded.";
        TooBig = "too_big", "Larger than the next link takes: answered with ICMP fragmentation needed (RFC 1191) or packet too big (RFC 8201).";
        PassNotIp = "pass_not_ip", "Neither IPv4 nor IPv6: ARP, LLDP and the like.";
        PassNotOurs = "pass_not_ours", "To no service and from no backend.";
        PassReplyWithoutFlow = "pass_reply_without_flow", "From a backend's endpoint but of no flow: its own traffic.";
        PassPoolWithoutFlow = "pass_pool_without_flow", "From a backend to an address and port of a source pool, but of no flow that has this port and this backend.";
        PassIcmpWithoutFlow = "pass_icmp_without_flow", "An ICMP error to a virtual address or about a backend that quotes no flow of ours.";
        PassNeighbourUnknown = "pass_neighbour_unknown", "Rewritten, then left to the kernel, which resolves the neighbour and forwards.";
        PassForFragmentation = "pass_for_fragmentation", "Rewritten, then left to the kernel, which fragments: too large, and the sender allows it.";
        PassForRouting = "pass_for_routing", "Rewritten, then left to the kernel, whose route XDP cannot follow.";
        DropTruncated = "drop_truncated", "To a virtual address, but cut off before its headers or its stated length end.";
        DropMalformed = "drop_malformed", "To a virtual address, but with header lengths that contradict each other.";
        DropNoBackend = "drop_no_backend", "To a service without a backend that is set to drop.";
        DropTimeExceeded = "drop_time_exceeded", "TTL or hop limit used up, and no ICMP error is due: rate limit, or not a first fragment.";
        DropTooBig = "drop_too_big", "Too large, and no ICMP error is due: rate limit, or not a first fragment.";
        DropUnreachable = "drop_unreachable", "No backend, and no ICMP error is due: rate limit.";
        DropBackendDown = "drop_backend_down", "A flow's backend is gone, its service then resets, and no answer is due: rate limit, a TCP reset, or not a first fragment.";
        DropUnknownFlow = "drop_unknown_flow", "As reset_unknown_flow, but no answer is due: a TCP reset, or not a first fragment.";
        DropFlowTableFull = "drop_flow_table_full", "A new flow without room in the flow table, to a service whose strategy does not compute its backend.";
        DropTupleInUse = "drop_tuple_in_use", "A new flow whose client port has a flow by another virtual address at every backend that it could go to.";
        DropDenied = "drop_denied", "From a client that the service's prefix lists turn away.";
        DropServiceLimit = "drop_service_limit", "A new flow beyond what its service takes a second.";
        DropSourceLimit = "drop_source_limit", "A new flow beyond what its service takes a second from one source.";
        DropFragmentBeforeFirst = "drop_fragment_before_first", "A later fragment to a virtual address whose first was not seen.";
        DropReplyFragmentBeforeFirst = "drop_reply_fragment_before_first", "A later fragment from a backend, of a protocol that it serves, whose first was not seen.";
        DropUdpChecksumZero = "drop_udp_checksum_zero", "UDP over IPv6 without a checksum (RFC 8200 section 8.1).";
        DropSourceInvalid = "drop_source_invalid", "A new flow whose source cannot be a client: zero, loopback, multicast.";
        DropRefused = "drop_refused", "A backend's reset of a connection that is to be tried elsewhere, when its client sends its SYN again: the SYN is not known any more, or the way to the next backend is not.";
        DropResetStale = "drop_reset_stale", "A reset from a backend that its flow has left for another, or of another connection than the one that is being opened.";
        DropPortsExhausted = "drop_ports_exhausted", "A new flow to a full-NAT service, for which no port of the source pool is free.";
        DropWithoutPort = "drop_without_port", "To a full-NAT service, of a flow that is not remembered and so has no port: the flow table is full, or this is a later fragment or the end of an unknown connection.";
        DropNoRoute = "drop_no_route", "The kernel's routing table says blackhole, unreachable or prohibit.";
        DropInternal = "drop_internal", "The tables contradict each other. Must stay zero.";
    }
}

counted! {
    /// Something that happened on the way. A packet can count several times or not at all.
    Event {
        FlowCreated = "flow_created", "An entry was made.";
        FlowEstablished = "flow_established", "A TCP flow's client proved that it saw the SYN-ACK.";
        FlowEvicted = "flow_evicted", "A half-open, closing or idle entry gave way to a new flow.";
        FlowUntracked = "flow_untracked", "No entry could be made: bucket full of flows that stay; balanced by hash.";
        AffinityUntracked = "affinity_untracked", "A client's backend could not be remembered: bucket full; its next flow goes by the strategy alone.";
        FlowRebalanced = "flow_rebalanced", "A flow's backend was gone; it was given another.";
        FlowRetried = "flow_retried", "A flow's backend refused it or did not answer; it was given another.";
        SuspectAvoided = "suspect_avoided", "A new flow's backend had refused or not answered others just before; it was given another.";
        FlowSidestepped = "flow_sidestepped", "A new flow's client port has a flow by another virtual address at its backend; it was given another backend.";
        SourceUncounted = "source_uncounted", "A new flow was let in whose source found no room among those that are limited.";
        PortTaken = "port_taken", "A port of a source pool was given to a flow.";
        PortReclaimed = "port_reclaimed", "No port was free: that of an idle flow, or of one that is gone, was taken.";
        NextHopLookup = "next_hop_lookup", "The kernel's routing table was asked.";
        NextHopUncached = "next_hop_uncached", "A next hop found no room in the table: this packet paid for the look-up itself.";
        RedirectFailed = "redirect_failed", "After the verdict: a redirect that the kernel refused.";
        TransmitFailed = "transmit_failed", "After the verdict: a frame that the driver did not take.";
        ProgramException = "program_exception", "After the verdict: an action that the driver cannot do.";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_in_one_style() {
        let names: Vec<_> =
            Reason::ALL.iter().map(|r| r.name()).chain(Event::ALL.iter().map(|e| e.name())).collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        for name in names {
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        }
    }
    #[test]
    fn the_documentation_lists_them_all() {
        let page = include_str!("../../docs/counters.md");
        let rows = Reason::ALL
            .iter()
            .map(|reason| (reason.name(), reason.description()))
            .chain(Event::ALL.iter().map(|event| (event.name(), event.description())));
        for (name, description) in rows {
            assert!(page.contains(&format!("| `{name}` | {description} |")), "docs/counters.md lacks {name}");
        }
    }
}
