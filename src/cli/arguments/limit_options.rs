//! The options that set limits of the store.

use std::time::Duration;

use dynamodb_eventstore::EventStoreBuilder;

use crate::time;

/// The store's default for `max_buffered_events`.
const DEFAULT_BUFFERED_EVENTS: usize = 10_000;

/// Limits of the store. A limit that is not given has the store's default.
#[derive(Debug, clap::Args)]
pub(crate) struct LimitOptions {
    /// Time limit for one BatchWriteItem call [default: 10s].
    #[arg(long, value_name = "TIME", value_parser = time::parse, help_heading = "Limits")]
    attempt_timeout: Option<Duration>,

    /// How long an event waits for other events, to share a call with them
    /// [default: 5ms].
    #[arg(long, value_name = "TIME", value_parser = time::parse, help_heading = "Limits")]
    linger: Option<Duration>,

    /// Maximum number of events in memory [default: 10000].
    #[arg(long, value_name = "EVENTS", help_heading = "Limits")]
    buffer: Option<usize>,

    /// Maximum number of BatchWriteItem calls in flight [default: 64; starts at 8].
    #[arg(long, value_name = "N", help_heading = "Limits")]
    batches_in_flight: Option<usize>,
}

impl LimitOptions {
    pub(crate) fn apply(&self, mut store: EventStoreBuilder) -> EventStoreBuilder {
        if let Some(attempt_timeout) = self.attempt_timeout {
            store = store.attempt_timeout(attempt_timeout);
        }
        if let Some(linger) = self.linger {
            store = store.linger(linger);
        }
        if let Some(events) = self.buffer {
            store = store.max_buffered_events(events);
        }
        if let Some(batches_in_flight) = self.batches_in_flight {
            store = store.max_batches_in_flight(batches_in_flight);
        }
        store
    }

    pub(crate) fn linger(&self) -> Duration {
        self.linger.unwrap_or_default()
    }

    pub(crate) fn max_buffered_events(&self) -> usize {
        self.buffer.unwrap_or(DEFAULT_BUFFERED_EVENTS)
    }
}
