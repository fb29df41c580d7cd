//! A put's key, the wait for a leased writer id, and [`EventStore::change_writer_id`].

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::clock::now;
use crate::error::PutError;
use crate::event::key::EventKey;
use crate::flow_control::AcquireError;
use crate::key_source::NoKey;
use crate::lease_keeper::LeaseState;
use crate::store::EventStore;
use crate::store::store_lease::StoreLease;

impl EventStore {
    /// Goes on with another writer id: for a process that goes on from a snapshot, of which there may be other copies.
    /// Call it in the hook that your platform runs after it has restored the process, before the next put. Returns
    /// whether the id was replaced; an id that the program has assigned is not.
    ///
    /// `Ok` means that all keys of later puts have another id than those before: one that is drawn anew, or another
    /// lease. For a leased id the call waits up to [`max_wait`](crate::LeasedWriterIds::max_wait). The old lease is not
    /// given back, as a copy of this process may use it; it ends with its term.
    ///
    /// Where no hook is called, the store changes the id by itself at the first put after the wall clock has advanced
    /// more than a second further than the process has run. That is so after a suspended laptop wakes up and after most
    /// restores, but not where the platform hides the pause from both clocks.
    ///
    /// After `fork` without `exec` a store does not work in the child: the threads of its runtime are in the parent
    /// alone. Start stores after the fork.
    ///
    /// # Errors
    ///
    /// [`PutError::NoWriterId`]: no id could be leased. The store goes on trying, and puts wait for it. Also
    /// [`PutError::Closed`] and [`PutError::WorkerLost`].
    ///
    /// # Cancel safety
    ///
    /// After the first poll the old id is given up. Dropping the future only stops the wait.
    ///
    /// # Example
    ///
    /// ```
    /// # use dynamodb_eventstore::{EventStore, PutError};
    /// # async fn example(store: EventStore) -> Result<(), PutError> {
    /// // In the hook after the restore:
    /// store.change_writer_id().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn change_writer_id(&self) -> Result<bool, PutError> {
        let state = self.shared.lease.as_ref().map(|lease| lease.handle.state());
        let grants = state.as_ref().map_or(0, |state| state.borrow().grants);
        let is_replaced = self.shared.keys.abandon_writer_id();
        if let (Some(lease), Some(state)) = (&self.shared.lease, state) {
            self.wait_for_lease(lease, state, |state| state.grants > grants).await?;
        }
        Ok(is_replaced)
    }

    /// The next key, at once or not at all.
    pub(super) fn try_next_key(&self) -> Result<EventKey, PutError> {
        self.shared.keys.next().map_err(|none| self.no_key_error(none))
    }

    /// The next key. Waits for a lease if none covers the time.
    pub(super) async fn next_key(&self) -> Result<EventKey, PutError> {
        match self.shared.keys.next() {
            Ok(key) => Ok(key),
            // Boxed, so that a put that does not wait has no memory for it.
            Err(NoKey::NoLease) => Box::pin(self.next_leased_key()).await,
            Err(none) => Err(self.no_key_error(none)),
        }
    }

    async fn next_leased_key(&self) -> Result<EventKey, PutError> {
        let Some(lease) = &self.shared.lease else {
            return Err(self.put_error(AcquireError::Closed));
        };
        let keys = &self.shared.keys;
        let mut key = Err(NoKey::NoLease);
        self.wait_for_lease(lease, lease.handle.state(), |_| {
            key = keys.next();
            key != Err(NoKey::NoLease)
        })
        .await?;
        key.map_err(|none| self.no_key_error(none))
    }

    /// Waits until `is_done`, which is asked after each step of the keeper.
    async fn wait_for_lease(
        &self,
        lease: &StoreLease,
        mut state: watch::Receiver<LeaseState>,
        mut is_done: impl FnMut(&LeaseState) -> bool,
    ) -> Result<(), PutError> {
        let max_wait = lease.ids.max_wait;
        let give_up_at = Instant::from_std(now() + max_wait);
        let waited = timeout_at(give_up_at, state.wait_for(&mut is_done)).await;
        match waited.map(|result| result.is_ok()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.put_error(AcquireError::Closed)),
            Err(_) => {
                let state = lease.handle.state().borrow().clone();
                Err(PutError::NoWriterId(lease.error(state, max_wait)))
            }
        }
    }

    #[cold]
    fn no_key_error(&self, none: NoKey) -> PutError {
        match (none, &self.shared.lease) {
            (NoKey::NoLease, Some(lease)) => {
                let state = lease.handle.state().borrow().clone();
                PutError::NoWriterId(lease.error(state, Duration::ZERO))
            }
            (NoKey::YearOver, _) => PutError::NoKeyLeft,
            (NoKey::NoLease | NoKey::Closed, _) => self.put_error(AcquireError::Closed),
        }
    }
}
