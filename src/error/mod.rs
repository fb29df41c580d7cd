//! One error type per verb: put, write (what a ticket says), flush, close.

mod attempt;
mod batch;
mod config;
mod throttling;
mod write;

use std::num::NonZeroUsize;

pub use attempt::Attempt;
pub(crate) use attempt::{History, Uncertainty};
pub use batch::{BatchError, Certainty, FailureClass};
pub use config::ConfigError;
pub use throttling::{ThrottlingLimit, ThrottlingReason};
pub(crate) use write::Failure;
pub use write::{FailureReason, ReadBack, WriteError};

use crate::event::EventTooLarge;
use crate::event::encoded_body::EncodeError;

/// Why a put was refused. The event was never accepted: no ticket exists, nothing was sent, and
/// the caller still has it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// The event does not fit into one DynamoDB item.
    #[error(transparent)]
    TooLarge(#[from] EventTooLarge),

    /// The event's `Serialize` failed, or asked for something that JSON has no form for.
    #[error("the event cannot be serialised to JSON: {0}")]
    NotSerializable(#[source] serde_json::Error),

    /// The text handed to [`put_json`](crate::EventStore::put_json) is not JSON.
    #[error("the text is not JSON: {0}")]
    NotJson(#[source] serde_json::Error),

    /// The buffer has no room now ([`try_put`](crate::EventStore::try_put) only; `put` waits).
    #[error(
        "the buffer is full ({max_buffered_events} events or {max_buffered_bytes} bytes wait to be \
         stored): try later, wait with put(), or raise the limit"
    )]
    Full {
        /// The store's limit on buffered events.
        max_buffered_events: NonZeroUsize,
        /// The store's limit on the bytes of memory that buffered events take.
        max_buffered_bytes: NonZeroUsize,
    },

    /// As many events wait as the table takes in half of their deadline
    /// ([`try_put`](crate::EventStore::try_put) only; `put` waits).
    #[error(
        "{buffered_events} events wait already, and the table takes {write_units_per_second:.0} write \
         units a second: later ones would not be stored by their deadline; try later, wait with put(), or \
         give the table more capacity"
    )]
    Throttled {
        /// What leaves in a second, as the table's capacity or the store's budget allows.
        write_units_per_second: f64,
        /// Events that are accepted and not settled.
        buffered_events: u64,
    },

    /// The store was closed.
    #[error("the event store is closed")]
    Closed,

    /// The store's worker is gone, so nothing can be stored any more.
    #[error(transparent)]
    WorkerLost(#[from] WorkerLost),

    /// The wall clock is past the year 9999, or at its very end: there is no later key.
    #[error("no key is left: the clock is at or past the end of the year 9999")]
    NoKeyLeft,
}

impl From<EncodeError> for PutError {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::TooLarge(error) => Self::TooLarge(error),
            EncodeError::NotSerializable(error) => Self::NotSerializable(error),
        }
    }
}

/// Why the worker ended without being asked to.
///
/// Every event it held is answered with [`FailureReason::WorkerLost`]; later calls fail with this. Build
/// a new store to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerLost {
    /// The worker panicked. This is a bug of this crate.
    #[error("the event store's worker panicked; build a new store, and please report this")]
    Panicked,

    /// The worker's task was dropped: its runtime was shut down.
    #[error(
        "the event store's runtime was shut down under it; close the store before the runtime ends"
    )]
    Stopped,
}

impl WorkerLost {
    /// The cause, as seen from within a `Drop` that runs because of it.
    pub(crate) fn now() -> Self {
        if std::thread::panicking() { Self::Panicked } else { Self::Stopped }
    }
}

/// Why a flush did not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    /// The store was closed before the flush; the close report says what became of the events.
    #[error("the event store is closed; the report of close() says what became of its events")]
    Closed,

    /// The worker is gone; the tickets of the events it held say so too.
    #[error(transparent)]
    WorkerLost(#[from] WorkerLost),
}

/// Why there is no close report: the worker was gone, or went, before it could make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no close report: {0}")]
pub struct CloseError(#[from] WorkerLost);

impl CloseError {
    /// Why the worker ended.
    #[must_use]
    pub fn cause(&self) -> WorkerLost {
        self.0
    }
}
