//! The errors of the public interface: one type each for put, ticket, flush, close and configuration, and
//! types that describe a failed attempt.
//!
//! Many programs log only the `Display` of an error, so it contains the message of its cause. `source()` therefore skips
//! the cause, which is a value of the error, and returns the source of the cause. Programs that log an error with its
//! sources, as `anyhow` does with `{:#}`, then log no text twice. The only source that no `Display` shows is the one that
//! a program's own `BatchWriter` gives to a [`BatchError`].

mod attempt;
mod batch;
mod config;
#[cfg(feature = "journal")]
mod journal;
mod lease;
mod sink;
mod throttling;
mod write;

use std::num::NonZeroUsize;

pub use attempt::Attempt;
pub(crate) use attempt::{History, Uncertainty};
pub use batch::{BatchError, Certainty, FailureClass};
pub use config::ConfigError;
#[cfg(feature = "journal")]
pub use journal::JournalError;
pub(crate) use lease::Details as LeaseDetails;
pub use lease::LeaseError;
pub use sink::SinkError;
pub use throttling::{ThrottlingLimit, ThrottlingReason};
pub(crate) use write::Failure;
pub use write::{FailureReason, ReadBack, WriteError};

use crate::event::EventTooLarge;
use crate::event::encoded_body::EncodeError;

/// Why a put was refused.
///
/// The event was not accepted: it has no ticket, and nothing was sent. The caller still has it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// The event does not fit into one DynamoDB item.
    #[error(transparent)]
    TooLarge(#[from] EventTooLarge),

    /// The event's `Serialize` failed, or the event has no form in JSON.
    #[error(
        "the event cannot be serialised to JSON: {0}; correct its Serialize, or put JSON text with put_json()"
    )]
    NotSerializable(serde_json::Error),

    /// The text that was passed to [`put_json`](crate::EventStore::put_json) is not JSON.
    #[error("the text is not JSON: {0}; correct it, or put it as a JSON string with put()")]
    NotJson(serde_json::Error),

    /// The buffer has no capacity left. Only [`try_put`](crate::EventStore::try_put) fails with this;
    /// `put` waits.
    #[error(
        "the buffer is full ({max_buffered_events} events or {max_buffered_bytes} bytes wait to be \
         stored): try later, wait with put(), or raise the limit"
    )]
    Full {
        /// The largest number of events that the buffer takes.
        max_buffered_events: NonZeroUsize,
        /// The largest number of bytes of memory that buffered events may take.
        max_buffered_bytes: NonZeroUsize,
    },

    /// The table would need half of the event deadline to take the events that are buffered. Only
    /// [`try_put`](crate::EventStore::try_put) fails with this; `put` waits.
    #[error(
        "{buffered_events} events wait already, and the table takes only {write_units_per_second:.0} write \
         units a second, so this event would miss its deadline; try later, wait with put(), or \
         give the table more capacity"
    )]
    Throttled {
        /// Write units a second that the store sends, limited by the table's capacity or by its own
        /// settings.
        write_units_per_second: f64,
        /// Events that are accepted but not settled.
        buffered_events: u64,
    },

    /// The journal cannot take the event.
    #[cfg(feature = "journal")]
    #[error("the event is not accepted: {0}")]
    Journal(JournalError),

    /// The store was closed.
    #[error("the event store is closed: put events before close(), or build a new store")]
    Closed,

    /// The store's worker has ended, so no event can be stored.
    #[error(transparent)]
    WorkerLost(#[from] WorkerLost),

    /// The store leases its writer id, the lease has ended, and the store has no new one.
    /// [`try_put`](crate::EventStore::try_put) fails at once, `put` after
    /// [`max_wait`](crate::LeasedWriterIds::max_wait).
    #[error(transparent)]
    NoWriterId(#[from] LeaseError),

    /// No key is left: the wall clock is at or past the end of the year 9999.
    #[error(
        "no key is left: the clock is at or past the end of the year 9999; set the clock of this machine"
    )]
    NoKeyLeft,
}

#[cfg(feature = "journal")]
impl From<JournalError> for PutError {
    fn from(cause: JournalError) -> Self {
        Self::Journal(cause)
    }
}

impl From<EncodeError> for PutError {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::TooLarge(error) => Self::TooLarge(error),
            EncodeError::NotSerializable(error) => Self::NotSerializable(error),
        }
    }
}

/// Why the store's worker ended before the store was closed.
///
/// Every event that was not settled fails with [`FailureReason::WorkerLost`]. Later calls fail with this
/// error. Build a new store to continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerLost {
    /// The worker panicked. This is a bug in this crate.
    #[error("the event store's worker panicked; build a new store, and please report this")]
    Panicked,

    /// The worker's task was dropped: its runtime was shut down.
    #[error(
        "the event store's runtime was shut down before the store; close the store before the \
         runtime ends"
    )]
    Stopped,
}

impl WorkerLost {
    /// The cause, for a `Drop` that runs because the worker ends.
    pub(crate) fn while_dropping() -> Self {
        if std::thread::panicking() { Self::Panicked } else { Self::Stopped }
    }
}

/// Why a flush did not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    /// The store was closed before the flush, or while it waited for events on disk. The close report has the outcomes
    /// of its events.
    #[error("the event store is closed; the report of close() has the outcomes of its events")]
    Closed,

    /// The store's worker has ended. The tickets of events that were not settled fail with the same cause.
    #[error(transparent)]
    WorkerLost(#[from] WorkerLost),
}

/// Why there is no close report: the worker ended before it could make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("no close report: {0}; the tickets have the answers")]
pub struct CloseError(WorkerLost);

impl From<WorkerLost> for CloseError {
    fn from(cause: WorkerLost) -> Self {
        Self(cause)
    }
}

impl CloseError {
    /// Why the worker ended.
    #[must_use]
    pub fn cause(&self) -> WorkerLost {
        self.0
    }
}
