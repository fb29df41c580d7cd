//! The calls that are under way: one task each, their events kept on this side.

use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::timeout;

use crate::error::{BatchError, Certainty, FailureClass};

/// How a call ended: with the edge's answer, in a time-out or in a panic.
pub(super) type Completed<A> = Result<A, BatchError>;

/// Calls under way, each for a batch of `T` and to be answered with an `A`. The tasks get copies that
/// share the events' text; the events themselves, with the answers they owe, stay here, where neither
/// a panic nor an abort can lose them.
pub(super) struct InFlight<T, A> {
    most: usize,
    /// With so much under way nothing more begins: each call has its request in memory.
    enough_bytes: usize,
    tasks: JoinSet<Completed<A>>,
    /// In the order in which they began; few enough to be searched.
    in_flight: Vec<InFlightCall<T>>,
}

struct InFlightCall<T> {
    task: Id,
    bytes: usize,
    batch: Vec<T>,
}

impl<T, A: Send + 'static> InFlight<T, A> {
    pub(super) fn new(most: usize, enough_bytes: usize) -> Self {
        Self { most, enough_bytes, tasks: JoinSet::new(), in_flight: Vec::new() }
    }

    pub(super) fn has_place(&self) -> bool {
        let bytes = || self.in_flight.iter().map(|flight| flight.bytes).sum::<usize>();
        self.in_flight.is_empty()
            || (self.in_flight.len() < self.most && bytes() < self.enough_bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// What is under way, call by call.
    pub(super) fn batches(&self) -> impl Iterator<Item = &[T]> {
        self.in_flight.iter().map(|flight| flight.batch.as_slice())
    }

    /// Sends a batch of so many bytes on its way, with so much time to come back.
    pub(super) fn start(
        &mut self,
        batch: Vec<T>,
        bytes: usize,
        limit: Duration,
        call: impl Future<Output = Completed<A>> + Send + 'static,
    ) {
        let task = self.tasks.spawn(async move {
            timeout(limit, call).await.unwrap_or_else(|_| Err(BatchError::timed_out(limit)))
        });
        self.in_flight.push(InFlightCall { task: task.id(), bytes, batch });
    }

    /// Waits for the next batch to come back; `None` when none is under way.
    ///
    /// Cancel safe: a batch that has come back is not lost.
    pub(super) async fn next(&mut self) -> Option<(Vec<T>, Completed<A>)> {
        loop {
            let done = self.tasks.join_next_with_id().await?;
            if let Some(completed) = self.complete(done) {
                return Some(completed);
            }
        }
    }

    /// The next batch that has come back already.
    pub(super) fn next_done(&mut self) -> Option<(Vec<T>, Completed<A>)> {
        loop {
            let done = self.tasks.try_join_next_with_id()?;
            if let Some(completed) = self.complete(done) {
                return Some(completed);
            }
        }
    }

    /// `None` for a call that was cancelled: the runtime is being shut down, and the worker is next. Its
    /// events stay here, to be answered when the worker is dropped.
    fn complete(
        &mut self,
        done: Result<(Id, Completed<A>), JoinError>,
    ) -> Option<(Vec<T>, Completed<A>)> {
        let (id, completed) = match done {
            Ok(done) => done,
            Err(error) if error.is_cancelled() => return None,
            Err(error) => (error.id(), Err(panicked())),
        };
        let place = self.in_flight.iter().position(|flight| flight.task == id);
        let batch = place.map(|place| self.in_flight.remove(place).batch);
        Some((batch.unwrap_or_default(), completed))
    }

    /// Drops every call where it is, and hands its events back, in the order of their calls.
    pub(super) fn abort(&mut self) -> impl Iterator<Item = T> + use<T, A> {
        self.tasks.abort_all();
        self.tasks.detach_all();
        std::mem::take(&mut self.in_flight).into_iter().flat_map(|flight| flight.batch)
    }
}

fn panicked() -> BatchError {
    BatchError::new(
        FailureClass::Panicked,
        Certainty::MaybeStored,
        "the batch writer panicked; the panic's message is on standard error",
    )
}
