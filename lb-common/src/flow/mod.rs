//! The flow table's rows: set-associative, one cache line per look-up, changed by compare-and-swap alone.
//!
//! A bucket has four ways. Each way is a key and a *data word*; **the data word is the entry**: every change of
//! an entry is one compare-and-swap of its whole data word, and the generation in it makes a late swap against
//! a recycled entry fail. `docs/design.md` has the protocol and what broke simpler ones.
//!
//! ```text
//!  63    62     61         40 39        32 31   28 27         16 15          0
//! +-----------+---------------+------------+-------+-------------+-------------+
//! | bucket's  |  stamp (22)   | generation | state | next hop    | backend     |
//! +-----------+---------------+------------+-------+-------------+-------------+
//! ```
//!
//! The upper two bits belong to the bucket and not to the entry: in way 0's word the lock that insertions hold, in those
//! of ways 1 and 2 the two [`Mark`]s with their newness. Anybody may set them at any time, whatever becomes of the entry.
//! In [`State::HALF_OPEN`] the stamp's upper 16 bits may hold the moment of the SYN, and its lower 6 the time.
//! In [`State::ANSWERED`] the stamp's upper 16 bits hold what the client's ACK must acknowledge and its lower 6 the time.

mod bucket;
mod data;
mod key;
mod state;

pub use bucket::{Bucket, Bucket4, Bucket6, Entry, WAYS};
pub use data::{Data, LOCK, MARKED, Mark};
pub use key::{AFFINITY_OF, Key, Key4, Key6};
pub use state::State;
