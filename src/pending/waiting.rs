//! [`WaitingEvent`]: an accepted event that waits on disk, in the journal, until the buffer has room for it.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::sync::oneshot;

use super::journalled::failed_line;
use super::ticket::Answer;
use super::{Extra, PendingEvent, PutTicket, SettledError};
use crate::accounting::Accounting;
use crate::error::{Certainty, Failure, FailureReason, Uncertainty, WriteError};
use crate::event::Event;
use crate::event::key::EventKey;
use crate::flow_control::Permit;
use crate::journal::Position;
use crate::settled::Settled;

/// An accepted event without a permit, which has not been sent to the worker yet.
///
/// It becomes a [`PendingEvent`] when there is a permit for it, or is [failed](Self::fail) if its store ends first.
#[derive(Debug)]
pub(crate) struct WaitingEvent {
    sequence: NonZeroU64,
    content: Content,
    uncertainty_before: Uncertainty,
    /// `None` if the ticket was dropped.
    reply: Option<oneshot::Sender<Answer>>,
    /// Has the caller's span, if calls are linked to it.
    extra: Option<Box<Extra>>,
}

#[derive(Debug)]
enum Content {
    /// The record may not be durable yet.
    InMemory(Event),
    OnDisk(EventKey),
}

impl WaitingEvent {
    /// Accepts an event that has been appended to the journal.
    pub(crate) fn new(
        event: Event,
        uncertainty_before: Uncertainty,
        position: Position,
        accounting: &Accounting,
    ) -> (Self, PutTicket) {
        accounting.counters.accept();
        let (reply, mut ticket) = PutTicket::new(*event.key());
        let waiting = Self {
            sequence: position.sequence(),
            content: Content::InMemory(event),
            uncertainty_before,
            reply: Some(reply),
            extra: Extra::of_caller(accounting),
        };
        ticket.set_position(position);
        (waiting, ticket)
    }

    /// An event whose ticket was dropped.
    pub(crate) fn without_ticket(sequence: NonZeroU64, key: EventKey) -> Self {
        let (content, uncertainty_before) = (Content::OnDisk(key), Uncertainty::None);
        Self { sequence, content, uncertainty_before, reply: None, extra: None }
    }

    /// The event's number in the journal.
    pub(crate) fn sequence(&self) -> NonZeroU64 {
        self.sequence
    }

    /// The event, if it is in memory.
    pub(crate) fn event(&self) -> Option<&Event> {
        match &self.content {
            Content::InMemory(event) => Some(event),
            Content::OnDisk(_) => None,
        }
    }

    /// Drops the event from memory, as its record is durable.
    pub(crate) fn keep_on_disk(&mut self) {
        if let Content::InMemory(event) = &self.content {
            self.content = Content::OnDisk(*event.key());
        }
    }

    /// Whether the ticket is dropped, and no earlier put may have stored the event.
    pub(crate) fn is_without_ticket(&self) -> bool {
        self.uncertainty_before == Uncertainty::None
            && self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// The event with its permit, to be sent to the worker.
    pub(crate) fn into_pending(
        self,
        event: Event,
        permit: Permit<'_>,
        accounting: &Accounting,
    ) -> PendingEvent {
        let Self { sequence, uncertainty_before, reply, extra, .. } = self;
        let reply = reply.unwrap_or_else(|| oneshot::channel().0);
        let mut pending =
            PendingEvent::with_reply(event, uncertainty_before, permit, reply, extra, accounting);
        pending.set_journal_sequence(sequence);
        pending
    }

    /// Fails the event, which was not sent.
    pub(crate) fn fail(self, reason: FailureReason, accounting: &Accounting) -> SettledError {
        let Self { sequence, content, uncertainty_before, reply, .. } = self;
        let (key, event) = match content {
            Content::InMemory(event) => (*event.key(), Some(event)),
            Content::OnDisk(key) => (key, None),
        };
        let is_journalled =
            accounting.journal.as_ref().is_some_and(|journal| journal.keeps(sequence));
        let certainty = match uncertainty_before {
            Uncertainty::None => Certainty::NotStored,
            Uncertainty::CallsEnded | Uncertainty::CallsMayStillApply => Certainty::MaybeStored,
        };
        let error = WriteError::from(Failure {
            key,
            event,
            certainty,
            attempts: 0,
            elapsed: Duration::ZERO,
            reason,
            last_cause: None,
            history: Vec::new(),
            read_back: None,
            is_journalled,
        });
        if is_journalled {
            tracing::debug!(%key, %certainty, %error, "error");
            if let Some(journal) = &accounting.journal {
                journal.keep(sequence);
            }
        } else {
            tracing::error!(%key, attempts = 0, %certainty, %error, "error");
            if let Some(journal) = &accounting.journal {
                journal.settle(sequence, failed_line(&error));
            }
        }
        accounting.settle_waiting(1, reason);
        accounting.report_settled(|| Settled::Failed(error.clone()));
        let was_received = reply.is_some_and(|reply| reply.send(Err(error.clone())).is_ok());
        SettledError { error, was_received }
    }
}
