//! Connect times, from the SYN that opens a flow to the backend's SYN-ACK: of every flow where the strategy goes by them, else of
//! one in [so many](crate::open::SAMPLED).
//!
//! The SYN's time is in its half-open entry, so measuring needs no other memory, and whatever takes the place of that time
//! (a second SYN, which stamps the entry) ends the measurement: whose answer the SYN-ACK is could not be told.

use lb_common::flow::{Data, State};
use lb_common::latency::{Latency, moment};

use crate::flows;
use crate::tables::Tables;

/// Takes the time of a handshake whose entry changes from one word to another, if it is that change.
#[inline(always)]
pub fn measure<T: Tables>(tables: &T, before: Data, after: Data) {
    if before.state() != State::HALF_OPEN || after.state() != State::ANSWERED {
        return;
    }
    let now = flows::now(tables, tables.settings());
    let Some(since) = before.opened_at(now) else { return };
    // Two ticks are more than the clock of 16 bits can tell.
    let units =
        if before.age(now) >= 2 { u16::MAX } else { moment(tables.nanoseconds()).wrapping_sub(since) };
    if let Some(load) = tables.load(after.backend()) {
        let known = load.latency.load();
        // Where another CPU has just measured, this one's time is not missed.
        load.latency.replace(known, Latency(known).measured(units, now).0);
    }
    if let Some(times) = tables.connect_times(after.backend()) {
        times.count(units);
    }
}
