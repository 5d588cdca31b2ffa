//! News of the network around this host, from the thread that hears them to the task that acts on them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use anyhow::Context as _;
use tokio::sync::Notify;
use tracing::error;

use super::netlink::{Changes, Watch};

/// What has changed and was not acted on yet. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Network(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    changes: Mutex<Changes>,
    told: Notify,
}

impl Network {
    /// Listens from now on. The thread ends after the last clone, with the first change that it hears then.
    pub(super) fn listen() -> anyhow::Result<Self> {
        let (network, mut watch) = (Self::default(), Watch::open()?);
        let shared = Arc::downgrade(&network.0);
        let listen = move || {
            loop {
                let changes = watch.next();
                let Some(shared) = Weak::upgrade(&shared) else { return };
                match changes {
                    Ok(changes) => shared.tell(changes),
                    Err(error) => {
                        error!(%error, "changes of the network are only looked for every few seconds");
                        return;
                    }
                }
            }
        };
        thread::Builder::new().name("network".to_owned()).spawn(listen).context("cannot start a thread")?;
        Ok(network)
    }

    /// Waits until there is something to act on.
    pub async fn changed(&self) {
        self.0.told.notified().await;
    }

    /// Has somebody look at the interfaces, whether or not there are news.
    pub(super) fn look(&self) {
        self.0.tell(Changes { links: true, ways: false });
    }

    /// What there is to act on; after that, nothing.
    pub(super) fn take(&self) -> Changes {
        std::mem::take(&mut *self.0.changes())
    }
}

impl Shared {
    fn tell(&self, changes: Changes) {
        *self.changes() |= changes;
        self.told.notify_one();
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_told_before_somebody_waits_is_not_lost_and_told_once() {
        let network = Network::default();
        network.0.tell(Changes { links: true, ways: false });
        network.0.tell(Changes { links: false, ways: true });
        network.changed().await;
        assert_eq!(network.take(), Changes::ALL);
        assert_eq!(network.take(), Changes::default());
        let again = tokio::time::timeout(std::time::Duration::from_millis(1), network.changed()).await;
        assert!(again.is_err());
    }
}
