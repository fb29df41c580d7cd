//! The error of an event sink.

use super::{PutError, WriteError};

/// Why an event that was put through an [`EventSink`](crate::EventSink) is not known to be stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The event was not accepted. Nothing of it was sent.
    #[error("event {index} of the sink was not accepted: {source}")]
    Put {
        /// Which event: how many were put through the sink before it.
        index: u64,
        /// Why it was not accepted.
        source: PutError,
    },

    /// The event was accepted, and its write failed.
    #[error("event {index} of the sink failed: {source}")]
    Write {
        /// Which event: how many were put through the sink before it.
        index: u64,
        /// The answer of its ticket, with its key and the event itself.
        source: WriteError,
    },
}

impl SinkError {
    /// Which event: how many were put through the sink before it.
    #[must_use]
    pub fn index(&self) -> u64 {
        match self {
            Self::Put { index, .. } | Self::Write { index, .. } => *index,
        }
    }
}
