//! The task that leases a store's writer id: it takes an id, extends the lease, replaces the id, and gives it back.
//!
//! [`LeasePolicy`] makes the decisions. Puts do not wait for the task as long as the lease covers the time of their
//! keys.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::sleep_until;

use crate::clock::now;
use crate::dynamodb::LeaseTable;
use crate::error::BatchError;
use crate::fresh_random::FreshRandom;
use crate::key_source::KeySource;
use crate::lease::LeaseAnswer;
use crate::policy::lease::{Change, LeasePolicy, LeaseTerms, Step};

/// The longest time for one call. An `UpdateItem` takes milliseconds.
const MAX_CALL_TIME: Duration = Duration::from_secs(5);

/// Takes and holds the writer id of one store.
pub(crate) struct LeaseKeeper {
    table: Arc<dyn LeaseTable>,
    keys: Arc<KeySource>,
    policy: LeasePolicy,
    random: FreshRandom,
    call_time: Duration,
    state: watch::Sender<LeaseState>,
}

/// What waiting puts see of the lease.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeaseState {
    /// Number of leases that were granted so far.
    pub(crate) grants: u64,
    /// Ids that were tried and were held by others, since the last lease.
    pub(crate) tries: u32,
    /// How the last call failed; `None` if it did not fail.
    pub(crate) failure: Option<Arc<BatchError>>,
}

/// A handle to the keeper's task. When it is dropped, the id is given back.
#[derive(Debug)]
pub(crate) struct LeaseHandle {
    closing: watch::Sender<bool>,
    state: watch::Receiver<LeaseState>,
}

impl LeaseKeeper {
    pub(crate) fn new(
        table: Arc<dyn LeaseTable>,
        keys: Arc<KeySource>,
        terms: LeaseTerms,
        random: FreshRandom,
    ) -> Self {
        Self {
            table,
            keys,
            policy: LeasePolicy::new(terms),
            random,
            call_time: MAX_CALL_TIME.min(Duration::from_millis(terms.term / 3)),
            state: watch::Sender::default(),
        }
    }

    /// Takes the first id. `Err` contains what was tried. It is returned if a failure is final, or after `limit`.
    pub(crate) async fn take(&mut self, limit: Duration) -> Result<(), LeaseState> {
        let give_up_at = now() + limit;
        while !self.policy.is_held() {
            let at = now();
            let failure = self.state.borrow().failure.clone();
            let is_hopeless = failure.is_some_and(|failure| self.policy.is_final(&failure, at));
            if is_hopeless || give_up_at <= at {
                return Err(self.state.borrow().clone());
            }
            if let Some(wait_until) = self.step(at).await {
                sleep_until(tokio_instant(wait_until.min(give_up_at))).await;
            }
        }
        Ok(())
    }

    /// Spawns the task that holds the id until the handle is dropped or closed.
    pub(crate) fn spawn(self, runtime: &Handle) -> LeaseHandle {
        let (closing, is_closing) = watch::channel(false);
        let state = self.state.subscribe();
        runtime.spawn(self.run(is_closing));
        LeaseHandle { closing, state }
    }

    async fn run(mut self, mut is_closing: watch::Receiver<bool>) {
        // This future also ends when the sender is dropped.
        let closing = async move { drop(is_closing.wait_for(|is_closing| *is_closing).await) };
        tokio::pin!(closing);
        let keys = Arc::clone(&self.keys);
        loop {
            let wait_until = tokio::select! {
                biased;
                () = &mut closing => break,
                wait_until = self.step(now()) => wait_until,
            };
            let Some(wait_until) = wait_until else { continue };
            tokio::select! {
                biased;
                () = &mut closing => break,
                () = keys.lease_wanted() => {}
                () = sleep_until(tokio_instant(wait_until)) => {}
            }
        }
        self.give_back().await;
    }

    /// Does what is due. If nothing is due, returns how long to wait. If it is cancelled, a call may be applied without
    /// an answer. The policy remembers an extension. An id that was taken becomes free after the end of its range.
    async fn step(&mut self, at: Instant) -> Option<Instant> {
        let time = self.keys.time();
        if !time.has_lease {
            self.policy.abandon();
        }
        let request = match self.policy.next(at, time.next, || self.random.draw()) {
            Step::Wait(until) => return Some(until),
            Step::Call(request) => request,
        };
        let answer = self.table.write(&request, self.call_time).await;
        let (ended, jitter) = (now(), self.random.fraction());
        let change = self.policy.answered(&request, answer.as_ref().copied(), at, ended, jitter);
        match change {
            Change::Nothing => {}
            Change::Granted(lease) => {
                tracing::debug!(writer_id = %lease.id, "leased a writer id");
                self.keys.grant(lease.id, lease.from, lease.until);
            }
            Change::Extended(until) => self.keys.extend(until),
            Change::Lost => {
                tracing::warn!(
                    "another store, or a copy of this process, has the writer id; this store leases another one"
                );
                self.keys.abandon_writer_id();
            }
        }
        let failure = answer.err().map(Arc::new);
        if let Some(failure) = &failure {
            // The warning is logged once for each series of failures.
            if self.state.borrow().failure.is_none() {
                tracing::warn!(%failure, "a call to the table of writer ids failed; it is repeated");
            } else {
                tracing::debug!(%failure, "a call to the table of writer ids failed again");
            }
        }
        self.state.send_modify(|state| {
            state.grants += u64::from(matches!(change, Change::Granted(_)));
            state.tries = self.policy.tries();
            state.failure = failure;
        });
        None
    }

    /// Makes no more keys, and gives the id back, so that other stores can take it at once. If that fails, they can
    /// take it one term after the end of its range.
    async fn give_back(mut self) {
        let has_lease = self.keys.time().has_lease;
        let end = self.keys.close();
        if !has_lease {
            self.policy.abandon();
        }
        for request in self.policy.give_back(end) {
            match self.table.write(&request, self.call_time).await {
                Ok(LeaseAnswer::Applied) => break,
                Ok(LeaseAnswer::Refused { .. }) => {}
                Err(failure) => tracing::debug!(%failure, "the writer id was not given back"),
            }
        }
    }
}

impl LeaseHandle {
    /// Begins to give the id back.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Waits until the keeper's task has ended. Cancel safe.
    pub(crate) async fn closed(&self) {
        let mut state = self.state.clone();
        while state.changed().await.is_ok() {}
    }

    pub(crate) fn state(&self) -> watch::Receiver<LeaseState> {
        self.state.clone()
    }
}

fn tokio_instant(instant: Instant) -> tokio::time::Instant {
    tokio::time::Instant::from_std(instant)
}

#[cfg(test)]
mod simulated_table;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tenures;
#[cfg(test)]
mod tests;
