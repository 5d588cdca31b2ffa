//! How everybody else talks to the control task.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time;

use super::change::Changed;
use super::lease::Renewal;
use super::order::Order;
use super::reports::Report;
use super::snapshot::{Explained, FlowRow, Snapshot};
use crate::datapath::{FlowCursor, FlowPage};
use crate::events::Events;
use crate::model::{Change, Endpoint, Protocol, Refusal, Removal, ServiceName};
use crate::store::{Revision, RevisionInfo, StoreError};

/// Why a request was not answered, or a change not made. One line each.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The change makes no sense.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The change cannot be kept.
    #[error("nothing was changed: {0}")]
    Store(#[from] StoreError),
    /// It was decided upon something that is not so any more.
    #[error("{object} is at revision {now} by now: look at it again before you change it")]
    Stale {
        /// What has changed.
        object: String,
        /// The revision that changed it last.
        now: u64,
    },
    /// What is kept cannot be read.
    #[error(transparent)]
    Unreadable(StoreError),
    /// The kernel does not take it.
    #[error("nothing was changed: the data plane refused: {0}")]
    Datapath(String),
    /// The task has more to do than it can.
    #[error("the agent did not answer within {} s: try again, and look at its log", ANSWER.as_secs())]
    Busy,
    /// The task is gone.
    #[error("the agent is stopping: start it again with `lb-agent run`")]
    Stopped,
}

impl ControlError {
    /// The whole chain of causes, in one line.
    pub(super) fn datapath(error: anyhow::Error) -> Self {
        Self::Datapath(format!("{error:#}"))
    }
}

type Reply<T> = oneshot::Sender<Result<T, ControlError>>;

/// What can be asked of the task.
pub(super) enum Request {
    Change { change: Box<Change>, order: Order, reply: Reply<Changed> },
    Rollback { number: u64, removal: Removal, order: Order, reply: Reply<Changed> },
    History { reply: Reply<Vec<RevisionInfo>> },
    Revision { number: u64, reply: Reply<Revision> },
    Report { service: ServiceName, backend: Endpoint, report: Report, reply: Reply<()> },
    Renew { service: ServiceName, backend: Endpoint, renewal: Renewal, reply: Reply<()> },
    Ping { reply: Reply<()> },
    Snapshot { reply: Reply<Snapshot> },
    Flows { service: Option<ServiceName>, from: FlowCursor, reply: Reply<FlowPage<FlowRow>> },
    Explain { protocol: Protocol, client: SocketAddr, vip: SocketAddr, reply: Reply<Explained> },
}

/// A way to the control task; cheap to clone. The task ends with the last one.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    events: Events,
}

/// Longer than any plan takes, shorter than a caller's patience.
const ANSWER: Duration = Duration::from_secs(30);

impl Handle {
    pub(super) fn new(requests: mpsc::Sender<Request>, events: Events) -> Self {
        Self { requests, events }
    }

    /// Where what happens is told. To listen keeps the task from nothing.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Makes a change, or says what it would do.
    ///
    /// # Errors
    /// Where it is refused or fails; nothing has changed then.
    pub async fn order(&self, change: Change, order: Order) -> Result<Changed, ControlError> {
        self.ask(|reply| Request::Change { change: Box::new(change), order, reply }).await
    }

    /// Makes the state what it was at a revision, or says what that would do.
    ///
    /// # Errors
    /// Where the revision is not kept, or as for [`order`](Self::order).
    pub async fn rollback(
        &self,
        number: u64,
        removal: Removal,
        order: Order,
    ) -> Result<Changed, ControlError> {
        self.ask(|reply| Request::Rollback { number, removal, order, reply }).await
    }

    /// The revisions that are kept, the latest first.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub async fn history(&self) -> Result<Vec<RevisionInfo>, ControlError> {
        self.ask(|reply| Request::History { reply }).await
    }

    /// One of them.
    ///
    /// # Errors
    /// Where it is not kept, or damaged.
    pub async fn revision(&self, number: u64) -> Result<Revision, ControlError> {
        self.ask(|reply| Request::Revision { number, reply }).await
    }

    /// Takes what a backend reports of its load.
    ///
    /// # Errors
    /// Where there is no such backend, or the task does not answer.
    pub async fn report(
        &self,
        service: ServiceName,
        backend: Endpoint,
        report: Report,
    ) -> Result<(), ControlError> {
        self.ask(|reply| Request::Report { service, backend, report, reply }).await
    }

    /// Hears of a backend: registers it where it is not there, or is another.
    ///
    /// # Errors
    /// Where there is no such service, or the backend cannot be added.
    pub async fn renew(
        &self,
        service: ServiceName,
        backend: Endpoint,
        renewal: Renewal,
    ) -> Result<(), ControlError> {
        self.ask(|reply| Request::Renew { service, backend, renewal, reply }).await
    }

    /// Returns when the task has got to it.
    ///
    /// # Errors
    /// Where the task does not answer.
    pub async fn ping(&self) -> Result<(), ControlError> {
        self.ask(|reply| Request::Ping { reply }).await
    }

    /// Everything that can be shown.
    ///
    /// # Errors
    /// Where the task does not answer.
    pub async fn snapshot(&self) -> Result<Snapshot, ControlError> {
        self.ask(|reply| Request::Snapshot { reply }).await
    }

    /// Some of the live flows, of one service or of all.
    ///
    /// # Errors
    /// Where there is no such service, or the task does not answer.
    pub async fn flows(
        &self,
        service: Option<ServiceName>,
        from: FlowCursor,
    ) -> Result<FlowPage<FlowRow>, ControlError> {
        self.ask(|reply| Request::Flows { service, from, reply }).await
    }

    /// Where a packet would go.
    ///
    /// # Errors
    /// Where the task does not answer.
    pub async fn explain(
        &self,
        protocol: Protocol,
        client: SocketAddr,
        vip: SocketAddr,
    ) -> Result<Explained, ControlError> {
        self.ask(|reply| Request::Explain { protocol, client, vip, reply }).await
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, ControlError> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.requests.send(request(reply)).await.map_err(|_| ControlError::Stopped)?;
            answer.await.map_err(|_| ControlError::Stopped)?
        };
        time::timeout(ANSWER, asked).await.unwrap_or(Err(ControlError::Busy))
    }
}
