//! Who may open a flow, and how often: prefix lists, and limits of new flows by service and by source.
//!
//! Off unless a service's options say otherwise; limits are asked for new flows alone.

use lb_common::address::Address;
use lb_common::hash::mix3;
use lb_common::limit::{Limit, SOURCES_PER_LINE, Source, network};
use lb_common::prefix::{ALLOW, PrefixKey};
use lb_common::reason::{Event, Reason};
use lb_common::service::Options;

use crate::flows::count;
use crate::tables::Tables;
use crate::verdict::{Step, Verdict};

/// Swaps that are tried against other CPUs. Whoever loses so often is let in: each loss was somebody else's turn.
const ATTEMPTS: usize = 4;

/// Turns a packet away whose source is on the wrong list. Every packet of a service that has lists comes here, so that
/// a client with an open connection is cut off too.
#[inline(always)]
pub fn check_lists<T: Tables>(tables: &T, service: u16, options: Options, source: Address) -> Step<()> {
    if options.has(Options::PREFIX_LISTS) && !tables.allows(service, options.0, source) {
        return Err(Verdict::Drop(Reason::DropDenied));
    }
    Ok(())
}

/// Turns a new flow away that comes too soon after others.
#[inline(always)]
pub fn check_limits<T: Tables>(tables: &T, service: u16, options: Options, source: Address) -> Step<()> {
    if !options.has_any(Options::LIMIT_SERVICE.with(Options::LIMIT_SOURCE)) {
        return Ok(());
    }
    match tables.refuses(service, options.0, source) {
        0 => Ok(()),
        BY_SERVICE => Err(Verdict::Drop(Reason::DropServiceLimit)),
        _ => Err(Verdict::Drop(Reason::DropSourceLimit)),
    }
}

/// Whether a service's lists let a client in: the longest prefix decides, the options where there is none.
#[inline(always)]
pub fn allows<T: Tables>(tables: &T, service: u16, options: u64, source: Address) -> bool {
    let options = Options(options);
    let key = PrefixKey::new(service, options.list_generation(), &source);
    match tables.listed(&key) {
        Some(verdict) => verdict == ALLOW,
        None => !options.has(Options::DENY_UNLISTED),
    }
}

/// What [`refuses`] says of a flow that is one too many for its service.
const BY_SERVICE: u32 = 1;
/// What it says of one that is one too many for its source.
const BY_SOURCE: u32 = 2;

/// Counts a new flow against its service's limits; why it is one too many, or 0.
#[inline(always)]
pub fn refuses<T: Tables>(tables: &T, service: u16, options: u64, source: Address) -> u32 {
    let options = Options(options);
    // The source first: what one of them is refused shall cost the others nothing.
    if options.has(Options::LIMIT_SOURCE) && !admits_source(tables, service, source.0) {
        return BY_SOURCE;
    }
    if options.has(Options::LIMIT_SERVICE) && !admits_any(tables, service) {
        return BY_SERVICE;
    }
    0
}

/// Counts a new flow of a service; false where it is one too many.
#[inline(always)]
fn admits_any<T: Tables>(tables: &T, service: u16) -> bool {
    let Some(row) = tables.service_state(service) else { return true };
    let limit = Limit(row.service_limit.load());
    let jiffies = tables.jiffies();
    for _ in 0..ATTEMPTS {
        let state = row.limit.load();
        let Some(next) = limit.admit(state, jiffies) else { return false };
        if row.limit.replace(state, next) {
            return true;
        }
    }
    true
}

/// Counts a new flow of a source; false where it is one too many.
///
/// A source has a word of the line that its hash leads to. A word whose source is idle is anybody's. Where a line is full
/// of sources that are not, a further one is let in uncounted: a flood from everywhere, which no limit by source can
/// stop, must not shut out whoever happens to share its lines.
#[inline(always)]
fn admits_source<T: Tables>(tables: &T, service: u16, source: [u64; 2]) -> bool {
    let Some(row) = tables.service_state(service) else { return true };
    let limit = Limit(row.source_limit.load());
    let [head, tail] = network(source, limit.prefix());
    let hash = mix3([head, tail, service as u64], tables.settings().flow_key);
    admits_hash(tables, limit.0, hash)
}

#[inline(always)]
fn admits_hash<T: Tables>(tables: &T, limit: u64, hash: u64) -> bool {
    let limit = Limit(limit);
    let Some(line) = tables.source_line(hash as u32) else { return true };
    let jiffies = tables.jiffies();
    let mut at = SOURCES_PER_LINE;
    for way in 0..SOURCES_PER_LINE {
        if Source(line.sources[way].load()).is(hash) {
            at = way;
        }
    }
    let mut way = 0;
    while at == SOURCES_PER_LINE && way < SOURCES_PER_LINE {
        if Source(line.sources[way].load()).is_idle(jiffies, tables.settings().jiffies_per_second) {
            at = way;
        }
        way += 1;
    }
    if at == SOURCES_PER_LINE {
        count(tables, Event::SourceUncounted);
        return true;
    }
    // Whichever it is: the verifier need not follow each to the end.
    let word = &line.sources[tables.forget(at) % SOURCES_PER_LINE];
    for _ in 0..ATTEMPTS {
        let before = Source(word.load());
        let state = if before.is(hash) { before.state(jiffies) } else { 0 };
        let Some(next) = limit.admit(state, jiffies) else { return false };
        if word.replace(before.0, Source::new(hash, next).0) {
            return true;
        }
    }
    true
}
