//! The error of an event sink.

use std::error::Error;
use std::fmt;

use super::{PutError, WriteError};

/// Why an event that was put through an [`EventSink`](crate::EventSink) is not known to be stored.
#[derive(Debug)]
#[non_exhaustive]
pub enum SinkError {
    /// The event was not accepted. Nothing of it was sent.
    Put {
        /// Which event: how many were put through the sink before it.
        index: u64,
        /// Why it was not accepted.
        cause: PutError,
    },

    /// The event was accepted, and its write failed.
    Write {
        /// Which event: how many were put through the sink before it.
        index: u64,
        /// The answer of its ticket, with its key and the event itself.
        cause: WriteError,
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

impl fmt::Display for SinkError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { index, cause } => {
                write!(formatter, "event {index} of the sink was not accepted: {cause}")
            }
            Self::Write { index, cause } => {
                write!(formatter, "event {index} of the sink failed: {cause}")
            }
        }
    }
}

impl Error for SinkError {
    /// What the message does not show: the source of the cause.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Put { cause, .. } => cause.source(),
            Self::Write { cause, .. } => cause.source(),
        }
    }
}
