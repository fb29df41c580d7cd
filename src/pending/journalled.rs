//! The part of [`PendingEvent`] that is needed with a journal.

use std::num::NonZeroU64;

use super::PendingEvent;
use crate::accounting::Accounting;
use crate::error::{BatchError, FailureClass, FailureReason, WriteError};

impl PendingEvent {
    /// Sets the event's number in the journal.
    pub(crate) fn set_journal_sequence(&mut self, sequence: NonZeroU64) {
        self.journal_sequence = Some(sequence);
    }

    /// Whether the event is put again later. Events that the service calls invalid are not, and neither are events
    /// whose keys other events have.
    pub(super) fn stays_in_journal(
        &self,
        reason: FailureReason,
        is_of_another: bool,
        cause: Option<&BatchError>,
    ) -> bool {
        let is_duplicate = reason == FailureReason::DuplicateKey && is_of_another;
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

    /// Settles stored events in the journal, in one step.
    pub(super) fn settle_batch_in_journal(batch: &mut [Self], accounting: &Accounting) {
        if let Some(journal) = &accounting.journal {
            journal.settle_all(batch.iter_mut().filter_map(|event| event.journal_sequence.take()));
        }
    }

    /// Settles the event in the journal. `error` is set for an event that failed for good.
    pub(super) fn settle_in_journal(&self, error: Option<&WriteError>) {
        let journal = self.accounting.as_ref().and_then(|accounting| accounting.journal.as_ref());
        if let (Some(journal), Some(sequence)) = (journal, self.journal_sequence) {
            journal.settle(sequence, error.and_then(failed_line));
        }
    }
}

/// The line that is kept in a file for an event that failed for good.
pub(super) fn failed_line(error: &WriteError) -> Option<Vec<u8>> {
    let mut line = serde_json::to_vec(error).ok()?;
    line.push(b'\n');
    Some(line)
}
