//! The read-back of a [`PendingEvent`] that failed and may be stored.

use std::sync::Arc;
use std::time::Instant;

use super::PendingEvent;
use crate::error::{BatchError, FailureReason, ReadBack};

/// The read-back of a failed event that may be stored.
#[derive(Debug)]
pub(super) struct PendingReadBack {
    /// Why the event failed.
    reason: FailureReason,
    /// The latest time at which the ticket is answered.
    pub(super) answer_by: Instant,
    reads: u32,
    /// Why the last read decided nothing.
    failure: Option<Arc<BatchError>>,
}

impl PendingEvent {
    /// Begins the read-back of an event that failed for `reason`. Its ticket is answered at `answer_by` at the latest.
    pub(crate) fn begin_read_back(&mut self, reason: FailureReason, answer_by: Instant) {
        let read_back = PendingReadBack { reason, answer_by, reads: 0, failure: None };
        self.extra.get_or_insert_default().read_back = Some(read_back);
    }

    /// Ends the read-back of an event that is sent again.
    pub(crate) fn end_read_back(&mut self) {
        if let Some(extra) = &mut self.extra {
            extra.read_back = None;
        }
    }

    /// Counts a read.
    pub(crate) fn begin_read(&mut self) {
        if let Some(read_back) = self.read_back_mut() {
            read_back.reads += 1;
        }
    }

    /// How many reads have been made for the event.
    pub(crate) fn reads(&self) -> u32 {
        self.read_back().map_or(0, |read_back| read_back.reads)
    }

    /// Sets why the last read decided nothing.
    pub(crate) fn fail_read(&mut self, failure: &Arc<BatchError>) {
        if let Some(read_back) = self.read_back_mut() {
            read_back.failure = Some(Arc::clone(failure));
        }
    }

    /// The result of a read-back in which no read has decided the event.
    pub(crate) fn unread(&self) -> ReadBack {
        let failure = self.read_back().and_then(|read_back| read_back.failure.as_ref());
        failure.map_or(ReadBack::NoTime, |failure| ReadBack::Failed(Arc::clone(failure)))
    }

    /// Why the event failed; `None` for an event that is not read back.
    pub(crate) fn read_back_reason(&self) -> Option<FailureReason> {
        self.read_back().map(|read_back| read_back.reason)
    }

    pub(super) fn read_back(&self) -> Option<&PendingReadBack> {
        self.extra.as_ref()?.read_back.as_ref()
    }

    fn read_back_mut(&mut self) -> Option<&mut PendingReadBack> {
        self.extra.as_mut()?.read_back.as_mut()
    }
}
