//! [`WorkerSettings`]: the part of the store's configuration that the worker needs.

use std::time::Duration;

use crate::policy::batch::BatchLimits;
use crate::policy::retry::RetryPolicy;
use crate::write_mode::{OnDuplicate, WriteMode};

/// The part of the store's configuration that the worker needs.
#[derive(Debug, Clone)]
pub(crate) struct WorkerSettings {
    pub(crate) limits: BatchLimits,
    pub(crate) linger: Duration,
    pub(crate) max_batches_in_flight: usize,
    pub(crate) max_write_units_per_second: Option<u32>,
    pub(crate) max_buffered_events: usize,
    /// No further call begins while requests of at least this many bytes are in flight.
    pub(crate) bytes_in_flight_threshold: usize,
    pub(crate) attempt_timeout: Duration,
    pub(crate) retry: RetryPolicy,
    /// How long the service may refuse every call before the refusal is final.
    pub(crate) refusal_timeout: Duration,
    /// Whether a failed event that may be stored is read back before its ticket is answered.
    pub(crate) read_back: bool,
    pub(crate) write_mode: WriteMode,
    pub(crate) on_duplicate: OnDuplicate,
    /// How many failed events whose tickets were dropped are kept for the close report.
    pub(crate) max_unreported_events: usize,
    /// How many bytes such events may take in the buffer's accounting.
    pub(crate) max_unreported_bytes: usize,
    /// The name of the table, if it is known: for spans.
    pub(crate) table: Option<String>,
}
