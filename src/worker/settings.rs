//! [`WorkerSettings`]: the part of the store's configuration that the worker needs.

use std::time::Duration;

use crate::policy::batch::BatchLimits;
use crate::policy::retry::RetryPolicy;
use crate::write_mode::{OnDuplicate, WriteMode};

/// The part of the store's configuration that the worker needs. The methods of
/// [`EventStoreBuilder`](crate::EventStoreBuilder) say what each setting means.
#[derive(Debug, Clone)]
pub(crate) struct WorkerSettings {
    pub(crate) max_batch_events: usize,
    pub(crate) linger: Duration,
    pub(crate) max_batches_in_flight: usize,
    pub(crate) max_write_units_per_second: Option<u32>,
    pub(crate) max_buffered_events: usize,
    pub(crate) max_buffered_bytes: usize,
    pub(crate) attempt_timeout: Duration,
    pub(crate) retry: RetryPolicy,
    pub(crate) refusal_timeout: Duration,
    pub(crate) read_back: bool,
    pub(crate) write_mode: WriteMode,
    pub(crate) on_duplicate: OnDuplicate,
    /// The name of the table, if it is known: for spans and metrics. Only known once the store starts.
    pub(crate) table: Option<String>,
}

impl WorkerSettings {
    pub(super) fn batch_limits(&self) -> BatchLimits {
        BatchLimits::new(self.max_batch_events, self.write_mode)
    }

    /// No further call begins while requests of at least this many bytes are in flight.
    ///
    /// Requests in flight are copies of events in the buffer. They take at most this plus one request of up to 16 MB,
    /// because a call may begin while less than this is in flight.
    pub(super) fn bytes_in_flight_threshold(&self) -> usize {
        self.max_buffered_bytes / 4
    }
}
