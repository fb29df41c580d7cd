//! The part of [`PendingEvent`] that is needed with a journal.

use std::num::NonZeroU64;

use super::PendingEvent;
use crate::error::{BatchError, Certainty, FailureClass, FailureReason, JournalError, WriteError};
use crate::event::key::EventKey;
use crate::journal::Position;

impl PendingEvent {
    /// Sets the event's number in the journal.
    pub(crate) fn set_journal_sequence(&mut self, sequence: NonZeroU64) {
        self.journal_sequence = Some(sequence);
    }

    /// Appends the event to the journal under `key`, and settles it under its present key. Does nothing without a
    /// journal.
    pub(crate) fn replace_in_journal(&mut self, key: EventKey) -> Result<(), JournalError> {
        let journal = self.accounting.as_ref().and_then(|accounting| accounting.journal.as_ref());
        if let (Some(journal), Some(replaced)) = (journal, self.journal_sequence) {
            let position = journal.replace(replaced, &self.event.with_key(key))?;
            self.journal_sequence = Some(position.sequence());
            self.failures.get_or_insert_default().position = Some(position);
        }
        Ok(())
    }

    /// The place of the event's new key in the journal, if it has one. It must be durable before the event is sent.
    pub(crate) fn position_of_new_key(&self) -> Option<Position> {
        self.failures.as_ref()?.position.clone()
    }

    /// Whether the event is put again later. Events that the service calls invalid are not, and neither are events
    /// whose keys other events have.
    pub(super) fn stays_in_journal(
        &self,
        reason: FailureReason,
        certainty: Certainty,
        cause: Option<&BatchError>,
    ) -> bool {
        let is_duplicate =
            reason == FailureReason::DuplicateKey && certainty == Certainty::NotStored;
        let is_invalid = reason == FailureReason::NotRetryable
            && cause.is_some_and(|cause| cause.class() == FailureClass::Invalid);
        let journal = self.accounting.as_ref().and_then(|accounting| accounting.journal.as_ref());
        let sequence = self.journal_sequence;
        !is_invalid
            && !is_duplicate
            && journal.zip(sequence).is_some_and(|(journal, sequence)| journal.keeps(sequence))
    }

    /// Notes that the event is to be put again.
    pub(super) fn keep_in_journal(&self) {
        let journal = self.accounting.as_ref().and_then(|accounting| accounting.journal.as_ref());
        if let (Some(journal), Some(sequence)) = (journal, self.journal_sequence) {
            journal.keep(sequence);
        }
    }

    /// Settles the event in the journal. `error` is set for an event that failed for good.
    pub(super) fn settle_in_journal(&self, error: Option<&WriteError>) {
        let journal = self.accounting.as_ref().and_then(|accounting| accounting.journal.as_ref());
        if let (Some(journal), Some(sequence)) = (journal, self.journal_sequence) {
            let line = error.and_then(|error| serde_json::to_vec(error).ok()).map(|mut line| {
                line.push(b'\n');
                line
            });
            journal.settle(sequence, line);
        }
    }
}
