//! The two halves of an answer: the caller's ticket and the writer's pending event.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::error::{BatchError, Certainty, GiveUp, WorkerLost, WriteError};
use crate::event::Event;
use crate::key::EventKey;
use crate::room::Permit;
use crate::stats::Counters;

/// The service acknowledged an event.
///
/// A call carried the event's key, the service answered it, and did not list the key as
/// unprocessed. It does not mean that a reader sees the event at once: a read that is not
/// consistent may be a moment late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stored {
    /// Key of the event in the table.
    pub key: EventKey,
    /// How many calls carried the event, the acknowledged one included.
    pub attempts: u32,
}

/// The answer to one put, to be awaited: what became of the event.
///
/// The future's output is `Ok(`[`Stored`]`)` when the service acknowledged the event, and
/// `Err(`[`WriteError`]`)` when the store gave it up. It comes at the latest one attempt time-out
/// after the event's deadline ([`event_deadline`](crate::EventStoreBuilder::event_deadline)).
///
/// Dropping a ticket does not cancel the write; it only leaves its answer unheard.
///
/// # Cancel safety
///
/// A ticket can be polled, set aside and polled again. Like most futures it panics when it is
/// polled after it has given its output.
#[derive(Debug)]
#[must_use = "a put is only known to be stored when its ticket says so"]
pub struct PutTicket {
    key: EventKey,
    answer: oneshot::Receiver<Result<Stored, WriteError>>,
}

impl PutTicket {
    /// Key under which the event is being stored. Known from the start, and never changed.
    #[must_use]
    pub fn key(&self) -> &EventKey {
        &self.key
    }
}

impl Future for PutTicket {
    type Output = Result<Stored, WriteError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer)
            .poll(context)
            .map(|answer| answer.unwrap_or_else(|_| Err(WriteError::unanswered(self.key))))
    }
}

/// The writer's half: an accepted event that owes its ticket an answer.
///
/// It is settled once, by [`stored`](Self::stored) or [`give_up`](Self::give_up). Where neither
/// happens, dropping it gives the answer that is true then: the worker is lost. The event's room in
/// the buffer goes back in the same moment, by ownership.
#[derive(Debug)]
pub(crate) struct Pending {
    event: Event,
    attempts: u32,
    /// Once an attempt may have been applied, that stays so until one is acknowledged.
    maybe_stored: bool,
    /// The current attempt's answer is still out.
    in_flight: bool,
    last_cause: Option<Arc<BatchError>>,
    accepted_at: Option<Instant>,
    counters: Arc<Counters>,
    /// `None` once settled.
    reply: Option<oneshot::Sender<Result<Stored, WriteError>>>,
    /// Given back before the answer, so that whoever hears it finds the room.
    room: Option<Permit>,
}

impl Pending {
    /// Accepts an event that has room in the buffer.
    pub(crate) fn accept(
        event: Event,
        room: Permit,
        counters: &Arc<Counters>,
    ) -> (Self, PutTicket) {
        counters.accept();
        let (reply, answer) = oneshot::channel();
        let ticket = PutTicket { key: *event.key(), answer };
        let pending = Self {
            event,
            attempts: 0,
            maybe_stored: false,
            in_flight: false,
            last_cause: None,
            accepted_at: None,
            counters: Arc::clone(counters),
            reply: Some(reply),
            room: Some(room),
        };
        (pending, ticket)
    }

    /// Takes the acceptance back: the worker never got the event and nobody has its ticket.
    pub(crate) fn refuse(mut self) {
        self.counters.refuse();
        self.reply = None;
    }

    pub(crate) fn event(&self) -> &Event {
        &self.event
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Notes when the worker took the event over; its deadline counts from here.
    pub(crate) fn arrive(&mut self, now: Instant) {
        self.accepted_at = Some(now);
    }

    pub(crate) fn elapsed(&self, now: Instant) -> Duration {
        self.accepted_at
            .map_or(Duration::ZERO, |accepted_at| now.saturating_duration_since(accepted_at))
    }

    /// Notes that a call now carries the event.
    pub(crate) fn attempt(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
        self.in_flight = true;
    }

    /// Notes that the last attempt failed, and how.
    pub(crate) fn fail(&mut self, cause: &Arc<BatchError>) {
        self.in_flight = false;
        self.maybe_stored |= cause.certainty() == Certainty::MaybeStored;
        self.blame(cause);
    }

    /// Notes why the event will not be sent. Nothing was sent, so its certainty stays as it is.
    pub(crate) fn blame(&mut self, cause: &Arc<BatchError>) {
        self.last_cause = Some(Arc::clone(cause));
    }

    /// Settles with yes.
    pub(crate) fn stored(mut self) {
        let stored = Stored { key: *self.event.key(), attempts: self.attempts };
        tracing::debug!(key = %stored.key, attempts = stored.attempts, "ok");
        self.counters.settle(true);
        drop(self.room.take());
        if let Some(reply) = self.reply.take() {
            // The caller may have dropped the ticket; the event is stored all the same.
            let _ = reply.send(Ok(stored));
        }
    }

    /// Settles with no, or with maybe. Hands the error back where the ticket was dropped.
    pub(crate) fn give_up(mut self, reason: GiveUp, now: Instant) -> Answered {
        let elapsed = self.elapsed(now);
        self.settle_error(reason, elapsed)
    }

    fn settle_error(&mut self, reason: GiveUp, elapsed: Duration) -> Answered {
        let certainty = if self.maybe_stored || self.in_flight {
            Certainty::MaybeStored
        } else {
            Certainty::NotStored
        };
        let error = WriteError::new(
            self.event.clone(),
            certainty,
            self.attempts,
            elapsed,
            reason,
            self.last_cause.take(),
        );
        tracing::error!(
            key = %error.key(),
            attempts = error.attempts(),
            certainty = %certainty,
            error = %error,
            "error"
        );
        self.counters.settle(false);
        drop(self.room.take());
        let heard = self.reply.take().is_some_and(|reply| reply.send(Err(error.clone())).is_ok());
        Answered { error, heard }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.reply.is_some() {
            self.settle_error(GiveUp::WorkerLost(WorkerLost::now()), Duration::ZERO);
        }
    }
}

/// An error that a pending event was settled with.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) error: WriteError,
    /// Whether the ticket was still there to hear it.
    pub(crate) heard: bool,
}
