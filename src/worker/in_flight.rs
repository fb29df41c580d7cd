//! The calls in flight, each in a task of its own. The worker has one set for its writes and one for its reads.

use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::timeout;

use crate::error::{BatchError, Certainty, FailureClass};

/// How a call ended: with the answer `A` of the [`BatchWriter`](crate::BatchWriter), or with its error, a timeout or a
/// panic.
pub(super) type Completed<A> = Result<A, BatchError>;

/// Calls in flight, each for a batch of `T` and with an answer `A`.
///
/// A task gets copies of the events, which share their text. The pending events stay here, where neither a panic nor an
/// abort of the task can lose them.
pub(super) struct InFlight<T, A> {
    max_calls: usize,
    /// While so many bytes or more are in flight, no further call begins: each call has its request in memory.
    bytes_threshold: usize,
    tasks: JoinSet<Completed<A>>,
    /// In the order in which they began. They are few enough to be searched one by one.
    calls: Vec<InFlightCall<T>>,
}

struct InFlightCall<T> {
    task: Id,
    bytes: usize,
    batch: Vec<T>,
}

impl<T, A: Send + 'static> InFlight<T, A> {
    pub(super) fn new(max_calls: usize, bytes_threshold: usize) -> Self {
        Self { max_calls, bytes_threshold, tasks: JoinSet::new(), calls: Vec::new() }
    }

    /// Whether another call may begin. With none in flight it always may.
    pub(super) fn has_capacity(&self) -> bool {
        let bytes = || self.calls.iter().map(|call| call.bytes).sum::<usize>();
        self.calls.is_empty()
            || (self.calls.len() < self.max_calls && bytes() < self.bytes_threshold)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// The batches in flight, in the order of their calls.
    pub(super) fn batches(&self) -> impl Iterator<Item = &[T]> {
        self.calls.iter().map(|call| call.batch.as_slice())
    }

    /// Starts a call for `batch`, whose request takes so many bytes. After `call_timeout` it fails.
    pub(super) fn start(
        &mut self,
        batch: Vec<T>,
        bytes: usize,
        call_timeout: Duration,
        call: impl Future<Output = Completed<A>> + Send + 'static,
    ) {
        let task = self.tasks.spawn(async move {
            let completed = timeout(call_timeout, call).await;
            completed.unwrap_or_else(|_| Err(BatchError::timed_out(call_timeout)))
        });
        self.calls.push(InFlightCall { task: task.id(), bytes, batch });
    }

    /// Waits for the next call to complete; `None` when none is in flight.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no call.
    pub(super) async fn next(&mut self) -> Option<(Vec<T>, Completed<A>)> {
        loop {
            let done = self.tasks.join_next_with_id().await?;
            if let Some(completed) = self.complete(done) {
                return Some(completed);
            }
        }
    }

    /// The next call that has completed already.
    pub(super) fn next_done(&mut self) -> Option<(Vec<T>, Completed<A>)> {
        loop {
            let done = self.tasks.try_join_next_with_id()?;
            if let Some(completed) = self.complete(done) {
                return Some(completed);
            }
        }
    }

    /// `None` for a call whose task was cancelled: the runtime is shutting down, and will drop the worker too. Its
    /// events stay here, and answer their tickets when the worker is dropped.
    fn complete(
        &mut self,
        done: Result<(Id, Completed<A>), JoinError>,
    ) -> Option<(Vec<T>, Completed<A>)> {
        let (task, completed) = match done {
            Ok(done) => done,
            Err(error) if error.is_cancelled() => return None,
            Err(error) => (error.id(), Err(panicked())),
        };
        let index = self.calls.iter().position(|call| call.task == task);
        let batch = index.map(|index| self.calls.remove(index).batch);
        Some((batch.unwrap_or_default(), completed))
    }

    /// Cancels every call, and returns their events in the order of their calls.
    pub(super) fn abort(&mut self) -> impl Iterator<Item = T> + use<T, A> {
        self.tasks.abort_all();
        self.tasks.detach_all();
        std::mem::take(&mut self.calls).into_iter().flat_map(|call| call.batch)
    }
}

fn panicked() -> BatchError {
    BatchError::new(
        FailureClass::Panicked,
        Certainty::MaybeStored,
        "the batch writer panicked; the panic's message is on standard error",
    )
}
