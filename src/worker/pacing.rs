//! What answers tell of the table's capacity, and what follows from it for the calls and the buffer.

use std::time::Instant;

use rand::RngExt;
use tracing::field::display;

use super::Worker;
use super::settlement::Held;
use crate::error::{BatchError, ThrottlingLimit, ThrottlingReason};
use crate::policy::Waiting;
use crate::policy::pace::{Answer, Change};
use crate::stats::Limits;

/// However slow the table, so many batches may wait: with fewer, its capacity could not be used.
const LEAST_BUFFERED_BATCHES: usize = 4;

/// Keys are spread evenly over a table's partitions. So this many events of one call are not all for the same.
const EVENTS_OF_SEVERAL_PARTITIONS: usize = 8;

/// A call that was answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) began: Option<Instant>,
    events: usize,
    units: u64,
}

impl Call {
    pub(super) fn of(batch: &[Held]) -> Self {
        let began = batch.first().and_then(|held| held.pending.in_flight_since());
        Self { began, events: batch.len(), units: units(batch) }
    }
}

/// How much of a call the table had capacity for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Share<'a> {
    Stored(&'a [Held]),
    /// The call was refused as a whole.
    Refused(&'a BatchError),
}

impl Share<'_> {
    /// Whether it may be one partition alone that had no capacity.
    fn is_of_one_partition(&self, call: Call) -> bool {
        let Self::Refused(error) = self else { return false };
        let reasons = error.throttling_reasons();
        let is_key_range = |reason: &ThrottlingReason| reason.limit() == ThrottlingLimit::KeyRange;
        call.events < EVENTS_OF_SEVERAL_PARTITIONS
            && !reasons.is_empty()
            && reasons.iter().all(is_key_range)
    }
}

/// Write units of these events.
pub(super) fn units(events: &[Held]) -> u64 {
    events.iter().map(|held| held.event().write_units()).sum()
}

impl Worker {
    /// Learns from an answer that says what the table had capacity for.
    pub(super) fn learn(&mut self, call: Call, share: Share<'_>, now: Instant) {
        let (accepted, stored_events) = match share {
            Share::Stored(stored) => (units(stored), stored.len()),
            Share::Refused(error) => {
                let reason = error.throttling_reasons().first();
                let limit = reason.map_or(ThrottlingLimit::Unknown, ThrottlingReason::limit);
                self.epitaph.ledger.counters.throttle_batch(limit);
                (0, 0)
            }
        };
        let refused = call.units - accepted;
        if refused > 0 {
            self.epitaph.ledger.counters.throttle(refused);
        }
        // The call that was answered still had its place when no other could begin.
        let is_saturated =
            self.flights.len() + 1 >= self.concurrency.limit() && self.buffer.is_due(now);
        self.concurrency.observe(stored_events, is_saturated, now);
        let began = call.began.unwrap_or(now);
        let jitter = if refused > 0 { self.jitter.random::<f64>() } else { 0.0 };
        let answer = Answer {
            began,
            accepted,
            refused,
            is_of_one_partition: share.is_of_one_partition(call),
        };
        if self.pace.observe(answer, now, jitter) == Change::Began {
            let reason = match share {
                Share::Refused(error) => error.throttling_reasons().first().map(display),
                Share::Stored(_) => None,
            };
            tracing::warn!(
                reason,
                "the table throttles: calls now leave at the rate that it takes"
            );
        }
        if self.pace.capacity().is_some() {
            self.limit_buffer();
        }
    }

    /// Takes the table for unlimited again, when it has not been at its limit for long.
    pub(super) fn forget_pace(&mut self, now: Instant) {
        if self.pace.forget(now) == Change::Ended {
            tracing::info!("the table throttles no more: calls leave at once");
            self.limit_buffer();
        }
    }

    /// Lets no more events in than are stored in half of their deadline.
    pub(super) fn limit_buffer(&mut self) {
        let most = self.max_buffered_events as u64;
        let least = (LEAST_BUFFERED_BATCHES * self.limits.max_events) as u64;
        let withheld = match self.pace.events_within(self.retry.event_deadline / 2) {
            Some(events) => most.saturating_sub(events.max(least)),
            None => 0,
        };
        if withheld > 0 || self.epitaph.ledger.room.is_withheld() {
            self.epitaph.ledger.room.withhold(withheld);
        }
    }

    /// Tells the counters what limits the calls now.
    pub(super) fn publish_limits(&self, now: Instant) {
        let ledger = &self.epitaph.ledger;
        let accepted_at = |expires_at: Instant| expires_at.checked_sub(self.retry.event_deadline);
        let oldest = self.buffer.next_expiry().and_then(accepted_at);
        ledger.counters.limit(Limits {
            write_units_per_second: self.pace.rate(now),
            batches_in_flight: self.concurrency.limit(),
            oldest: oldest.map(|oldest| oldest.saturating_duration_since(ledger.began)),
        });
    }
}
