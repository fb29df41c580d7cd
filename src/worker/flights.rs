//! The batches that are under way: one task each, their events kept on this side.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::timeout;

use super::settlement::Held;
use crate::error::{BatchError, Certainty, FailureClass};
use crate::event::Event;
use crate::writer::{BatchReceipt, BatchWriter};

/// What became of one attempt.
pub(super) type Attempt = Result<BatchReceipt, BatchError>;

/// Attempts in flight. The tasks get copies that share the events' text; the events themselves,
/// with the answers they owe, stay here, where neither a panic nor an abort can lose them.
pub(super) struct Flights {
    writer: Arc<dyn BatchWriter>,
    attempt_timeout: Duration,
    most: usize,
    tasks: JoinSet<Attempt>,
    batches: HashMap<Id, Vec<Held>>,
}

impl Flights {
    pub(super) fn new(
        writer: Arc<dyn BatchWriter>,
        attempt_timeout: Duration,
        most: usize,
    ) -> Self {
        Self { writer, attempt_timeout, most, tasks: JoinSet::new(), batches: HashMap::new() }
    }

    pub(super) fn has_place(&self) -> bool {
        self.batches.len() < self.most
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Sends a batch on its way.
    pub(super) fn start(&mut self, mut batch: Vec<Held>) {
        let events: Vec<Event> = batch
            .iter_mut()
            .map(|held| {
                held.pending.attempt();
                held.pending.event().clone()
            })
            .collect();
        let writer = Arc::clone(&self.writer);
        let limit = self.attempt_timeout;
        let task = self.tasks.spawn(async move {
            timeout(limit, writer.write_batch(&events))
                .await
                .unwrap_or_else(|_| Err(BatchError::timed_out(limit)))
        });
        self.batches.insert(task.id(), batch);
    }

    /// Waits for the next batch to come back; `None` when none is under way.
    ///
    /// Cancel safe: an attempt that has come back is not lost.
    pub(super) async fn next(&mut self) -> Option<(Vec<Held>, Attempt)> {
        let done = self.tasks.join_next_with_id().await?;
        Some(self.land(done))
    }

    /// The next batch that has come back already.
    pub(super) fn next_done(&mut self) -> Option<(Vec<Held>, Attempt)> {
        let done = self.tasks.try_join_next_with_id()?;
        Some(self.land(done))
    }

    fn land(&mut self, done: Result<(Id, Attempt), JoinError>) -> (Vec<Held>, Attempt) {
        let (id, attempt) = match done {
            Ok(done) => done,
            Err(error) => (error.id(), Err(panicked())),
        };
        (self.batches.remove(&id).unwrap_or_default(), attempt)
    }

    /// Drops every attempt where it is, and hands its events back.
    pub(super) fn abort(&mut self) -> impl Iterator<Item = Held> + use<> {
        self.tasks.abort_all();
        self.tasks.detach_all();
        std::mem::take(&mut self.batches).into_values().flatten()
    }
}

fn panicked() -> BatchError {
    BatchError::new(
        FailureClass::Panicked,
        Certainty::MaybeStored,
        "the batch writer panicked; the panic's message is on standard error",
    )
}
