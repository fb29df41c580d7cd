//! [`EventSink`]: a store as the end of a stream.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Sink;
use futures::future::BoxFuture;
use serde::Serialize;
use tokio::task::coop::poll_proceed;

use super::unsettled::Unsettled;
use crate::error::{PutError, SinkError};
use crate::event::encoded_body::EncodedBody;
use crate::flow_control::AcquireError;
use crate::pending::PutTicket;
use crate::store::EventStore;

/// A [`Sink`] that puts events into a store; made by [`EventStore::sink`].
///
/// The sink has the back pressure of [`put`](EventStore::put): it is ready once the event before was accepted. An event
/// that waits for room is the only one that the sink holds. Its tickets are dropped as they are answered, and it never
/// holds more of them than [`max_buffered_events`](crate::EventStoreBuilder::max_buffered_events).
///
/// - **Flush** waits until every event that was put through *this* sink is settled. `Ok` means that all of them are
///   stored, except those that an earlier error has named. Events that other handles have put are not waited for. The
///   events keep their [`linger`](crate::EventStoreBuilder::linger), because `forward` flushes each time its stream
///   pauses.
/// - **Close** is a flush. It leaves the store open: only [`EventStore::close`] closes it.
///
/// # Errors
///
/// Each event that is not known to be stored is the [`SinkError`] of one call, with its index and, once it was accepted,
/// its key. Being ready, flush and close all return such errors, so `forward` ends soon after the first one. The sink
/// can still be used: its other events are not affected, and a further flush returns the next error, until it is `Ok`.
/// An event that is not accepted is dropped with the error. A sink of a closed store is never ready, so it takes no
/// event that it would have to drop.
///
/// # Panics
///
/// `start_send` panics if the sink was not ready.
///
/// # Cancel safety
///
/// Dropping the sink cancels no event that was accepted. The last event, if it still waits for room, is dropped, with a
/// warning in the log. A flush that is dropped and called again goes on where it was.
#[must_use = "a sink does nothing until events are sent to it"]
pub struct EventSink<E> {
    store: EventStore,
    unsettled: Unsettled,
    waiting: Option<WaitingPut>,
    next_index: u64,
    events: PhantomData<fn(E)>,
}

/// The put of the last event, while it waits for room.
struct WaitingPut {
    index: u64,
    put: BoxFuture<'static, Result<PutTicket, PutError>>,
}

impl EventStore {
    /// A [`Sink`] that puts each event it receives, so that a stream can be
    /// [forwarded](futures::StreamExt::forward) to the store. [`EventSink`] says what flush, close and errors mean.
    ///
    /// # Example
    ///
    /// ```
    /// # use dynamodb_eventstore::{EventStore, SinkError};
    /// use futures::{StreamExt, stream};
    ///
    /// # async fn example(store: EventStore) -> Result<(), SinkError> {
    /// let events = stream::iter(0..1_000).map(|number| serde_json::json!({ "number": number }));
    /// // Returns when all are stored, or with the first that is not.
    /// events.map(Ok).forward(store.sink()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn sink<E: Serialize>(&self) -> EventSink<E> {
        EventSink {
            store: self.clone(),
            unsettled: Unsettled::default(),
            waiting: None,
            next_index: 0,
            events: PhantomData,
        }
    }
}

impl<E> EventSink<E> {
    /// Waits until the last event is accepted.
    fn poll_accepted(&mut self, context: &mut Context<'_>) -> Poll<Result<(), SinkError>> {
        let Some(WaitingPut { index, put }) = &mut self.waiting else {
            return Poll::Ready(Ok(()));
        };
        let (index, accepted) = (*index, ready!(put.as_mut().poll(context)));
        self.waiting = None;
        Poll::Ready(match accepted {
            Ok(ticket) => {
                self.unsettled.push(index, ticket);
                Ok(())
            }
            Err(cause) => Err(SinkError::Put { index, cause }),
        })
    }

    /// Drops tickets as far as they are answered. Ready with the first error, or when none is left.
    fn poll_settled(&mut self, context: &mut Context<'_>) -> Poll<Result<(), SinkError>> {
        while let Some((index, answer)) = ready!(self.unsettled.poll_next(context)) {
            if let Err(cause) = answer {
                return Poll::Ready(Err(SinkError::Write { index, cause }));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<E: Serialize> Sink<E> for EventSink<E> {
    type Error = SinkError;

    fn poll_ready(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), SinkError>> {
        // A stream that is always ready must not keep other tasks from running.
        let coop = ready!(poll_proceed(context));
        let max_tickets = self.store.shared.config.worker.max_buffered_events;
        let ready = match self.poll_settled(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // Without budget, tickets are not ready although they are answered. The events must not get ahead of them.
            Poll::Pending if self.unsettled.len() >= max_tickets => Poll::Pending,
            Poll::Ready(Ok(())) | Poll::Pending => self.poll_accepted(context),
        };
        if ready.is_ready() {
            coop.made_progress();
        }
        ready!(ready)?;
        if self.store.shared.accounting.flow_control.is_closed() {
            let cause = self.store.put_error(AcquireError::Closed);
            return Poll::Ready(Err(SinkError::Put { index: self.next_index, cause }));
        }
        Poll::Ready(Ok(()))
    }

    fn start_send(mut self: Pin<&mut Self>, event: E) -> Result<(), SinkError> {
        assert!(self.waiting.is_none(), "an event was sent to a sink that was not ready");
        let index = self.next_index;
        self.next_index += 1;
        let body = EncodedBody::from_value(&event)
            .map_err(|error| SinkError::Put { index, cause: error.into() })?;
        if let Ok(ticket) = self.store.try_put_body(body.clone()) {
            self.unsettled.push(index, ticket);
            return Ok(());
        }
        // Whether that was final is for the put that waits to say.
        let store = self.store.clone();
        let put = Box::pin(async move { store.put_body(body).await });
        self.waiting = Some(WaitingPut { index, put });
        Ok(())
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), SinkError>> {
        ready!(self.poll_accepted(context))?;
        self.poll_settled(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), SinkError>> {
        self.poll_flush(context)
    }
}

impl<E> Drop for EventSink<E> {
    fn drop(&mut self) {
        if let Some(WaitingPut { index, .. }) = &self.waiting {
            tracing::warn!(
                index,
                "a sink was dropped with an event that was not accepted; flush the sink before"
            );
        }
    }
}

impl<E> fmt::Debug for EventSink<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EventSink")
            .field("unsettled", &self.unsettled.len())
            .field("is_waiting", &self.waiting.is_some())
            .finish_non_exhaustive()
    }
}
