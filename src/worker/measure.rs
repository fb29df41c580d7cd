//! What the worker measures for the feature `metrics`.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Worker;
use crate::accounting::Accounting;
use crate::clock::now;
use crate::pending::PendingEvent;
use crate::stats::Stats;

/// How old the published age of the oldest waiting event may be.
const INTERVAL: Duration = Duration::from_secs(1);

/// Publishes what only the worker changes. So an iteration of its loop looks at the counters once, and not at each
/// place where they change.
#[derive(Debug)]
pub(super) struct Publisher {
    accounting: Arc<Accounting>,
    published: Stats,
    batches_in_flight: usize,
}

impl Publisher {
    pub(super) fn new(accounting: Arc<Accounting>) -> Self {
        let published = accounting.stats(NonZeroUsize::MIN, accounting.started_at);
        Self { accounting, published, batches_in_flight: 0 }
    }

    pub(super) fn publish(&mut self, batches_in_flight: usize, now: Instant) {
        let stats = self.accounting.stats(NonZeroUsize::MIN, now);
        let metrics = &self.accounting.metrics;
        metrics.publish(&self.published, &stats);
        metrics.change_in_flight(self.batches_in_flight, batches_in_flight);
        self.published = stats;
        self.batches_in_flight = batches_in_flight;
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.publish(0, now());
        self.accounting.metrics.end();
    }
}

impl Worker {
    /// Measures a batch that is about to be sent.
    pub(super) fn measure_batch(&self, batch: &[PendingEvent]) {
        let metrics = &self.accounting.metrics;
        metrics.send(batch.len());
        for events in batch.chunk_by(|event, next| event.last_failure() == next.last_failure()) {
            if let Some(class) = events.first().and_then(PendingEvent::last_failure) {
                metrics.retry(class, events.len() as u64);
            }
        }
    }

    /// When the age of the oldest waiting event is to be published again, if nothing wakes the worker before.
    pub(super) fn next_publication(&self, now: Instant) -> Option<Instant> {
        (!self.buffer.is_empty()).then_some(now + INTERVAL)
    }
}
