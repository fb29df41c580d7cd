//! What a [`PendingEvent`] uses of the buffer, and its release.

use super::PendingEvent;
use crate::accounting::{Accounting, Usage};
#[cfg(feature = "metrics")]
use crate::error::FailureClass;
use crate::error::FailureReason;

impl PendingEvent {
    /// Releases the permit and counts the event as settled, unless that is already done.
    pub(super) fn release(&mut self, failure: Option<FailureReason>) {
        let Some(accounting) = self.accounting.take() else { return };
        let usage = self.take_usage(&accounting);
        if usage.events > 0 {
            accounting.settle(usage, failure);
        }
        self.accounting = Some(accounting);
    }

    /// What the event uses of the buffer, for the caller to release. Nothing after the first call.
    pub(super) fn take_usage(&mut self, accounting: &Accounting) -> Usage {
        if !std::mem::take(&mut self.holds_permit) {
            return Usage::default();
        }
        self.usage(accounting)
    }

    /// What the event uses of the buffer until it is settled.
    pub(crate) fn usage(&self, accounting: &Accounting) -> Usage {
        let bytes = accounting.permit_bytes(self.event.buffered_bytes());
        Usage { events: 1, bytes: bytes.into() }
    }
    /// The class of the last failure, if there was one.
    #[cfg(feature = "metrics")]
    pub(crate) fn last_failure(&self) -> Option<FailureClass> {
        Some(self.history()?.last_cause.as_ref()?.class())
    }
}
