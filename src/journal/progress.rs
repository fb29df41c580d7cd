//! [`Progress`]: how far the journal's thread is.

use crate::error::JournalError;

/// Whether an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    Unwritten,
    Durable,
    /// It could not be written.
    Lost,
}

/// Up to which event the journal is durable.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// Every event up to this number is durable, except the lost ones.
    pub(super) durable: u64,
    /// Ranges of events that were not written, in ascending order.
    pub(super) lost: Vec<(u64, u64, JournalError)>,
    pub(super) is_closed: bool,
}

impl Progress {
    pub(super) fn lost(&self, sequence: u64) -> Option<&JournalError> {
        let index = self.lost.partition_point(|(_, last, _)| *last < sequence);
        let (first, _, error) = self.lost.get(index)?;
        (*first <= sequence).then_some(error)
    }
}
