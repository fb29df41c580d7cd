//! [`EventStore::put_all`]: many events, and one ticket for all of them.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use serde::Serialize;
use tokio::task::coop::consume_budget;

use super::unsettled::Unsettled;
use crate::error::{PutError, WriteError};
use crate::event::key::EventKey;
use crate::pending::PutTicket;
use crate::settled::Stored;
use crate::store::EventStore;

/// An accepted event whose write failed, in a [`PutAllReport`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FailedPut {
    /// Place of the event in the input, from 0.
    pub index: u64,
    /// Why it failed, with its key and the event itself.
    pub error: WriteError,
}

impl FailedPut {
    /// Key of the event.
    #[must_use]
    pub fn key(&self) -> &EventKey {
        self.error.key()
    }
}

/// An event that was not accepted, in a [`PutAllReport`]. Nothing of it was sent.
#[derive(Debug)]
#[non_exhaustive]
pub struct NotAccepted<E> {
    /// Place of the event in the input, from 0.
    pub index: u64,
    /// The event.
    pub event: E,
    /// Why it was not accepted.
    pub error: PutError,
}

/// What became of the events of one [`put_all`](EventStore::put_all). Each event of the input is in it once.
#[derive(Debug)]
#[non_exhaustive]
pub struct PutAllReport<E> {
    /// How many events are stored.
    pub stored: u64,
    /// The events that were accepted and failed, in the order of the input.
    pub failed: Vec<FailedPut>,
    /// The events that were not accepted, in the order of the input.
    pub not_accepted: Vec<NotAccepted<E>>,
}

impl<E> PutAllReport<E> {
    fn new() -> Self {
        Self { stored: 0, failed: Vec::new(), not_accepted: Vec::new() }
    }

    /// Whether every event of the input is stored.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.not_accepted.is_empty()
    }
}

/// A future for the answers to all events of one [`put_all`](EventStore::put_all). Its output is a [`PutAllReport`].
///
/// It is ready when each accepted event is settled: at the latest one
/// [`attempt_timeout`](crate::EventStoreBuilder::attempt_timeout) after the
/// [`event_deadline`](crate::EventStoreBuilder::event_deadline) of the last one. Polled again, it answers an empty report.
///
/// Dropping it does not cancel the writes.
///
/// # Cancel safety
///
/// Awaiting `&mut ticket` and dropping that future, as in `tokio::select!`, loses nothing.
#[derive(Debug)]
#[must_use = "only the ticket says whether the events are stored"]
pub struct PutAllTicket<E> {
    unsettled: Unsettled,
    accepted: u64,
    report: PutAllReport<E>,
}

/// The events in the report are never pinned.
impl<E> Unpin for PutAllTicket<E> {}

impl<E> PutAllTicket<E> {
    fn new() -> Self {
        Self { unsettled: Unsettled::default(), accepted: 0, report: PutAllReport::new() }
    }

    /// How many events were accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// The events that were not accepted, which is known from the start. The report has them, too.
    #[must_use]
    pub fn not_accepted(&self) -> &[NotAccepted<E>] {
        &self.report.not_accepted
    }

    fn accept(&mut self, index: u64, ticket: PutTicket) {
        self.accepted += 1;
        self.unsettled.push(index, ticket);
    }

    fn record(&mut self, index: u64, answer: Result<Stored, WriteError>) {
        match answer {
            Ok(_) => self.report.stored += 1,
            Err(error) => self.report.failed.push(FailedPut { index, error }),
        }
    }

    /// Records the answers that there are.
    fn record_answers(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.unsettled.poll_next(context) {
                Poll::Ready(Some((index, answer))) => self.record(index, answer),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Records the answers that there are, and waits for one while there are so many tickets.
    ///
    /// Each ticket without an answer is of an event in the buffer. But a task without budget does not see the answers
    /// that there are, and its tickets would be as many as its events.
    fn poll_room(&mut self, context: &mut Context<'_>, max_tickets: usize) -> Poll<()> {
        let is_waiting = self.record_answers(context).is_pending();
        if is_waiting && self.unsettled.len() >= max_tickets {
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

impl<E> Future for PutAllTicket<E> {
    type Output = PutAllReport<E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<PutAllReport<E>> {
        self.record_answers(context).map(|()| {
            let mut report = std::mem::replace(&mut self.report, PutAllReport::new());
            report.failed.sort_unstable_by_key(|failed| failed.index);
            report
        })
    }
}

impl EventStore {
    /// Puts every event of a collection, in its order, and returns one ticket for all of them. Waits while the buffer is
    /// full, like [`put`](Self::put).
    ///
    /// The call returns when the last event is accepted or refused. The ticket then waits for the answers, and tells
    /// what became of each event. Memory is bounded by the store's buffer and by the events that fail: the iterator is
    /// asked for an event when the one before is accepted or refused, and answers are counted as they come.
    ///
    /// # Errors
    ///
    /// An event that is not accepted is no error of the call. The [`PutAllReport`] gives each of them back, with its
    /// place in the input and its [`PutError`]. After an error that is not about one event alone, such as
    /// [`PutError::Closed`] or [`PutError::NoWriterId`], the remaining events are tried without waiting, as
    /// [`try_put`](Self::try_put) does. So the call ends soon, and the report has them.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future accepts no more events. Those accepted are written all the same, and their answers are lost.
    /// So are the events that were not accepted by then, and the one that waited for room. With an iterator that is
    /// borrowed, the caller has those that were not taken.
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(feature = "test-util")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let table = dynamodb_eventstore::test_util::FakeTable::new();
    /// # let store = table.store_builder().start().await?;
    /// let orders = vec!["first".to_owned(), "x".repeat(500_000), "third".to_owned()];
    /// let report = store.put_all(orders).await.await;
    /// assert_eq!(report.stored, 2);
    /// for failed in &report.failed {
    ///     eprintln!("order {}: {}", failed.index, failed.error);
    /// }
    /// let too_large = &report.not_accepted[0];
    /// assert_eq!((too_large.index, too_large.event.len()), (1, 500_000));
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "test-util"))]
    /// # fn main() {}
    /// ```
    pub async fn put_all<E: Serialize>(
        &self,
        events: impl IntoIterator<Item = E>,
    ) -> PutAllTicket<E> {
        let mut all = PutAllTicket::new();
        let max_tickets = self.shared.config.worker.max_buffered_events;
        let mut waits = true;
        for (index, event) in (0..).zip(events) {
            // Puts that need not wait would keep other tasks from running.
            consume_budget().await;
            poll_fn(|context| all.poll_room(context, max_tickets)).await;
            let put = if waits { self.put(&event).await } else { self.try_put(&event) };
            match put {
                Ok(ticket) => all.accept(index, ticket),
                Err(error) => {
                    waits &= is_about_the_event(&error);
                    all.report.not_accepted.push(NotAccepted { index, event, error });
                }
            }
        }
        all
    }
}

/// Whether the next event may be accepted although this one was not.
fn is_about_the_event(error: &PutError) -> bool {
    matches!(error, PutError::TooLarge(_) | PutError::NotSerializable(_) | PutError::NotJson(_))
}
