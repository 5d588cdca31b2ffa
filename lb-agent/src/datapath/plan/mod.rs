//! From what is there to what is wanted, as data.
//!
//! The order within a plan: backends, tables of new services, the directory, tables of services that take traffic;
//! removals the other way round. Every prefix is a safe state: no packet finds a service without its table,
//! a slot without its backend, or a backend whose replies would not be recognised.

mod check;
mod diff;
mod directory;
#[cfg(test)]
mod lab;
pub(crate) mod moves;
mod options;
mod owners;
mod removal;
mod slots;
mod sources;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use lb_common::backend::Standing;
use lb_common::directory::Bucket;
use lb_common::limit::Limit;
use lb_common::port::ENTRIES;
use lb_common::service::{Options, Table};

use super::identity::Endpoint;
use super::prefixes::List;
use super::tables::Member;
use crate::model::Strategy;

pub(crate) use check::check;
pub(crate) use diff::diff;
#[cfg(test)]
pub(crate) use directory::half;
pub(crate) use owners::{elements, pairs, to_elements};

/// One change of the data plane. Rows are named by their identifiers; everything that has to be decided is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Writes the row of a new backend.
    PutBackend { id: u16, service: u16, vip: Endpoint, endpoint: Endpoint, standing: Standing },
    /// Says whether a backend's flows stay with it, how many new ones it gets, and which row of its endpoint is next.
    SetBackend { id: u16, standing: Standing },
    /// Writes a slot region that no service names.
    WriteTable { region: u32, slots: Vec<u16> },
    /// Writes the row of a new service.
    PutService { id: u16, vip: Endpoint, table: Table, options: Options, pool: [u8; ENTRIES as usize] },
    /// Notes that slots of a service that tracks by exception are about to change hands.
    NoteChange { service: u16 },
    /// Gives a service other source addresses.
    SetPool { service: u16, pool: [u8; ENTRIES as usize] },
    /// Writes the row of a new source address; its ports are free.
    PutSource { number: u8, address: IpAddr },
    /// Takes a source address out of use.
    RetireSource { number: u8 },
    /// Gives a service another table.
    SwitchTable { service: u16, table: Table },
    /// Gives a service other options.
    SetOptions { service: u16, options: Options },
    /// Tells a service's limits of new flows.
    SetLimits { service: u16, limits: [Limit; 2] },
    /// Writes prefix lists that no service's options name.
    WriteList { service: u16, generation: u16, list: Arc<List> },
    /// Erases prefix lists that no packet asks for any more.
    EraseList { service: u16, generation: u16 },
    /// Writes the directory half that is not read.
    WriteDirectory { half: usize, key: u64, buckets: Vec<Bucket> },
    /// Has packets read that half.
    SwitchDirectory { half: usize },
    /// Waits until no packet holds on to what it found before.
    GracePeriod,
    /// Takes a service out of use; its row rests until no flow names it.
    RetireService { id: u16 },
    /// Takes a backend out of use; its row rests until no flow names it.
    RetireBackend { id: u16 },
    /// Gives this host a virtual address and announces it.
    AddAddress { address: IpAddr },
    /// Takes a virtual address off this host.
    RemoveAddress { address: IpAddr },
}

/// One line for the log: without the tables themselves, which are long.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutBackend { id, service, endpoint, .. } => {
                write!(f, "write backend row {id}: {endpoint} of service row {service}")
            }
            Self::SetBackend { id, standing: Standing { serving, weight, .. } } => {
                write!(f, "backend row {id}: serving={serving} weight={weight}")
            }
            Self::WriteTable { region, slots } => write!(f, "write {} slots to region {region}", slots.len()),
            Self::PutService { id, vip, .. } => write!(f, "write service row {id}: {vip}"),
            Self::NoteChange { service } => write!(f, "service row {service}: slots change hands"),
            Self::SwitchTable { service, table } => {
                write!(f, "switch service row {service} to {} slots at line {}", table.slots(), table.line())
            }
            Self::SetLimits { service, limits: [all, source] } => {
                write!(f, "set limits of service row {service}: {:#x}, {:#x} a source", all.0, source.0)
            }
            Self::WriteList { service, generation, list } => {
                write!(f, "write {} prefixes of service row {service}, generation {generation}", list.len())
            }
            Self::EraseList { service, generation } => {
                write!(f, "erase prefixes of service row {service}, generation {generation}")
            }
            Self::SetOptions { service, options } => {
                write!(f, "set options of service row {service}: {:#x}", options.0)
            }
            Self::SetPool { service, .. } => write!(f, "set source addresses of service row {service}"),
            Self::PutSource { number, address } => write!(f, "write source address row {number}: {address}"),
            Self::RetireSource { number } => write!(f, "retire source address row {number}"),
            Self::WriteDirectory { half, buckets, .. } => {
                write!(f, "write directory half {half}: {} buckets", buckets.len())
            }
            Self::SwitchDirectory { half } => write!(f, "switch to directory half {half}"),
            Self::GracePeriod => f.write_str("wait for a grace period"),
            Self::RetireService { id } => write!(f, "retire service row {id}"),
            Self::RetireBackend { id } => write!(f, "retire backend row {id}"),
            Self::AddAddress { address } => write!(f, "add address {address}"),
            Self::RemoveAddress { address } => write!(f, "remove address {address}"),
        }
    }
}

/// A plan that can be carried out, and what it says to people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    /// One line for each change that means something to whoever asked for it.
    pub(crate) steps: Vec<String>,
    /// What the services' tables are built from once the plan is carried out: saves building them again.
    pub(crate) tables: BTreeMap<u16, TableInputs>,
}

/// All that a table depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableInputs {
    pub(crate) strategy: Strategy,
    pub(crate) members: Vec<Member>,
    /// Where flows are tracked by exception: the rows that unremembered flows may stay on.
    pub(crate) keeping: Option<BTreeSet<u16>>,
}
