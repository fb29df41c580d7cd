//! [`PutTicket`], the caller's half of an answer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

#[cfg(feature = "journal")]
use crate::error::JournalError;
use crate::error::WriteError;
use crate::event::key::EventKey;
#[cfg(feature = "journal")]
use crate::journal::Position;
use crate::settled::Stored;

/// The output of a ticket.
pub(super) type Answer = Result<Stored, WriteError>;

/// A future for the answer to one put.
///
/// Its output is `Ok(`[`Stored`]`)` if the event is stored, and `Err(`[`WriteError`]`)` if it failed. It is ready at
/// the latest one [`attempt_timeout`](crate::EventStoreBuilder::attempt_timeout) after the event's
/// [`event_deadline`](crate::EventStoreBuilder::event_deadline). If the event waits on disk, in the journal, the deadline
/// begins when it comes into the buffer.
///
/// Dropping a ticket does not cancel the write.
///
/// # Panics
///
/// When polled again after it was ready, like most futures.
///
/// # Cancel safety
///
/// Awaiting `&mut ticket` and dropping that future, as in `tokio::select!`, loses nothing.
#[derive(Debug)]
#[must_use = "only the ticket says whether the event is stored"]
pub struct PutTicket {
    key: EventKey,
    answer: oneshot::Receiver<Answer>,
    /// The event's place in the journal, if the store has one.
    #[cfg(feature = "journal")]
    position: Option<Position>,
}

impl PutTicket {
    /// A ticket, and what answers it.
    pub(super) fn new(key: EventKey) -> (oneshot::Sender<Answer>, Self) {
        let (reply, answer) = oneshot::channel();
        let ticket = Self {
            key,
            answer,
            #[cfg(feature = "journal")]
            position: None,
        };
        (reply, ticket)
    }

    /// Key that the event got when it was put. In [`WriteMode::Insert`](crate::WriteMode::Insert) the event may be
    /// stored under another key, which [`Stored::key`] then has.
    #[must_use]
    pub fn key(&self) -> &EventKey {
        &self.key
    }

    /// Sets the event's place in the journal.
    #[cfg(feature = "journal")]
    pub(crate) fn set_position(&mut self, position: Position) {
        self.position = Some(position);
    }

    /// Blocks the thread until the answer is there. Awaiting the ticket gives the same answer.
    ///
    /// # Errors
    ///
    /// A [`WriteError`] if the event failed.
    ///
    /// # Panics
    ///
    /// In async code, like [`blocking_put`](crate::EventStore::blocking_put).
    #[track_caller]
    pub fn blocking_wait(self) -> Result<Stored, WriteError> {
        let answer = self.answer.blocking_recv();
        answer.unwrap_or_else(|_| Err(WriteError::unanswered(self.key)))
    }

    /// Waits until the event is in the journal.
    ///
    /// `Ok` means that the event survives the death of the process and, unless the journal's policy is
    /// [`SyncPolicy::Os`](crate::SyncPolicy::Os), a power cut: if it is not stored by then, the next process that opens
    /// the journal puts it again under the same key. It does not mean that the event is in the table.
    ///
    /// # Errors
    ///
    /// [`JournalError::Missing`] if the store has no journal, [`JournalError::Io`] if the event could not be written or
    /// synced. The event is accepted anyway, and the ticket will be answered.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    #[cfg(feature = "journal")]
    pub async fn journalled(&self) -> Result<(), JournalError> {
        match &self.position {
            Some(position) => position.durable().await,
            None => Err(JournalError::Missing),
        }
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
