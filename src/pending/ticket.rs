//! The caller's half of an answer: the ticket, and what it says of a stored event.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::error::{Attempt, WriteError};
use crate::event::key::EventKey;

/// What a ticket says.
pub(super) type Answer = Result<Stored, WriteError>;

/// An event is in the table.
///
/// Either a call carried the event's key, the service answered it, and did not list the key as
/// unprocessed; or the answers of its calls were lost, and a consistent read then found the event.
/// It does not mean that every reader sees the event at once: a read that is not consistent may be a
/// moment late.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Stored {
    /// Key of the event in the table.
    pub key: EventKey,
    /// How many calls carried the event, the acknowledged one included.
    pub attempts: u32,
    /// How the store knows.
    pub proof: Proof,
    pub(super) history: Vec<Attempt>,
}

impl Stored {
    /// The attempts, oldest first, of an event that was not stored at the first try: when, how long, and
    /// how each but the acknowledged one failed. Of more than 16 the first and the last eight.
    ///
    /// Empty for an event that was stored at the first try.
    #[must_use]
    pub fn history(&self) -> &[Attempt] {
        &self.history
    }
}

/// How the store knows that an event is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proof {
    /// The service acknowledged a call that carried the event.
    Acknowledged,
    /// A consistent read found the event, with its body.
    ReadBack,
}

/// The answer to one put, to be awaited: what became of the event.
///
/// The future's output is `Ok(`[`Stored`]`)` when the event is in the table, and
/// `Err(`[`WriteError`]`)` when it failed. It comes at the latest one attempt time-out
/// after the event's deadline ([`event_deadline`](crate::EventStoreBuilder::event_deadline)).
///
/// Dropping a ticket does not cancel the write; its answer is dropped.
///
/// # Cancel safety
///
/// A ticket can be polled, kept and polled again. Like most futures it panics when it is
/// polled after it has given its output.
#[derive(Debug)]
#[must_use = "a put is only known to be stored when its ticket says so"]
pub struct PutTicket {
    pub(super) key: EventKey,
    pub(super) answer: oneshot::Receiver<Answer>,
}

impl PutTicket {
    /// Key under which the event is being stored. Known from the start, and never changed.
    #[must_use]
    pub fn key(&self) -> &EventKey {
        &self.key
    }
}

impl Future for PutTicket {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer)
            .poll(context)
            .map(|answer| answer.unwrap_or_else(|_| Err(WriteError::unanswered(self.key))))
    }
}
