//! Next hops that the data plane holds, as the agent sees to them: doubted when the network changes, and kept warm.

use std::collections::BTreeSet;

use lb_common::next_hop::NextHop;

use super::arrays::Arrays;

/// Seconds since its last confirmation for which a next hop counts as one that packets use.
const IN_USE: u64 = 10;

/// Has the data plane ask anew for every next hop that it holds, with the next packet that takes it.
pub(super) fn doubt(arrays: &Arrays) {
    for row in arrays.next_hops.iter() {
        let state = row.state.load();
        if NextHop::is_live(state) {
            // Where a packet confirms it in between, that is after the change.
            row.state.replace(state, NextHop::live(0));
        }
    }
}

/// Link-layer addresses that packets were sent to lately.
pub(super) fn in_use(arrays: &Arrays, jiffies: u64) -> BTreeSet<[u8; 6]> {
    let lifetime = IN_USE * u64::from(arrays.settings().jiffies_per_second);
    let fresh = arrays.next_hops.iter().filter(|row| NextHop::fresh(row.state.load(), jiffies, lifetime));
    fresh.map(|row| row.read().destination).collect()
}

#[cfg(test)]
mod tests {
    use lb_common::next_hop::{Hop, RowState};

    use super::*;
    use crate::datapath::arrays::Sizes;

    const NOW: u64 = 1_000_000;

    #[test]
    fn every_live_hop_is_doubted_and_only_those_in_use_are_kept_warm() {
        let sizes = Sizes { flows: 16, flows6: 16, services: 1, backends: 1, table_size: 61, ..Sizes::TEST };
        let arrays = Arrays::private(sizes);
        let per_second = u64::from(arrays.settings().jiffies_per_second);
        let mac = |last| [2, 0, 0, 0, 0, last];
        let put = |id: usize, last, state| {
            arrays.next_hops[id].write(&Hop { destination: mac(last), ..Hop::default() }.to_words());
            arrays.next_hops[id].state.store(state);
        };
        put(1, 1, NextHop::live(NOW));
        put(2, 2, NextHop::live(NOW - 11 * per_second));
        put(3, 3, RowState::Retired as u64);
        assert_eq!(in_use(&arrays, NOW), BTreeSet::from([mac(1)]));
        doubt(&arrays);
        let state = |id: usize| arrays.next_hops[id].state.load();
        for id in [1, 2] {
            assert!(NextHop::is_live(state(id)) && !NextHop::fresh(state(id), NOW, per_second), "{id}");
        }
        assert_eq!((state(3), state(4)), (RowState::Retired as u64, 0));
    }
}
