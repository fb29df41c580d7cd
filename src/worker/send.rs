//! Sending a batch: the call, its time-out, and what is counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Worker;
use crate::event::Event;
use crate::pending::PendingEvent;
use crate::policy::BufferedEvent;

/// How much longer than its own timeout a write may take before its task is stopped: several times the delay of a
/// timer.
const TIMEOUT_TOLERANCE: Duration = Duration::from_millis(20);

impl Worker {
    /// Starts a call for a batch.
    pub(super) fn send(&mut self, mut batch: Vec<PendingEvent>, now: Instant) {
        let retried = batch.iter().filter(|event| event.attempts() > 0).count();
        self.accounting.counters.send(batch.len(), retried);
        self.charge_pace(&batch);
        #[cfg(feature = "metrics")]
        self.measure_batch(&batch);
        let timeout = self.timeout_of_attempt(&batch, now);
        let events: Vec<Event> = batch
            .iter_mut()
            .map(|event| {
                event.begin_attempt();
                event.event().clone()
            })
            .collect();
        let bytes = events.iter().map(Event::wire_bytes).sum();
        let writer = Arc::clone(&self.writer);
        // The writer is expected to return within `timeout`; a writer that does not is stopped soon after.
        let task_timeout = timeout + TIMEOUT_TOLERANCE;
        let span = self.spans.of(&batch, bytes);
        self.accounting.link_calls(!span.is_disabled());
        self.in_flight.start(batch, bytes, span, now, task_timeout, async move {
            writer.write_batch_within(&events, timeout).await
        });
    }

    /// How long an attempt may take. A ticket is answered at the latest one attempt timeout after its event's deadline;
    /// with read-back on, an attempt ends in the first half of that time, so that the second half is left for the read.
    fn timeout_of_attempt(&self, batch: &[PendingEvent], now: Instant) -> Duration {
        match batch.iter().map(PendingEvent::expires_at).min() {
            Some(deadline) if self.settings.read_back => {
                let until_deadline = deadline.saturating_duration_since(now);
                self.settings
                    .attempt_timeout
                    .min(until_deadline + self.settings.attempt_timeout / 2)
            }
            _ => self.settings.attempt_timeout,
        }
    }
}
