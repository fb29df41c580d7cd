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
    /// Replaces the writer id of a process that resumes from a snapshot, because other copies of it may exist. Call
    /// this in the hook that your platform runs after it has restored the process, before the next put. Returns whether
    /// the id was replaced. An id that the program has assigned is never replaced.
    ///
    /// `Ok(true)` means that all later puts get keys with another id, which is newly drawn or leased. For a leased id
    /// the call waits up to [`max_wait`](crate::LeasedWriterIds::max_wait). The old lease is not given back, because a
    /// copy of this process may use it. It ends with its term.
    ///
    /// Without this call the store replaces the id itself, at the first put after a pause of more than a second, if the
    /// wall clock has advanced more than a second further than the monotonic clock. That happens after a suspended
    /// laptop wakes up and after most restores, but not if the platform hides the pause from both clocks.
    ///
    /// After `fork` without `exec` a store does not work in the child, because only the parent has the threads of its
    /// runtime. Start stores after the fork.
    ///
    /// # Errors
    ///
    /// [`PutError::NoWriterId`]: no id could be leased. The store keeps trying, and puts wait for an id. Also
    /// [`PutError::Closed`] and [`PutError::WorkerLost`].
    ///
    /// # Cancel safety
    ///
    /// The first poll gives the old id up. Dropping the future only stops the wait.
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
            // Boxed, so that the future of a put that does not wait stays small.
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

    /// Waits until `is_done` returns true. It is called after each step of the keeper.
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
