//! The metrics of a store, through the facade of the crate `metrics`.
//!
//! Each handle is looked up once, when the store starts. An event then costs no look-up, and most counters change once
//! per batch.

mod labelled;
mod names;

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label, counter, gauge, histogram};

use crate::error::{FailureClass, FailureReason};
use crate::stats::Stats;
use labelled::{Failed, Retried, Throttled};

/// The handles of one store's metrics.
///
/// Accepted, stored and failed events and the pending gauges change together, so that at any time
/// `accepted == stored + failed + pending`.
#[derive(Debug)]
pub(crate) struct StoreMetrics {
    accepted: Counter,
    stored: Counter,
    failed: Failed,
    pending_events: Gauge,
    pending_bytes: Gauge,
    retried: Retried,
    put_to_stored: Histogram,
    batch_events: Histogram,
    batch_duration: Histogram,
    batches_in_flight: Gauge,
    batches: Counter,
    throttled_units: Counter,
    throttled_batches: Throttled,
    consumed_units: Counter,
    replaced_keys: Counter,
    pace: Gauge,
    oldest_waiting: Gauge,
    waiting_on_disk: Gauge,
    journal_bytes: Gauge,
}

impl StoreMetrics {
    /// Describes and registers the metrics with the recorder of this thread, or with the global one.
    pub(crate) fn register(table: Option<&str>, store: Option<&str>) -> Self {
        names::describe();
        let label = |name: &'static str, value: &str| Label::new(name, value.to_owned());
        let table = table.map(|table| label("table", table));
        let store = store.map(|store| label("store", store));
        let labels: &Vec<Label> = &table.into_iter().chain(store).collect();
        let counter = |name: &'static str| counter!(name, labels.clone());
        let gauge = |name: &'static str| gauge!(name, labels.clone());
        let histogram = |name: &'static str| histogram!(name, labels.clone());
        Self {
            accepted: counter(names::EVENTS_ACCEPTED),
            stored: counter(names::EVENTS_STORED),
            failed: Failed::register(labels),
            pending_events: gauge(names::PENDING_EVENTS),
            pending_bytes: gauge(names::PENDING_BYTES),
            retried: Retried::register(labels),
            put_to_stored: histogram(names::PUT_TO_STORED),
            batch_events: histogram(names::BATCH_EVENTS),
            batch_duration: histogram(names::BATCH_DURATION),
            batches_in_flight: gauge(names::BATCHES_IN_FLIGHT),
            batches: counter(names::BATCHES),
            throttled_units: counter(names::THROTTLED_UNITS),
            throttled_batches: Throttled::register(labels),
            consumed_units: counter(names::CONSUMED_UNITS),
            replaced_keys: counter(names::REPLACED_KEYS),
            pace: gauge(names::PACE),
            oldest_waiting: gauge(names::OLDEST_WAITING),
            waiting_on_disk: gauge(names::WAITING_ON_DISK),
            journal_bytes: gauge(names::JOURNAL_BYTES),
        }
    }

    /// Counts events that the worker has received, and the bytes of the buffer that they use.
    pub(crate) fn accept(&self, events: u64, bytes: u64) {
        if events > 0 {
            self.accepted.increment(events);
            self.pending_events.increment(events as f64);
            self.pending_bytes.increment(bytes as f64);
        }
    }

    /// Counts settled events: as failed if there is a reason, else as stored.
    pub(crate) fn settle(&self, events: u64, bytes: u64, failure: Option<FailureReason>) {
        let counter = failure.map_or(&self.stored, |reason| self.failed.of(reason));
        counter.increment(events);
        self.pending_events.decrement(events as f64);
        self.pending_bytes.decrement(bytes as f64);
    }

    /// Counts events that are sent again after a failure of this class.
    pub(crate) fn retry(&self, class: FailureClass, events: u64) {
        self.retried.of(class).increment(events);
    }

    /// Records the time that `events` events took from their acceptance until they were stored.
    pub(crate) fn stored_after(&self, latency: Duration, events: usize) {
        self.put_to_stored.record_many(latency, events);
    }

    /// Records the number of events of a call.
    pub(crate) fn send(&self, events: usize) {
        self.batch_events.record(events as f64);
    }

    /// Records the duration of a completed call.
    pub(crate) fn complete(&self, duration: Duration) {
        self.batch_duration.record(duration);
    }

    /// Changes the number of calls in flight.
    pub(crate) fn change_in_flight(&self, before: usize, after: usize) {
        if before != after {
            self.batches_in_flight.increment(after as f64 - before as f64);
        }
    }

    /// Adds the increase of the counters from `before` to `after`, and sets the gauges of what limits the store.
    pub(crate) fn publish(&self, before: &Stats, after: &Stats) {
        for (counter, before, after) in [
            (&self.batches, before.batches, after.batches),
            (&self.throttled_units, before.throttled_units, after.throttled_units),
            (&self.replaced_keys, before.replaced_keys, after.replaced_keys),
            // A counter is a whole number. The rest is added when it has become a whole unit.
            (
                &self.consumed_units,
                before.consumed_write_units as u64,
                after.consumed_write_units as u64,
            ),
        ] {
            if after > before {
                counter.increment(after - before);
            }
        }
        self.throttled_batches
            .add(&before.throttled_batches_by_limit, &after.throttled_batches_by_limit);
        self.pace.set(after.write_units_per_second.unwrap_or(0.0));
        self.oldest_waiting.set(after.oldest_waiting);
        self.waiting_on_disk.set(after.waiting_on_disk as f64);
        self.journal_bytes.set(after.journal_bytes as f64);
    }

    /// Resets the gauges of what limits the store, as its worker has ended.
    pub(crate) fn end(&self) {
        self.pace.set(0.0);
        self.oldest_waiting.set(0.0);
        self.waiting_on_disk.set(0.0);
        self.journal_bytes.set(0.0);
    }
}
