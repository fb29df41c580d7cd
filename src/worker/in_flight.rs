//! The calls in flight, each in a task of its own. The worker has one set for its writes and one for its reads.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::timeout;
use tracing::{Instrument, Span};

use super::span::record_error;

use crate::error::{BatchError, Certainty, FailureClass};

/// How a call ended: with the answer `A` of the [`BatchWriter`](crate::BatchWriter), or with its error, a timeout or a
/// panic.
pub(super) type CallResult<A> = Result<A, BatchError>;

/// Calls in flight, each for a batch of `T` and with an answer `A`.
///
/// A task gets copies of the events, which share their text. The pending events stay here, where neither a panic nor an
/// abort of the task can lose them.
pub(super) struct InFlight<T, A> {
    max_calls: usize,
    /// No further call begins while at least this many bytes are in flight, because each call has its request in
    /// memory.
    bytes_threshold: usize,
    tasks: JoinSet<CallResult<A>>,
    /// In the order in which they began. They are few enough to be searched one by one.
    calls: Vec<InFlightCall<T>>,
}

struct InFlightCall<T> {
    task: Id,
    began: Instant,
    bytes: usize,
    span: Span,
    batch: Vec<T>,
}

/// A call that has completed.
pub(super) struct CompletedCall<T, A> {
    pub(super) began: Instant,
    /// Is to get the outcome.
    pub(super) span: Span,
    pub(super) batch: Vec<T>,
    pub(super) result: CallResult<A>,
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

    /// Whether a call in flight began after `instant`.
    pub(super) fn has_call_after(&self, instant: Instant) -> bool {
        self.calls.iter().any(|call| call.began > instant)
    }

    /// Starts a call at `now` for `batch`, in `span`. Its request takes `bytes` of memory. After `call_timeout` it fails.
    pub(super) fn start(
        &mut self,
        batch: Vec<T>,
        bytes: usize,
        span: Span,
        now: Instant,
        call_timeout: Duration,
        call: impl Future<Output = CallResult<A>> + Send + 'static,
    ) {
        let call = async move {
            let result = timeout(call_timeout, call).await;
            result.unwrap_or_else(|_| Err(BatchError::timed_out(call_timeout)))
        };
        let task = self.tasks.spawn(call.instrument(span.clone()));
        self.calls.push(InFlightCall { task: task.id(), began: now, bytes, span, batch });
    }

    /// Waits for the next call to complete; `None` when none is in flight.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no call.
    pub(super) async fn next(&mut self) -> Option<CompletedCall<T, A>> {
        loop {
            let done = self.tasks.join_next_with_id().await?;
            if let Some(completed) = self.complete(done) {
                return Some(completed);
            }
        }
    }

    /// The next call that has already completed.
    pub(super) fn next_done(&mut self) -> Option<CompletedCall<T, A>> {
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
        done: Result<(Id, CallResult<A>), JoinError>,
    ) -> Option<CompletedCall<T, A>> {
        let (task, result) = match done {
            Ok(done) => done,
            Err(error) if error.is_cancelled() => return None,
            Err(error) => (error.id(), Err(panicked())),
        };
        let index = self.calls.iter().position(|call| call.task == task)?;
        let InFlightCall { began, span, batch, .. } = self.calls.remove(index);
        Some(CompletedCall { began, span, batch, result })
    }

    /// Cancels every call, and returns their events and when their calls began, in the order of the calls.
    pub(super) fn abort(&mut self) -> impl Iterator<Item = (Instant, T)> + use<T, A> {
        self.tasks.abort_all();
        self.tasks.detach_all();
        let calls = std::mem::take(&mut self.calls);
        calls.iter().for_each(|call| record_error(&call.span, "cancelled"));
        calls
            .into_iter()
            .flat_map(|call| call.batch.into_iter().map(move |event| (call.began, event)))
    }
}

fn panicked() -> BatchError {
    BatchError::new(
        FailureClass::Panicked,
        Certainty::MaybeStored,
        "the batch writer panicked; the panic's message is on standard error",
    )
}
